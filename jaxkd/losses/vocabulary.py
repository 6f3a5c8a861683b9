"""Why sums over a vocabulary run over the first axis."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def vocabulary_first(logits: Float[Array, "*B V"]) -> Float[Array, " V *B"]:
    """The logits in float32 with the vocabulary in front, as a vocabulary head computes them.

    Head and loss each move the axis, the moves cancel, and XLA's CPU backend reads and writes the
    largest arrays of a step in the order of its matrix products. Seen with jax 0.10.2 on 2 cores
    of a 2.5 GHz Xeon, 304 positions of width 128, 30,522 entries, cross-entropy and its three
    gradients, least of 10: 112 ms against 231 ms with the vocabulary last; 175 against 222 in a
    second, busier pair.
    """
    return jnp.moveaxis(logits.astype(jnp.float32), -1, 0)


def shared(
    first: Float[Array, "*B V"], second: Float[Array, "*B U"]
) -> tuple[Float[Array, "*B W"], Float[Array, "*B W"]]:
    """Both logits over the tokens both have: what only the wider one has is masked out.

    Models of one tokenizer may have rows no token uses (Qwen2: 151,936 and 152,064). Padding the
    narrower one with zeros would give those rows probability; leaving them out gives them none.
    """
    common = min(first.shape[-1], second.shape[-1])
    return first[..., :common], second[..., :common]


Scalar = float | int | np.floating | Float[Array, ""]  # what a schedule gives is an array


def log_softmax(logits: Float[Array, "*B V"], temperature: Scalar = 1.0) -> Float[Array, " V *B"]:
    """log softmax(logits / temperature), vocabulary first."""
    return jax.nn.log_softmax(vocabulary_first(logits) / temperature, axis=0)


def check_temperature(temperature: Scalar) -> None:
    """Raise ValueError if temperature is a number <= 0."""
    if not isinstance(temperature, jax.core.Tracer) and temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive (1 changes nothing).")


def log_distributions(
    student: Float[Array, "*B V"], teacher: Float[Array, "*B V"], temperature: Scalar
) -> tuple[Float[Array, " V *B"], Float[Array, " V *B"]]:
    """log q of the student and log p of the teacher, vocabulary first.

    Raises:
      ValueError: if temperature is a number <= 0.
    """
    check_temperature(temperature)
    return log_softmax(student, temperature), log_softmax(teacher, temperature)


def expectation(log_a: Float[Array, " V *B"], values: Float[Array, " V *B"]) -> Float[Array, "*B"]:
    """sum a v; a token without weight (log a = -inf) counts nothing, whatever its value."""
    # The where keeps 0 * inf out of the sum, and with it nan out of the gradient.
    return jnp.sum(jnp.exp(log_a) * jnp.where(log_a > -jnp.inf, values, 0.0), axis=0)


def kl(log_a: Float[Array, " V *B"], log_b: Float[Array, " V *B"]) -> Float[Array, "*B"]:
    """sum a (log a - log b).

    In this direct form: subtracting an entropy instead goes negative in bfloat16.
    """
    weighted = log_a > -jnp.inf
    return expectation(log_a, jnp.where(weighted, log_a, 0.0) - jnp.where(weighted, log_b, 0.0))
