"""What our model makes of a few rows, part by part, for a bundle to check itself with."""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.models.families import Config
from jaxkd.models.heads import PooledHead
from jaxkd.models.model import Model, Params, predict
from jaxkd.models.parts import ENCODER, exit_blocks

PartOf = Callable[[str], Params]  # parameters of a part by its name; {} where it has none
ROWS, TOKENS = 3, 9  # of the reference


def example(config: Config, model: Model, seed: int = 0) -> Batch:
    """Rows of random tokens and different lengths; of an encoder-decoder with targets."""
    draw = np.random.default_rng(seed)
    length = min(TOKENS, config.max_length)
    lengths = np.array([length, 1 + length // 2, 1])[:, None]
    mask = np.arange(length) < lengths

    def ids(vocabulary: int) -> np.ndarray:
        return draw.integers(0, vocabulary, mask.shape).astype(np.int32)

    segments = None
    if getattr(config, "segments", 0) > 1:
        segments = (np.arange(length) >= lengths // 2).astype(np.int32) * mask
    if model.encoder is None:
        tokens = ids(config.vocabulary) * mask
        return _on_device(Batch(tokens=tokens, mask=mask, segments=segments))
    source = getattr(config, "source_vocabulary", 0) or config.vocabulary
    return _on_device(Batch(
        tokens=ids(source) * mask, mask=mask, decoder_tokens=ids(config.vocabulary),
        decoder_mask=np.ones_like(mask),
    ))  # fmt: skip


def _on_device(batch: Batch) -> Batch:
    return jax.tree.map(jnp.asarray, batch)


def logits_by_part(model: Model, part_of: PartOf, batch: Batch) -> dict[str, np.ndarray]:
    """Each head's logits of all positions, of a bare model its last states.

    One part of the parameters at a time is in memory.
    """
    on_host = part_of

    def part_of(name: str) -> Params:
        return jax.tree.map(jnp.asarray, on_host(name))

    embed, more = part_of("embed"), {}
    tokens, mask = batch.tokens, batch.mask
    if model.encoder is not None:
        states = _encoded(model, part_of, embed["token"], batch)
        more = {"memory": states, "memory_mask": batch.mask}
        tokens, mask = batch.decoder_tokens, batch.decoder_mask
    states = _blocks(model, part_of, "", embed, tokens, mask, batch.segments, more)
    exits = {block: name for name, block in exit_blocks(model.heads).items()}
    head, logits = part_of("head"), {}
    for number, hidden in enumerate(states):
        readers = [exits[number]] if number in exits else []
        for name in readers + ["head"] * (number == model.layers - 1):
            own = {name: part_of(name), "head": head, "embed": embed}
            made = hidden  # what a bare model gives, whose pooler nothing reads
            if not isinstance(model.heads[name], PooledHead):
                made = predict(model, own, batch, hidden, head=name)[0]
            logits[name] = np.asarray(made, np.float32)
    return logits


def _encoded(model: Model, part_of: PartOf, tokens: Any, batch: Batch) -> Any:
    """An encoder's last hidden states."""
    inner, prefix = model.encoder, f"{ENCODER}_"
    own = part_of(f"{prefix}embed")
    states = _blocks(inner, part_of, prefix, own, batch.tokens, batch.mask, None, {}, token=tokens)
    (hidden,) = collections.deque(states, maxlen=1)
    if inner.head is None:
        return hidden
    params = {"embed": {**own, "token": tokens}, "head": part_of(f"{prefix}head")}
    whole = dataclasses.replace(batch, target_positions=None, decoder_mask=None)
    return predict(inner, params, whole, hidden)[0]


def _blocks(
    model: Model, part_of: PartOf, prefix: str, embed: Params, tokens: Any, mask: Any,
    segments: Any, more: dict[str, Any], **tables: Any,
) -> Iterator[Any]:  # fmt: skip
    """The hidden states after each block."""
    hidden, arguments = model.embed.apply({"params": embed}, tokens, mask, segments, **tables)
    arguments = more | arguments

    def run(kind: int, block: Params, hidden: Any) -> Any:
        return model.blocks[kind].apply({"params": block}, hidden, mask, **arguments)[0]

    run = jax.jit(run, static_argnums=0)

    for i, module in enumerate(model.blocks):
        part = part_of(f"{prefix}block_{0 if model.shared else i:02d}")
        hidden = run(model.blocks.index(module), part, hidden)
        yield hidden
