"""A model is an embedding, a list of blocks and a head; this strings them together, purely."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs, Projection
from jaxkd.core.random import stream
from jaxkd.models.attention import BlockInternals
from jaxkd.models.heads import VocabularyHead
from jaxkd.models.stack import listed_blocks, stack, stacked_blocks

# {"embed": ..., "blocks": [...], "head": ...}; an encoder-decoder's blocks are the decoder's, and
# "encoder" has {"embed": ..., "blocks": [...]}. Blocks may also be one stacked tree (stack.py).
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """Three flax modules and how often the block is repeated; holds no parameters."""

    embed: Any
    block: Any
    head: Any  # None: an encoder's list ends with its last block
    layers: int
    shared: bool = False  # the list has one block, which is applied `layers` times
    scan: bool = False  # compile one block for all
    encoder: "Model | None" = None  # what it reads with, if it is an encoder-decoder

    @property
    def depth(self) -> int:
        """Blocks applied in a forward pass: the encoder's, then these."""
        return self.layers + (self.encoder.layers if self.encoder else 0)

    def arrange(self, params: Params) -> Params:
        """The parameters as a forward pass takes them fastest: stacked for a scan, else the list.

        A scan stacks a list by itself, in every step, and compiles that as well.
        """
        return stack(params) if self.scan and not self.shared else params

    def init(self, seed: int, name: str = "init") -> Params:
        """Random float32 parameters, every module from its own stream of `seed`."""

        def draw() -> Params:
            tokens, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
            embed, hidden = self._draw_embed(seed, name, tokens, mask)
            params, given = {}, {}
            if self.encoder is not None:
                inner, table = f"{name}/encoder", {"token": embed["token"]}
                first, memory = self.encoder._draw_embed(seed, inner, tokens, mask, **table)
                blocks = self.encoder._draw_blocks(seed, inner, memory, mask)
                params["encoder"] = {"embed": first, "blocks": blocks}
                given = {"memory": memory, "memory_mask": mask}
            blocks = self._draw_blocks(seed, name, hidden, mask, **given)
            head = self.head.init(stream(seed, f"{name}/head"), hidden, embed["token"], mask)
            return params | {"embed": embed, "blocks": blocks, "head": head.get("params", {})}

        return jax.jit(draw)()

    def _draw_embed(
        self, seed: int, name: str, tokens: Array, mask: Array, **given: Any
    ) -> tuple[Params, Array]:
        found = self.embed.init(stream(seed, f"{name}/embed"), tokens, mask, **given)
        return found.get("params", {}), self.embed.apply(found, tokens, mask, **given)

    def _draw_blocks(
        self, seed: int, name: str, hidden: Array, mask: Array, **given: Any
    ) -> list[Params]:
        return [
            self.block.init(stream(seed, f"{name}/block", i), hidden, mask, **given)["params"]
            for i in range(1 if self.shared else self.layers)
        ]


def keep_blocks(seed: int, step: Any, depth: int, rate: float) -> Bool[Array, " N"]:
    """LayerDrop's draw for one step: True where a block runs; the same on every device.

    Source: Fan, Grave, Joulin (2019), arXiv:1909.11556: each block is dropped on its own.
    """
    return jax.random.uniform(stream(seed, "layer_drop", step), (depth,)) >= rate


def forward(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    keep: Bool[Array, " N"] | None = None,
    dropout: jax.Array | None = None,
) -> Outputs:
    """The head's logits, all hidden states and attention maps.

    A head that predicts tokens does so at the batch's target positions, or everywhere if it names
    none. What is returned and not used costs nothing once compiled.

    Args:
      keep: blocks that run in this step (LayerDrop), the encoder's first; None runs all. A dropped
        block is really skipped (`lax.cond`), backward too, and passes its input on.
      dropout: key for dropout; None turns dropout off.
    """
    outputs = states(model, params, batch, keep=keep, dropout=dropout)
    logits, projection = predict(model, params, batch, outputs.hidden[-1], dropout=dropout)
    return dataclasses.replace(outputs, logits=logits, projection=projection)


