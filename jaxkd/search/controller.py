"""An LSTM that proposes candidates, trained by policy gradient.

It reads what is known (the best candidate, the best of the last episode, and all of the last
episode, each with its reward) and then chooses a value for one dimension after the other. What it
proposes is changed by chance, less from episode to episode.
Source of the design: Trivedi et al. (2023), arXiv:2303.09639; of the gradient: Williams (1992),
REINFORCE.
"""

import dataclasses
import functools
import math
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxkd.core.random import numpy_stream, stream
from jaxkd.search.optimisers import Outcome, unseen
from jaxkd.search.space import Candidate, Space

Params = dict[str, Any]
TRIES = 100  # draws of the policy, until one is new
WIDER = 20  # of them, until the temperature is twice as high


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the controller learns."""

    episode: int = 8  # candidates between two updates
    width: int = 48  # of the LSTM
    learning_rate: float = 0.01
    updates: int = 4  # steps of the optimiser after an episode
    exploration: float = 1.0  # chance that a candidate of the first episode is drawn at random
    decay: float = 0.6  # factor of that chance from one episode to the next
    least: float = 0.05  # the chance falls to this


class Controller:
    """The LSTM as an optimiser.

    A candidate of an episode is drawn from the space with chance e, else from the policy pi, so
    that its density is e u + (1 - e) pi. All candidates so far are learned from, each weighted by
    pi over that density (at most CLIP) and by how far its reward is above the mean.
    """

    CLIP = 2.0

    def __init__(self, space: Space, seed: int, settings: Settings = Settings()):  # noqa: B008
        self.space, self.seed, self.settings = space, seed, settings
        self._sizes = tuple(len(space.values[name]) for name in space.names)
        self._params = initial(stream(seed, "controller"), self._sizes, settings.width)
        self._optimiser = _adam(settings.learning_rate)
        self._state = self._optimiser.init(self._params)
        self._observed: list[_Observed] = []  # measured, in order
        self._seen: set[str] = set()
        self._learned = 0  # episodes
        self._look()

    def _look(self) -> None:
        """Read what is known now."""
        self._context = jnp.asarray(self._read(), jnp.float32)
        state = _state_after(self._params, self._context)
        self._on_host = jax.device_get((self._params, state))

    @property
    def episode(self) -> int:
        """Number of finished episodes."""
        return len(self._seen) // self.settings.episode

    def exploration(self, episode: int) -> float:
        """The chance that a candidate of that episode is drawn from the whole space."""
        s = self.settings
        return max(s.least, s.exploration * s.decay**episode)

    def suggest(self, number: int, taken: Collection[str] = ()) -> Candidate:
        self._learn()
        random = numpy_stream(self.seed, "controller draws", number)
        seen = self._seen | set(taken)
        if random.random() >= self.exploration(self.episode):
            for i in range(TRIES):
                # What it is sure of has been tried: look further around it.
                candidate = self._draw(random, 1 + i / WIDER)
                if self.space.key(candidate) not in seen:
                    return candidate
        return unseen(self.space, random, seen, TRIES)

    def observe(self, candidate: Candidate, outcome: Outcome | None) -> None:
        self._learn()
        self._seen.add(self.space.key(candidate))
        if outcome is None or not math.isfinite(outcome.reward):
            return
        choices, allowed = self._encoded(candidate)
        episode = (len(self._seen) - 1) // self.settings.episode
        explored = self.exploration(episode)
        policy = float(_log_chance(self._params, self._context, choices, allowed))
        uniform = -float(np.log(allowed.sum(1)).sum())
        density = np.logaddexp(
            math.log(explored) + uniform, math.log1p(-min(explored, 1 - 1e-9)) + policy
        )
        self._observed.append(_Observed(outcome.reward, choices, allowed, float(density), episode))

    def _learn(self) -> None:
        """Update the policy once for each finished episode that it has not learned from."""
        while self._learned < self.episode:
            self._learned += 1
            if not self._observed:
                continue
            self._context = jnp.asarray(self._read(), jnp.float32)
            rewards = np.array([each.reward for each in self._observed])
            advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
            # Filled up to a power of two, so that few sizes are compiled; advantage 0 for the rest.
            rows = 1 << (len(rewards) - 1).bit_length()
            batch = {
                "choices": _filled([each.choices for each in self._observed], rows),
                "allowed": _filled([each.allowed for each in self._observed], rows),
                "density": _filled([each.density for each in self._observed], rows),
                "advantage": np.pad(advantages, (0, rows - len(rewards))),
            }
            for _ in range(self.settings.updates):
                self._params, self._state = _update(
                    self._optimiser, self.CLIP, self._params, self._state, self._context, batch
                )
            self._look()

    def _read(self) -> np.ndarray:
        """What the LSTM reads: [2 + episode, inputs], one candidate and its reward a row."""
        size = self.settings.episode
        last = [each for each in self._observed if each.episode == self._learned - 1]
        last = last[-size:] or self._observed[-size:]
        rows = np.zeros((2 + size, sum(self._sizes) + 1))
        if self._observed:
            best = max(self._observed, key=lambda each: each.reward)
            latest = max(last, key=lambda each: each.reward)
            for row, each in zip(rows, (best, latest, *last), strict=False):
                row[:-1] = np.concatenate(
                    [np.eye(n)[i] for n, i in zip(self._sizes, each.choices, strict=True)]
                )
                row[-1] = each.reward
        return rows

    def _encoded(self, candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
        """Its choices as numbers, [dimensions], and which were allowed, [dimensions, values]."""
        allowed = np.zeros((len(self._sizes), max(self._sizes)), bool)
        prefix: dict[str, Any] = {}
        choices = []
        for i, name in enumerate(self.space.names):
            values = self.space.values[name]
            for value in self.space.allowed(prefix):
                allowed[i, values.index(value)] = True
            choices.append(values.index(candidate[name]))
            prefix[name] = candidate[name]
        return np.array(choices), allowed

    def _draw(self, random: np.random.Generator, temperature: float) -> Candidate:
        params, state = self._on_host
        candidate: dict[str, Any] = {}
        previous = -1
        for i, name in enumerate(self.space.names):
            state, logits = _next(params, state, i, previous, np)
            values = self.space.values[name]
            allowed = self.space.allowed(candidate)
            scores = logits[[values.index(v) for v in allowed]] / temperature
            chances = np.cumsum(np.exp(scores - scores.max(), dtype=np.float64))
            value = allowed[int(np.searchsorted(chances, random.random() * chances[-1]))]
            candidate[name], previous = value, values.index(value)
        return candidate


@dataclasses.dataclass(frozen=True)
class _Observed:
    reward: float
    choices: np.ndarray  # [dimensions]
    allowed: np.ndarray  # [dimensions, values]
    density: float  # log, under what proposed it
    episode: int


# One object for a rate: programs are compiled once for all controllers.
_adam = functools.cache(optax.adam)


def _filled(values: list[Any], rows: int) -> np.ndarray:
    """An array of them, the first one repeated up to `rows`."""
    array = np.asarray(values)
    return np.concatenate([array, np.repeat(array[:1], rows - len(array), axis=0)])


def initial(key: jax.Array, sizes: tuple[int, ...], width: int) -> Params:
    """Parameters of the LSTM: what reads, what chooses, and what is known of a choice."""
    inputs, values = sum(sizes) + 1, max(sizes)
    read, choose, hidden, out = jax.random.split(key, 4)

    def matrix(key: jax.Array, *shape: int) -> jax.Array:
        return jax.random.normal(key, shape) * shape[-2] ** -0.5

    return {
        "read": matrix(read, inputs, 4 * width),
        # Of the value before; the last row is that of none.
        "chosen": matrix(choose, len(sizes), values + 1, 4 * width) * 0.5,
        "hidden": matrix(hidden, width, 4 * width),
        "bias": jnp.zeros(4 * width).at[width : 2 * width].set(1.0),  # forget gate
        # Near 0, so that the first candidates are drawn evenly.
        "out": matrix(out, len(sizes), width, values) * 0.1,
        "out_bias": jnp.zeros((len(sizes), values)),
    }


def _cell(params: Params, state: tuple[Any, Any], inputs: Any, xp: Any = jnp) -> tuple[Any, Any]:
    hidden, memory = state
    gates = inputs + hidden @ params["hidden"] + params["bias"]
    enter, forget, new, output = xp.split(gates, 4)
    memory = _sigmoid(forget, xp) * memory + _sigmoid(enter, xp) * xp.tanh(new)
    return _sigmoid(output, xp) * xp.tanh(memory), memory


def _sigmoid(x: Any, xp: Any) -> Any:
    return 0.5 * (1 + xp.tanh(0.5 * x))


@jax.jit
def _state_after(params: Params, context: Any) -> tuple[Any, Any]:
    zeros = jnp.zeros(params["hidden"].shape[0])
    inputs = context @ params["read"]
    return jax.lax.scan(lambda s, x: (_cell(params, s, x), None), (zeros, zeros), inputs)[0]


def _next(params: Params, state: tuple[Any, Any], dimension: Any, previous: Any, xp: Any) -> Any:
    """The state after the value before, and the logits of this dimension's values.

    Args:
      xp: jax.numpy to learn, numpy to draw: a call for each dimension would cost more than it.
    """
    state = _cell(params, state, params["chosen"][dimension, previous], xp)
    return state, state[0] @ params["out"][dimension] + params["out_bias"][dimension]


def log_chance(params: Params, context: Any, choices: Any, allowed: Any) -> Any:
    """Log probability of a candidate under the policy.

    Args:
      choices: [dimensions]; allowed: [dimensions, values], which could have been chosen.
    """
    before = jnp.concatenate([jnp.array([-1]), choices[:-1]])

    def step(state: Any, each: tuple[Any, ...]) -> tuple[Any, Any]:
        dimension, previous, choice, mask = each
        state, logits = _next(params, state, dimension, previous, jnp)
        return state, jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf))[choice]

    steps = (jnp.arange(len(choices)), before, choices, allowed)
    _, log_p = jax.lax.scan(step, _state_after(params, context), steps)
    return log_p.sum()


_log_chance = jax.jit(log_chance)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _update(
    optimiser: optax.GradientTransformation,
    clip: float,
    params: Params,
    state: Any,
    context: Any,
    batch: dict[str, Any],
) -> tuple[Params, Any]:
    def loss(params: Params) -> Any:
        log_p = jax.vmap(lambda c, a: log_chance(params, context, c, a))(
            batch["choices"], batch["allowed"]
        )
        ratio = jnp.minimum(jnp.exp(jax.lax.stop_gradient(log_p) - batch["density"]), clip)
        return -jnp.mean(ratio * batch["advantage"] * log_p)

    updates, state = optimiser.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state
