"""A HuggingFace folder's model applied to texts by our own code: classes, or what it writes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxkd.core.batch import Batch
from jaxkd.data.tokenizers.tokenizer import Tokenizer, folder_tokenizer
from jaxkd.decode.beam import Beam, Decoded, searcher
from jaxkd.decode.sample import greedy
from jaxkd.hub import folder as hub
from jaxkd.hub.generation import eos_ids, suppressed_ids
from jaxkd.models import families, seq2seq
from jaxkd.models.families import Config
from jaxkd.models.model import Params, forward

WRITES = hub.WRITES
CLASSIFIES = "sequence_classification"
BATCH = 32  # rows at a time
_SHORTEST = 8  # widths of batches are this or a larger power of two, each compiled once


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A model and its tokenizer."""

    config: Config
    params: Params
    tokenizer: Tokenizer

    def classify(
        self, texts: Sequence[str], second: Sequence[str] | None = None
    ) -> list[dict[str, float]]:
        """Scores by class name for each text or pair, as transformers' pipeline gives them.

        They are probabilities: of one class among all, or of each by itself for a multi-label
        classifier. A regression has one entry, the number itself. Longer texts are cut.

        Raises:
          ValueError: if the model is no classifier of sequences.
        """
        if self.config.head != CLASSIFIES:
            raise ValueError(
                f"a {self.config.family} with the head {self.config.head} does not classify texts; "
                f"that needs the head {CLASSIFIES}."
            )
        length = self.config.positions_for_tokens
        rows = self.tokenizer.encode_pairs(texts, second, max_length=length)
        model = families.build(self.config)
        arranged = model.arrange(self.params)
        logits = jax.jit(lambda params, batch: forward(model, params, batch).logits)
        answers: list[dict[str, float]] = []
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            scored = np.asarray(logits(arranged, self._batch(chosen)), np.float32)[: len(chosen)]
            for row in scores(self.config, scored):
                answers.append(dict(zip(self.config.labels, row.tolist(), strict=True)))
        return answers

    def write(self, texts: Sequence[str], *, beam: int = 1, max_tokens: int = 64) -> list[str]:
        """What the model writes for each source or prompt; a beam of one is greedy.

        End, forced and suppressed tokens are those of its folder's generation_config.json, and so
        is a beam's length penalty.

        Raises:
          ValueError: if the model writes no text, or has no room for max_tokens.
        """
        if self.config.head not in WRITES:
            raise ValueError(
                f"a {self.config.family} with the head {self.config.head} writes no text; that "
                f"needs one of the heads {', '.join(WRITES)}."
            )
        reads = isinstance(self.config, seq2seq.Config)
        room = self.config.positions_for_tokens - (0 if reads else max_tokens)
        if beam < 1 or max_tokens < 1 or room < 1:
            raise ValueError(
                f"beam={beam}, max_tokens={max_tokens}: both are at least 1, and max_tokens is "
                f"less than the model's {self.config.positions_for_tokens} positions."
            )
        rows = self.tokenizer.encode_pairs(texts, max_length=room)
        if not reads:  # a tokenizer that ends texts would have nothing left to continue
            eos = eos_ids(self.config.generation, self.tokenizer.sep)
            rows = [(ids[:-1], s[:-1]) if len(ids) > 1 and ids[-1] in eos else (ids, s)
                    for ids, s in rows]  # fmt: skip
        decode = decoder(self.config, max_tokens, beam=beam, end=self.tokenizer.sep)
        arranged, written = families.build(self.config).arrange(self.params), []
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            decoded = jax.device_get(decode(arranged, self._batch(chosen)))
            for tokens, length in zip(decoded.tokens[:, 0], decoded.lengths[:, 0], strict=True):
                written.append(self.tokenizer.decode(tokens[:length].tolist()))
            del written[start + len(chosen) :]
        return written

    def _batch(self, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> Batch:
        """Rows of ids and segments, padded on the right; short batches repeat their first row."""
        count = BATCH if len(rows) > 1 else 1  # two numbers of rows, so that few are compiled
        rows = [*rows, *[rows[0]] * (count - len(rows))]
        longest = max(len(ids) for ids, _ in rows)
        width = max(_SHORTEST, 1 << (longest - 1).bit_length())
        width = max(longest, min(width, self.config.positions_for_tokens))
        pad = self.config.pad if self.config.pad >= 0 else self.tokenizer.pad
        tokens = np.full((len(rows), width), pad, np.int32)
        segments, mask = np.zeros_like(tokens), np.zeros(tokens.shape, bool)
        for i, (ids, parts) in enumerate(rows):
            tokens[i, : len(ids)], segments[i, : len(ids)], mask[i, : len(ids)] = ids, parts, True
        if (largest := tokens[mask].max()) >= self.config.vocabulary:
            raise ValueError(
                f"the tokenizer ({self.tokenizer.origin}) gives the id {largest}, and the model "
                f"has {self.config.vocabulary} token embeddings. They do not belong together."
            )
        two = getattr(self.config, "segments", 0) > 1
        return Batch(tokens=tokens, mask=mask, segments=segments if two else None)


def open_text_model(name: str, warn: Callable[[str], Any] = lambda message: None) -> TextModel:
    """The model and tokenizer of a HuggingFace folder or hub id.

    Raises:
      FileNotFoundError, ValueError: as `hub.folder.load` and `folder_tokenizer` say.
    """
    config, params = hub.load(name, warn=warn)
    return TextModel(config, params, folder_tokenizer(hub.find(name)))


def scores(config: Config, logits: Float[np.ndarray, "B C"]) -> Float[np.ndarray, "B C"]:
    """What transformers' text-classification pipeline makes of a classifier's logits."""
    one = len(config.labels) == 1
    if config.problem_type == "regression" or (one and not config.problem_type):
        return logits
    if one or config.problem_type == "multi_label_classification":
        return np.asarray(jax.nn.sigmoid(jnp.asarray(logits)))
    return np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=-1))


