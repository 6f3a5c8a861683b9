"""A model is an embedding, a list of blocks and heads; pure functions string them together."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs, Projection
from jaxkd.core.random import stream
from jaxkd.models import parts
from jaxkd.models.attention import BlockInternals
from jaxkd.models.parts import Params as Params
from jaxkd.models.stack import listed_blocks, stack, stacked_blocks


@dataclasses.dataclass(frozen=True)
class Model:
    """flax modules, one for each part; holds no parameters.

    `embed` returns hidden states and what every block gets besides them, by argument name (T5's
    relative bias); blocks return hidden states and `BlockInternals`.
    """

    embed: Any
    blocks: tuple[Any, ...]  # in the order they are applied; equal or not
    heads: Mapping[str, Any]  # "head" predicts; an encoder's list may end without one
    shared: bool = False  # all blocks use the parameters of one
    scan: bool = False  # compile one block for all
    encoder: "Model | None" = None  # of an encoder-decoder
    shared_head: bool = False  # further heads are classifiers behind the other layers of "head"
    mean_readers: frozenset[str] = frozenset()  # heads that read the mean of all tokens

    def __post_init__(self):
        odd = [i for i, block in enumerate(self.blocks) if block != self.blocks[0]]
        if odd and (self.scan or self.shared):
            wish = "scan_layers" if self.scan else "a model of one block"
            raise ValueError(
                f"{wish} needs equal blocks; block {odd[0]} is configured unlike block 0. "
                "Set scan_layers=False."
            )

    @property
    def layers(self) -> int:
        """Blocks applied in a forward pass, not counting an encoder's."""
        return len(self.blocks)

    @property
    def head(self) -> Any:
        """The head that predicts; None for an encoder whose list ends with its last block."""
        return self.heads.get("head")

    @property
    def depth(self) -> int:
        """Blocks applied in a forward pass: the encoder's, then these."""
        return self.layers + (self.encoder.layers if self.encoder else 0)

    def parts(self, params: Params) -> dict[str, Any]:
        """Each part's parameters once, by name: see models/parts.py.

        Raises:
          ValueError: if the parameters have a key that is no part of this model.
        """
        return parts.parts(params, tuple(self.heads), self.encoder_heads)

    @property
    def encoder_heads(self) -> tuple[str, ...]:
        return tuple(self.encoder.heads) if self.encoder else ()

    def arrange(self, params: Params) -> Params:
        """The parameters as a forward pass takes them fastest: stacked for a scan, else the list.

        A scan stacks a list by itself, in every step, and compiles that as well.
        """
        return stack(params) if self.scan and not self.shared else params

    @functools.cached_property
    def shapes(self) -> Params:
        """What `init` returns, as jax.ShapeDtypeStruct."""
        return jax.eval_shape(lambda: self.init(0))

    def init(self, seed: int, name: str = "init") -> Params:
        """Random float32 parameters, every module from its own stream of `seed`.

        Each module is a program of its own, since equal ones are then compiled once.
        """
        tokens, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
        key = stream(seed, f"{name}/embed")
        embed = _drawing(self.embed)(key, tokens, mask)
        hidden, block_inputs = _outputs(self.embed, key, tokens, mask)
        token, params = embed["token"], {}
        if self.encoder is not None:
            inner = f"{name}/encoder"
            key, module = stream(seed, f"{inner}/embed"), self.encoder.embed
            first = _drawing(module)(key, tokens, mask, token=token)
            memory, inputs = _outputs(module, key, tokens, mask, token=token)
            blocks = self.encoder._draw_blocks(seed, inner, memory, mask, inputs)
            encoder_heads = self.encoder._draw_heads(seed, inner, memory, token, mask)
            params["encoder"] = {"embed": first, "blocks": blocks, **encoder_heads}
            block_inputs = block_inputs | {"memory": memory, "memory_mask": mask}
        blocks = self._draw_blocks(seed, name, hidden, mask, block_inputs)
        heads = self._draw_heads(seed, name, hidden, token, mask)
        return params | {"embed": embed, "blocks": blocks, **heads}

    def _draw_blocks(
        self, seed: int, name: str, hidden: ArrayLike, mask: Array, block_inputs: dict[str, Any]
    ) -> list[Params]:
        drawing = [_drawing(block) for block in self.blocks]
        return [
            drawing[self.blocks.index(block)](
                stream(seed, f"{name}/block", i), hidden, mask, **block_inputs
            )
            for i, block in enumerate(self.blocks[: 1 if self.shared else None])
        ]

    def _draw_heads(
        self, seed: int, name: str, hidden: ArrayLike, token: Array, mask: Array
    ) -> dict[str, Params]:
        params = {
            head: _drawing(module)(stream(seed, f"{name}/{head}"), hidden, token, mask)
            for head, module in self.heads.items()
        }
        if self.shared_head:
            further = [head for head in params if head != "head"]
            params |= {head: {"classify": params[head]["classify"]} for head in further}
        return params


