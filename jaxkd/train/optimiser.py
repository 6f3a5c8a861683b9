"""AdamW with warm-up, decay, clipping and frozen parts, from a few numbers."""

import dataclasses
import fnmatch
import math
from collections.abc import Sequence
from typing import Any

import optax

from jaxkd.core.names import did_you_mean
from jaxkd.core.tree import is_stacked, map_named, named
from jaxkd.models import axes

DECAYS = ("linear", "cosine", "constant")


@dataclasses.dataclass
class AdamW:
    """The optimiser of a stage; learning rates are per update."""

    learning_rate: float = 1e-3  # at the end of warm-up
    warmup: float = 0.1  # share of the updates
    decay: str = "linear"  # to zero at the last update; or cosine, constant
    b1: float = 0.9
    b2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.01  # of matrices; not of biases and norms
    clip: float = 1.0  # global norm of the gradient; 0 does not clip

    def check(self) -> None:
        if self.decay not in DECAYS:
            raise ValueError(f"optimiser.decay={self.decay!r}. {did_you_mean(self.decay, DECAYS)}")
        ranges = {  # field -> whether its value is allowed, in words
            "learning_rate": (0 < self.learning_rate < math.inf, "above 0"),
            "warmup": (0 <= self.warmup < 1, "a share of the steps: at least 0 and below 1"),
            "b1": (0 <= self.b1 < 1, "at least 0 and below 1"),
            "b2": (0 <= self.b2 < 1, "at least 0 and below 1"),
            "epsilon": (0 < self.epsilon < math.inf, "above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "clip": (0 <= self.clip < math.inf, "at least 0, and 0 does not clip"),
        }
        for name, (allowed, words) in ranges.items():
            if not allowed:
                raise ValueError(f"optimiser.{name} is {getattr(self, name)}; it is {words}.")

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rate of update 0 .. steps - 1."""
        warm = max(1, round(self.warmup * steps))
        rest = max(1, steps - warm)
        after = {
            "linear": optax.linear_schedule(self.learning_rate, 0.0, rest),
            "cosine": optax.cosine_decay_schedule(self.learning_rate, rest),
            "constant": optax.constant_schedule(self.learning_rate),
        }[self.decay]
        # From 1/warm, not from 0: an update that changes nothing would be wasted.
        start = optax.linear_schedule(self.learning_rate / warm, self.learning_rate, warm - 1 or 1)
        return optax.join_schedules([start, after], [warm])

    def build(
        self, params: Any, steps: int, freeze: Sequence[str] = ()
    ) -> optax.GradientTransformation:
        """The optax chain for these parameters; `freeze` names those that must not change.

        Raises:
          ValueError: if a pattern of `freeze` matches no parameter, or a parameter has no row in
            models/axes.py.
        """
        self.check()
        names = list(named(params))
        for pattern in freeze:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"freeze={pattern!r} matches no parameter. {did_you_mean(pattern, names)}"
                    + " With scan_layers all blocks are one." * any(map(is_stacked, names))
                )
        labels = map_named(
            lambda name, _: "frozen" if any(fnmatch.fnmatch(name, p) for p in freeze) else "free",
            params,
        )
        adamw = optax.adamw(
            self.schedule(steps),
            b1=self.b1,
            b2=self.b2,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            mask=lambda tree: map_named(
                lambda name, leaf: axes.is_matrix(axes.axes(name, leaf.ndim)),
                tree,
            ),
        )
        # Clipped inside: frozen parameters are not part of the norm.
        free = optax.chain(optax.clip_by_global_norm(self.clip), adamw) if self.clip else adamw
        return optax.partition({"free": free, "frozen": optax.set_to_zero()}, labels)
