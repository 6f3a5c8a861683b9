"""AdamW with warm-up, decay, clipping and frozen parts, from a few numbers."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import Any

import optax

from jaxkd.core.names import did_you_mean, matches
from jaxkd.core.ranges import check as check_ranges
from jaxkd.core.ranges import field
from jaxkd.core.tree import is_stacked, map_named, named
from jaxkd.models import axes

DECAYS = ("linear", "cosine", "constant")


@dataclasses.dataclass
class AdamW:
    """The optimiser of a stage; learning rates are per update."""

    learning_rate: float = field(1e-3, above=0)  # at the end of warm-up
    warmup: float = field(0.1, at_least=0, below=1)  # share of the updates
    decay: str = field("linear", one_of=DECAYS)  # to zero at the last update; or cosine, constant
    b1: float = field(0.9, at_least=0, below=1)  # decay of the mean of gradients
    b2: float = field(0.98, at_least=0, below=1)  # decay of the mean of their squares
    epsilon: float = field(1e-6, above=0)  # added to the root of that mean
    weight_decay: float = field(0.01, at_least=0)  # of matrices; biases and norms have none
    clip: float = field(1.0, at_least=0)  # global norm of the gradient; 0 does not clip

    def check(self) -> None:
        check_ranges(self, "optimiser")

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
          ValueError: if a pattern of `freeze` fits no parameter, or a parameter has no row in
            models/axes.py.
        """
        self.check()
        names = list(named(params))
        for pattern in freeze:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"freeze={pattern!r} fits no parameter. {did_you_mean(pattern, names)}"
                    + " With scan_layers all blocks are one." * any(map(is_stacked, names))
                )
        labels = map_named(
            lambda name, _: "frozen" if matches(name, freeze) else "free",
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
        # Clipped inside: what does not learn has no part in the norm.
        free = optax.chain(optax.clip_by_global_norm(self.clip), adamw) if self.clip else adamw
        return optax.partition({"free": free, "frozen": optax.set_to_zero()}, labels)