def _drawing(module: Any) -> Callable[..., Params]:
    """A compiled function that draws a module's parameters for such inputs."""

    @jax.jit
    def drawn(key: Array, *inputs: Any, **more: Any) -> Params:
        return module.init(key, *inputs, **more).get("params", {})

    return drawn


def _outputs(module: Any, *inputs: Any, **more: Any) -> Any:
    """Zeros where the module has outputs: parameters depend on shapes, so that none is computed."""
    shapes = jax.eval_shape(lambda: module.init_with_output(*inputs, **more)[0])
    return jax.tree.map(lambda each: np.zeros(each.shape, each.dtype), shapes)


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
    exits = {
        name: predict(model, params, batch, outputs.hidden[i + 1], head=name, dropout=dropout)[0]
        for name, i in parts.exit_blocks(model.heads).items()
    }
    return dataclasses.replace(outputs, logits=logits, projection=projection, exits=exits)


def predict(
    model: Model,
    params: Params,
    batch: Batch,
    hidden: Float[Array, "B L D"],
    *,
    head: str = "head",
    dropout: jax.Array | None = None,
) -> tuple[Array | None, Projection | None]:
    """What a head makes of hidden states: logits, and of which projection they are.

    The projection is None for a head that does not predict tokens of a vocabulary.
    """
    if batch.target_positions is not None:
        hidden = jnp.take_along_axis(hidden, batch.target_positions[..., None], axis=1)
    module, token = model.heads[head], params["embed"]["token"]
    mask = batch.last_mask
    if head in model.mean_readers:  # a sequence of one, whichever token the head reads
        hidden, mask = mean_of_tokens(hidden, mask)[:, None], jnp.any(mask, 1, keepdims=True)
    own = {"params": {**params["head"], **params[head]} if model.shared_head else params[head]}
    # Each head drops something else; the first has the number after the blocks'.
    number = model.layers + 1 + list(model.heads).index(head)
    train = dict(train=dropout is not None, rngs=_rngs(dropout, number))
    if hasattr(module, "project"):
        projection = module.apply(own, hidden, token, method="project", **train)
        return projection.logits(), projection
    return module.apply(own, hidden, token, mask, **train), None


