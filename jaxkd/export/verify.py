"""Whether an exported model computes what ours does: the same logits, at several shapes."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.core.random import numpy_stream
from jaxkd.export.onnx_model import extra
from jaxkd.models import bert, families, seq2seq
from jaxkd.models.families import Config
from jaxkd.models.model import Params, forward

# tokens, mask (int64 [B, L]) -> logits [B, L, V] or [B, C], or a bare model's last hidden states
Logits = Callable[[np.ndarray, np.ndarray], np.ndarray]


LONGEST = 512  # tokens
LARGEST = 2**27  # logits


class ExportMismatch(RuntimeError):
    """An exported model does not compute what ours does."""


def verify_onnx(
    file: pathlib.Path, config: Config, params: Params, *, tolerance: float = 1e-4, seed: int = 0
) -> dict[str, Any]:
    """Run an ONNX file in onnxruntime on the CPU and compare its logits with ours.

    Ours is the float32 model whatever `config.compute` says, its products in full precision on
    accelerators too. Compared are two batch sizes by two lengths (the longest the model takes is
    one, up to LONGEST and what fits into memory), rows of different lengths, and only where the
    mask is True; `tolerance` is absolute.

    Raises:
      ExportMismatch: says at which shape, row, position and token they differ, and by how much.
      ModuleNotFoundError: without the extra `export`.
    """
    onnx, onnxruntime = extra("onnx"), extra("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about the machine
    session = onnxruntime.InferenceSession(
        file.read_bytes(), options, providers=["CPUExecutionProvider"]
    )

    def run(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"tokens": tokens, "mask": mask})[0]

    compared = _compare(run, config, params, tolerance, seed, origin=f"{file} in onnxruntime")
    header = onnx.load(file)
    opset = {entry.domain: entry.version for entry in header.opset_import}[""]
    versions = {"onnxruntime": onnxruntime.__version__, "opset": opset, "ir": header.ir_version}
    return compared | versions


def verify_folder(
    folder: pathlib.Path, config: Config, params: Params, *, tolerance: float = 1e-4, seed: int = 0
) -> dict[str, Any]:
    """Open a HuggingFace folder as a user would, with transformers and torch, and compare.

    What is compared, and what is raised, is as in `verify_onnx`; FileNotFoundError if there is no
    such folder (transformers would look for it on the hub).
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; jaxkd.hub.folder.save writes one.")
    torch, transformers = extra("torch"), extra("transformers")
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would be drawn over the run's own
    try:
        settings = transformers.AutoConfig.from_pretrained(folder)
        model = getattr(transformers, settings.architectures[0]).from_pretrained(folder).eval()
    finally:
        if shown:
            logging.enable_progress_bar()

    def run(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
            if isinstance(config, seq2seq.Config):
                inputs["decoder_input_ids"] = torch.tensor(_written(tokens))
            told = model(**inputs)
        found = told.logits if hasattr(told, "logits") else told.last_hidden_state
        return found.float().numpy()

    compared = _compare(run, config, params, tolerance, seed, origin=f"{folder} in transformers")
    return compared | {"transformers": transformers.__version__, "torch": torch.__version__}


def _compare(
    run: Logits, config: Config, params: Params, tolerance: float, seed: int, *, origin: str
) -> dict[str, Any]:
    config = dataclasses.replace(config, compute="float32")
    description = json.dumps(families.describe(config))
    worst, shapes = 0.0, []
    fits = LARGEST // (3 * config.vocabulary)
    longest = max(1, min(config.positions_for_tokens, LONGEST, fits))
    # transformers finds the last token by the padding id; without one it takes single whole rows.
    whole_only = config.pad < 0 and config.head == "sequence_classification"
    for length in sorted({(longest + 1) // 2, longest}):
        ids = np.delete(np.arange(config.vocabulary), [config.pad] if config.pad >= 0 else [])
        tokens = numpy_stream(seed, "verify", length).choice(ids, size=(3, length))
        used = np.array([[length], [length - length // 3], [length - length // 2]])
        mask = np.arange(length) < used
        tokens = np.where(mask, tokens, max(config.pad, 0))
        batch = Batch(tokens=tokens.astype(np.int32), mask=mask)
        compared = mask
        if isinstance(config, seq2seq.Config):
            written = _written(tokens)
            compared = np.ones(written.shape, bool)
            batch = dataclasses.replace(
                batch, decoder_tokens=written.astype(np.int32), decoder_mask=compared
            )
        with jax.default_matmul_precision("highest"):  # accelerators round to 10 bits and fewer
            wanted = np.asarray(_ours(description, params, batch))
        # all, and a ragged one alone
        for rows in (slice(0, 1),) if whole_only else (slice(0, 3), slice(1, 2)):
            shape = tokens[rows].shape
            where = f"{origin}, batch {shape[0]}, length {length}"
            try:
                found = run(tokens[rows], mask[rows].astype(np.int64))
            except Exception as error:  # onnxruntime's and torch's kinds: it does not run there
                raise ExportMismatch(f"{where}: does not run: {error}") from error
            worst = max(worst, _difference(found, wanted[rows], compared[rows], tolerance, where))
            shapes.append(list(shape))
    return {"max_abs_difference": worst, "shapes": shapes}


def _written(tokens: np.ndarray) -> np.ndarray:
    """What an encoder-decoder has said so far, when it is compared: any tokens, and a few."""
    return tokens[:, : (tokens.shape[1] + 1) // 2]


@functools.partial(jax.jit, static_argnums=0)
def _ours(description: str, params: Params, batch: Batch) -> jax.Array:
    """Our logits; compiled once for all verifications of one config (which is not hashable)."""
    config = families.from_description(json.loads(description))
    outputs = forward(families.build(config), params, batch)
    # A bare encoder's "logits" are its pooler's; what everyone reads are its last states.
    bare = config.head == "bare" and isinstance(config, bert.Config)
    return outputs.hidden[-1] if bare else outputs.logits


def _difference(
    found: np.ndarray, wanted: np.ndarray, mask: np.ndarray, tolerance: float, where: str
) -> float:
    """The largest difference where the mask is True; raises ExportMismatch above the tolerance."""
    if found.shape != wanted.shape:
        raise ExportMismatch(f"{where}: logits are {found.shape}, ours are {wanted.shape}.")
    with np.errstate(invalid="ignore"):  # inf - inf is nan, which the next lines are about
        counted = mask[..., None] if found.ndim == 3 else True
        difference = np.where(counted, np.abs(found - wanted), 0.0)
    difference[np.isnan(found) | np.isnan(wanted)] = np.nan  # also in padding
    at = np.unravel_index(np.argmax(difference), difference.shape)  # the first nan, if any
    if not difference[at] <= tolerance:
        axes = ("row", "position", "token") if found.ndim == 3 else ("row", "class")
        place = ", ".join(f"{axis} {int(i)}" for axis, i in zip(axes, at, strict=True))
        raise ExportMismatch(
            f"{where}: the logit of {place} is {found[at]}, "
            f"ours is {wanted[at]}; they differ by {difference[at]}, allowed is {tolerance}."
        )
    return float(difference[at])