def decoder(
    config: Config, max_tokens: int, *, beam: int = 1, end: int | None = None
) -> Callable[[Params, Batch], Decoded]:
    """Decoding of a model with what its folder says of generation; a beam of one is greedy.

    Args:
      max_tokens: tokens that are written at most, forced ones and the end token counted.
      end: the end token of a model whose folder names none.
    """
    model, generation = families.build(config), config.generation
    reads = isinstance(config, seq2seq.Config)
    eos = eos_ids(generation, config.end if reads else end)
    first, last = (generation.get(f"forced_{each}_token_id") for each in ("bos", "eos"))
    first = first if reads else None
    pad = config.pad if config.pad >= 0 else 0
    settings = dict(eos_ids=eos, pad=pad, suppress_tokens=suppressed_ids(generation))
    forced = (first is not None) + (last is not None)
    steps = max(1, max_tokens - forced)
    if beam == 1:
        write = greedy(model, config, steps, **settings)
    else:
        early = generation.get("early_stopping", False)
        searched = Beam(
            width=beam,
            max_tokens=steps,
            length_penalty=float(generation.get("length_penalty", 1.0)),
            early_stopping=str(early).lower(),
        )
        write = searcher(model, config, searched, **settings)

    def decode(params: Params, batch: Batch) -> Decoded:
        prompt = None
        if first is not None:
            prompt = jnp.tile(jnp.array([[config.start, first]], jnp.int32), (batch.rows, 1))
        decoded = write(params, batch, prompt=prompt)
        return _with_forced(decoded, first, last, eos)

    return decode


def _with_forced(decoded: Decoded, first: int | None, last: int | None, eos: Any) -> Decoded:
    """The forced tokens, which no model chose: one before all, one where no end token came."""
    tokens, lengths = np.asarray(decoded.tokens), np.asarray(decoded.lengths)
    if last is not None:
        tokens = np.pad(tokens, ((0, 0), (0, 0), (0, 1)))
        final = np.take_along_axis(tokens, np.maximum(lengths - 1, 0)[..., None], axis=2)[..., 0]
        unended = ~np.isin(final, eos)
        rows, beams = np.nonzero(unended)
        tokens[rows, beams, lengths[rows, beams]] = last
        lengths = lengths + unended
    if first is not None:
        tokens = np.pad(tokens, ((0, 0), (0, 0), (1, 0)), constant_values=first)
        lengths = lengths + 1
    return dataclasses.replace(decoded, tokens=tokens, lengths=lengths)