def mean_of_tokens(hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """The mean over the positions where the mask is True; zeros for a row of padding alone."""
    counted = mask[..., None]
    total = jnp.sum(jnp.where(counted, hidden, 0), 1, dtype=jnp.float32)
    return (total / jnp.maximum(jnp.sum(counted, 1), 1)).astype(hidden.dtype)


def states(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    keep: Bool[Array, " N"] | None = None,
    dropout: jax.Array | None = None,
) -> Outputs:
    """All of `forward` but the head: no logits."""
    encoded, block_inputs = None, {}
    tokens, mask = batch.tokens, batch.mask
    if model.encoder is not None:
        tokens, mask = batch.decoder_tokens, batch.decoder_mask
        encoded = encode(model, params, batch, keep=keep, dropout=dropout)
        keep = None if keep is None else keep[model.encoder.layers :]
        block_inputs = {"memory": encoded.hidden[-1], "memory_mask": batch.mask}
    outputs = _through(model, params, tokens, mask, batch.segments, keep, dropout, {}, block_inputs)
    return dataclasses.replace(outputs, encoder=encoded)


def encode(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    keep: Bool[Array, " N"] | None = None,
    dropout: jax.Array | None = None,
) -> Outputs:
    """The encoder's outputs for `batch.tokens`; arguments as for `forward`.

    An encoder may have a head of its own (T5's last norm): it returns the last hidden state.
    """
    key = None if dropout is None else jax.random.fold_in(dropout, 2**20)  # apart from blocks'
    keep = None if keep is None else keep[: model.encoder.layers]
    token, own = params["embed"]["token"], params["encoder"]
    outputs = _through(
        model.encoder, own, batch.tokens, batch.mask, None, keep, key, {"token": token}, {}
    )
    if model.encoder.head is None:
        return outputs
    table = own | {"embed": own["embed"] | {"token": token}}
    whole = dataclasses.replace(batch, target_positions=None, decoder_mask=None)
    last = predict(model.encoder, table, whole, outputs.hidden[-1], dropout=key)[0]
    return dataclasses.replace(outputs, hidden=(*outputs.hidden[:-1], last))


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
    tables: dict[str, Any],
    block_inputs: dict[str, Any],
) -> Outputs:
    """Embedding and blocks; no logits yet."""
    train = dropout is not None
    hidden, from_embed = model.embed.apply(
        {"params": params["embed"]},
        tokens,
        mask,
        segments,
        train=train,
        rngs=_rngs(dropout, 0),
        **tables,
    )
    block_inputs = block_inputs | from_embed

    def run(module: Any, block: Params, hidden: Array, i: Any) -> tuple[Array, Any]:
        return module.apply(
            {"params": block}, hidden, mask, train=train, rngs=_rngs(dropout, i + 1), **block_inputs
        )

    def one(module: Any, hidden: Array, block: Params, i: Any, keep: Any) -> tuple[Array, Any]:
        if keep is None:
            hidden, inside = run(module, block, hidden, i)
            return hidden, (hidden, inside)
        hidden = jax.lax.cond(
            keep, lambda block, x: run(module, block, x, i)[0], lambda _, x: x, block, hidden
        )
        return hidden, (hidden, BlockInternals())

    first, count = hidden, model.layers
    if model.scan:
        blocks = params["blocks"]
        stacked = None if model.shared else stacked_blocks(blocks)

        def body(hidden: Array, turn: tuple[Any, Any, Any]) -> tuple[Array, Any]:
            block, i, keep = turn
            return one(model.blocks[0], hidden, blocks[0] if model.shared else block, i, keep)

        hidden, stacks = jax.lax.scan(body, hidden, (stacked, jnp.arange(count), keep))
        after = [jax.tree.map(lambda x, i=i: x[i], stacks) for i in range(count)]
        # The last state is the scan's carry: taken out of the stack, it would send its gradient
        # through an array of all states.
        after[-1] = (hidden, after[-1][1])
    else:
        after = []
        blocks = listed_blocks(params["blocks"])
        if len(blocks) != (1 if model.shared else count):
            raise ValueError(f"the parameters have {len(blocks)} blocks, and the model {count}.")
        for i, module in enumerate(model.blocks):
            block = blocks[0 if model.shared else i]
            hidden, seen = one(module, hidden, block, i, None if keep is None else keep[i])
            after.append(seen)
    states, insides = zip(*after, strict=True)

    def of_all(name: str) -> tuple[Any, ...]:
        values = tuple(getattr(inside, name) for inside in insides)
        return values if values[0] is not None else ()

    names = ("attention", "cross", "qkv", "context", "ffn_activations")
    return Outputs(logits=None, hidden=(first, *states), **{name: of_all(name) for name in names})
