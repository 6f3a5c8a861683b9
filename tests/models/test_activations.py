"""Activations are torch's, and in bfloat16 float64's rounded once, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from jaxkd.models.activations import ACTIVATIONS, activation

# Around zero, in the tails, and where exponentials overflow float32.
INPUTS = np.concatenate([np.linspace(-12, 12, 4001), [-300.0, -90.0, 90.0, 300.0]])


def both(name, inputs):
    """Outputs, and the gradient of their sum."""
    actual, back = jax.vjp(activation(name), inputs)
    return actual, back(jnp.ones_like(actual))[0]


def assert_near(ours, theirs, inputs, relative):
    """XLA's tanh in float32 was seen 2.5e-6 from 1, and gelu_new multiplies that by its input."""
    ours, inputs = (np.asarray(x, np.float64) for x in (ours, inputs))
    allowed = relative * np.abs(theirs) + 2e-6 * (1 + np.abs(inputs))
    assert (np.abs(ours - theirs) <= allowed).all(), np.abs(ours - theirs).max()


def of_torch(name, inputs):
    inputs = torch.tensor(np.asarray(inputs, np.float64), requires_grad=True)
    outputs = ACT2FN[name](inputs)
    outputs.sum().backward()
    return outputs.detach().numpy(), inputs.grad.numpy()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["op by op", "jitted"])
def test_float32_is_torchs(name, wrap):
    inputs = jnp.asarray(INPUTS, jnp.float32)
    actual = wrap(lambda x: both(name, x))(inputs)
    for ours, theirs in zip(actual, of_torch(name, inputs), strict=True):
        assert_near(ours, theirs, inputs, 2e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bfloat16_is_rounded_once(name):
    inputs = jnp.asarray(INPUTS, jnp.bfloat16)
    actual = jax.jit(lambda x: both(name, x))(inputs)
    for ours, theirs in zip(actual, of_torch(name, inputs), strict=True):
        assert ours.dtype == jnp.bfloat16
        assert_near(ours, theirs, inputs, 2.0**-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_step_of_a_formula_is_rounded_to_bfloat16(name):
    """XLA's CPU compiler is slow at it; a rounded step shows as arithmetic in bfloat16."""
    traced = str(jax.make_jaxpr(activation(name))(jnp.zeros(4, jnp.bfloat16)))
    body = [line for line in traced.splitlines() if ":bf16" in line.split(" = ")[0]]
    # The inputs, and the result.
    assert all("convert_element_type" in line or "lambda" in line for line in body), traced