def predict(
    model: Model,
    params: Params,
    batch: Batch,
    hidden: Float[Array, "B L D"],
    *,
    dropout: jax.Array | None = None,
) -> tuple[Array | None, Projection | None]:
    """What the head makes of the last hidden states: logits, and of which projection they are."""
    if batch.target_positions is not None:
        hidden = jnp.take_along_axis(hidden, batch.target_positions[..., None], axis=1)
    own, token = {"params": params["head"]}, params["embed"]["token"]
    if isinstance(model.head, VocabularyHead):
        projection = model.head.apply(own, hidden, token, method="project")
        return projection.logits(), projection
    train, rngs = dropout is not None, _rngs(dropout, model.layers + 1)
    return model.head.apply(own, hidden, token, batch.last_mask, train=train, rngs=rngs), None


def states(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    keep: Bool[Array, " N"] | None = None,
    dropout: jax.Array | None = None,
) -> Outputs:
    """All of `forward` but the head: no logits."""
    read, given = None, {}
    tokens, mask = batch.tokens, batch.mask
    if model.encoder is not None:
        tokens, mask = batch.decoder_tokens, batch.decoder_mask
        read = encode(model, params, batch, keep=keep, dropout=dropout)
        keep = None if keep is None else keep[model.encoder.layers :]
        given = {"memory": read.hidden[-1], "memory_mask": batch.mask}
    outputs = _through(model, params, tokens, mask, batch.segments, keep, dropout, {}, given)
    return dataclasses.replace(outputs, encoder=read)


def encode(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    keep: Bool[Array, " N"] | None = None,
    dropout: jax.Array | None = None,
) -> Outputs:
    """What an encoder-decoder's encoder makes of `batch.tokens`; arguments as for `forward`."""
    key = None if dropout is None else jax.random.fold_in(dropout, 2**20)  # apart from blocks'
    keep = None if keep is None else keep[: model.encoder.layers]
    table = {"token": params["embed"]["token"]}
    return _through(
        model.encoder, params["encoder"], batch.tokens, batch.mask, None, keep, key, table, {}
    )


def _rngs(dropout: jax.Array | None, index: Any) -> dict[str, jax.Array]:
    return {} if dropout is None else {"dropout": jax.random.fold_in(dropout, index)}


def _through(
    model: Model,
    params: Params,
    tokens: Array,
    mask: Array,
    segments: Array | None,
    keep: Array | None,
    dropout: jax.Array | None,
    embed_given: dict[str, Any],
    block_given: dict[str, Any],
) -> Outputs:
    """Embedding and blocks; no logits yet."""
    train = dropout is not None
    hidden = model.embed.apply(
        {"params": params["embed"]},
        tokens,
        mask,
        segments,
        train=train,
        rngs=_rngs(dropout, 0),
        **embed_given,
    )

    def run(block: Params, hidden: Array, i: Any) -> tuple[Array, Any]:
        return model.block.apply(
            {"params": block}, hidden, mask, train=train, rngs=_rngs(dropout, i + 1), **block_given
        )

    def one(hidden: Array, block: Params, i: Any, keep: Any) -> tuple[Array, Any]:
        if keep is None:
            hidden, inside = run(block, hidden, i)
            return hidden, (hidden, inside)
        hidden = jax.lax.cond(
            keep, lambda block, x: run(block, x, i)[0], lambda _, x: x, block, hidden
        )
        return hidden, (hidden, BlockInternals())

    first, count = hidden, model.layers
    if model.scan:
        blocks = params["blocks"]
        stacked = None if model.shared else stacked_blocks(blocks)

        def body(hidden: Array, turn: tuple[Any, Any, Any]) -> tuple[Array, Any]:
            block, i, keep = turn
            return one(hidden, blocks[0] if model.shared else block, i, keep)

        hidden, stacks = jax.lax.scan(body, hidden, (stacked, jnp.arange(count), keep))
        after = [jax.tree.map(lambda x, i=i: x[i], stacks) for i in range(count)]
        # The last state is the scan's carry: taken out of the stack, it would send its gradient
        # through an array of all states.
        after[-1] = (hidden, after[-1][1])
    else:
        after = []
        for i, block in enumerate(listed_blocks(params["blocks"]) * (count if model.shared else 1)):
            hidden, seen = one(hidden, block, i, None if keep is None else keep[i])
            after.append(seen)
    states, insides = zip(*after, strict=True)

    def of_all(name: str) -> tuple[Any, ...]:
        found = tuple(getattr(inside, name) for inside in insides)
        return found if found[0] is not None else ()

    seen = {
        name: of_all(name) for name in ("attention", "cross", "qkv", "context", "ffn_activations")
    }
    return Outputs(logits=None, hidden=(first, *states), **seen)
