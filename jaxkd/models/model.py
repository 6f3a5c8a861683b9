"""A model is an embedding, a list of blocks and a head; this strings them together, purely."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.core.random import stream

Params = dict[str, Any]  # {"embed": ..., "blocks": [...], "head": ...}


@dataclasses.dataclass(frozen=True)
class Model:
    """Three flax modules and how often the block is repeated; holds no parameters."""

    embed: Any
    block: Any
    head: Any
    layers: int
    shared: bool = False  # the list has one block, which is applied `layers` times

    def init(self, seed: int, name: str = "init") -> Params:
        """Random float32 parameters, every module from its own stream of `seed`."""

        def draw() -> Params:
            tokens, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
            embed = self.embed.init(stream(seed, f"{name}/embed"), tokens, mask)["params"]
            hidden = self.embed.apply({"params": embed}, tokens, mask)
            blocks = [
                self.block.init(stream(seed, f"{name}/block", i), hidden, mask)["params"]
                for i in range(1 if self.shared else self.layers)
            ]
            head = self.head.init(stream(seed, f"{name}/head"), hidden, embed["token"], mask)
            return {"embed": embed, "blocks": blocks, "head": head.get("params", {})}

        return jax.jit(draw)()


def keep_blocks(seed: int, step: Any, layers: int, rate: float) -> Bool[Array, " N"]:
    """LayerDrop's draw for one step: True where a block runs; the same on every device.

    Source: Fan, Grave, Joulin (2019), arXiv:1909.11556: each block is dropped on its own.
    """
    return jax.random.uniform(stream(seed, "layer_drop", step), (layers,)) >= rate


def forward(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    keep: Bool[Array, " N"] | None = None,
    dropout: jax.Array | None = None,
) -> Outputs:
    """The head's logits and all hidden states.

    A head that predicts tokens does so at the batch's target positions, or everywhere if it names
    none.

    Args:
      keep: blocks that run in this step (LayerDrop); None runs all. A dropped block is really
        skipped (`lax.cond`), backward too, and passes its input on.
      dropout: key for dropout; None turns dropout off.
    """
    train = dropout is not None

    def rngs(index: int) -> dict[str, jax.Array]:
        return {"dropout": jax.random.fold_in(dropout, index)} if train else {}

    hidden = model.embed.apply(
        {"params": params["embed"]},
        batch.tokens,
        batch.mask,
        batch.segments,
        train=train,
        rngs=rngs(0),
    )
    states = [hidden]
    for i, block in enumerate(params["blocks"] * (model.layers if model.shared else 1)):

        def run(block: Params, hidden: Array, i: int = i) -> Array:
            return model.block.apply(
                {"params": block}, hidden, batch.mask, train=train, rngs=rngs(i + 1)
            )

        if keep is None:
            hidden = run(block, hidden)
        else:
            hidden = jax.lax.cond(keep[i], run, lambda _, hidden: hidden, block, hidden)
        states.append(hidden)
    if batch.target_positions is not None:
        hidden = jnp.take_along_axis(hidden, batch.target_positions[..., None], axis=1)
    logits = model.head.apply(
        {"params": params["head"]},
        hidden,
        params["embed"]["token"],
        batch.mask,
        train=train,
        rngs=rngs(model.layers + 1),
    )
    return Outputs(logits=logits, hidden=tuple(states))
