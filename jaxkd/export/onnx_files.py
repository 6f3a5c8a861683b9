"""The ONNX files of one model, run in onnxruntime on the CPU as their users would."""

import pathlib

import numpy as np
from jaxtyping import Float, Int

from jaxkd.core.batch import Batch
from jaxkd.export.emit.whole import (
    DECODER,
    ENCODER,
    MODEL,
    cache_names,
    has_cache,
    input_names,
)
from jaxkd.export.extra import extra
from jaxkd.models import seq2seq
from jaxkd.models.families import Config

Inputs = dict[str, Int[np.ndarray, "B L"]]


class OnnxFiles:
    """Opens a folder that `export_onnx` wrote for a config."""

    def __init__(self, folder: pathlib.Path, config: Config) -> None:
        onnxruntime = extra("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are about the machine
        both = isinstance(config, seq2seq.Config)
        self.config = config
        self.files = [folder / name for name in ((ENCODER, DECODER) if both else (MODEL,))]
        self._sessions = [
            onnxruntime.InferenceSession(
                file.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            for file in self.files
        ]

    def logits(self, inputs: Inputs, *, parts: int = 2) -> Float[np.ndarray, "..."]:
        """Logits of all positions; of an encoder-decoder at `decoder_input_ids`.

        Args:
          parts: 1 or 2, in which a model with a cache gets its tokens.
        """
        if isinstance(self.config, seq2seq.Config):
            return self._of_encoder_decoder(inputs, parts)
        if has_cache(self.config):
            return self._of_decoder(inputs, parts)
        return self._sessions[0].run(None, inputs)[0]

    def outputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """All outputs by name, of a model in one file without a cache."""
        session = self._sessions[0]
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, self._inputs(batch)), strict=True))

    def predict(self, batch: Batch) -> Float[np.ndarray, "..."]:
        """Logits at the batch's target positions, of all positions where it names none."""
        inputs = self._inputs(batch)
        if batch.decoder_tokens is not None:
            inputs["decoder_input_ids"] = np.asarray(batch.decoder_tokens, np.int64)
        logits = self.logits(inputs, parts=1)
        if batch.target_positions is None:
            return logits
        return np.take_along_axis(logits, np.asarray(batch.target_positions)[..., None], axis=1)

    def _inputs(self, batch: Batch) -> Inputs:
        inputs = {
            "input_ids": np.asarray(batch.tokens, np.int64),
            "attention_mask": np.asarray(batch.mask, np.int64),
        }
        if "token_type_ids" in input_names(self.config):
            segments = np.zeros_like(batch.tokens) if batch.segments is None else batch.segments
            inputs["token_type_ids"] = np.asarray(segments, np.int64)
        return inputs

    def _of_decoder(self, inputs: Inputs, parts: int) -> np.ndarray:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        cache, results = self.empty_cache(len(ids)), []
        for start, end in _cut(ids.shape[1], parts):
            feed = {"input_ids": ids[:, start:end], "attention_mask": mask[:, :end]} | cache
            logits, cache = self.step(feed)
            results.append(logits)
        return np.concatenate(results, axis=1)

    def _of_encoder_decoder(self, inputs: Inputs, parts: int) -> np.ndarray:
        ids, mask = inputs["decoder_input_ids"], inputs["attention_mask"]
        encoded = self.encode({name: inputs[name] for name in ("input_ids", "attention_mask")})
        cache, results = self.empty_cache(len(ids)), []
        for start, end in _cut(ids.shape[1], parts):
            feed = {"input_ids": ids[:, start:end], "encoder_attention_mask": mask}
            logits, cache = self.step(feed | encoded | cache)
            results.append(logits)
        return np.concatenate(results, axis=1)

    def encode(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """What the decoder's file takes of the encoder's."""
        session = self._sessions[0]
        names = [value.name for value in session.get_outputs()][1:]  # the first are the states
        arrays = session.run(names, inputs)
        return {
            name.replace("present", "past_key_values"): array
            for name, array in zip(names, arrays, strict=True)
        }

    def step(self, feed: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits, and the cache after these tokens; of the decoder where there are two files."""
        session = self._sessions[-1]
        logits, *arrays = session.run(None, feed)
        names = [value.name for value in session.get_outputs()][1:]
        cache = {
            name.replace("present", "past_key_values"): array
            for name, array in zip(names, arrays, strict=True)
        }
        return logits, cache

    def empty_cache(self, rows: int) -> dict[str, np.ndarray]:
        """The cache before the first token."""
        c = self.config
        groups = getattr(c, "kv_heads", 0) or c.heads
        shape = (rows, c.width) if c.family == "lstm" else (rows, groups, 0, c.key_width)
        return {
            f"past_key_values.{i}.{name}": np.zeros(shape, np.float32)
            for i in range(c.layers)
            for name in cache_names(c)
        }


def _cut(length: int, parts: int) -> list[tuple[int, int]]:
    """The bounds of one part, or of two that both have tokens where there are two tokens."""
    half = (length + 1) // 2
    return [(0, half), (half, length)] if parts == 2 and half < length else [(0, length)]
