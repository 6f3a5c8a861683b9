"""Whether an exported model does what ours does: the same logits, tokens and classes."""

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
from jaxkd.core.tree import named
from jaxkd.data.tokenizers.open_folder import VOCABULARIES
from jaxkd.data.tokenizers.tokenizer import folder_tokenizer
from jaxkd.export.emit.whole import input_names, output_of
from jaxkd.export.extra import extra
from jaxkd.export.onnx_files import OnnxFiles
from jaxkd.export.texts import CLASSIFIES, WRITES, TextModel, decoder
from jaxkd.hub import folder as hub
from jaxkd.models import bert, families, seq2seq
from jaxkd.models.families import Config
from jaxkd.models.model import Params, forward

# input_ids, attention_mask, token_type_ids (int64 [B, L]) -> logits [B, L, V] or [B, C], or a bare
# model's last hidden states
Logits = Callable[[dict[str, np.ndarray]], np.ndarray]


LONGEST = 512  # tokens
LARGEST = 2**27  # logits
WRITTEN = 3  # tokens of a generation that is compared
# Of generation_config.json, what a comparison of greedy tokens obeys.
OBEYED = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
)


class ExportMismatch(RuntimeError):
    """An exported model does not do what ours does."""


def verify_onnx(
    folder: pathlib.Path, config: Config, params: Params, *, tolerance: float = 1e-4, seed: int = 0
) -> dict[str, Any]:
    """Run a folder's ONNX files in onnxruntime on the CPU and compare their logits with ours.

    Ours is the float32 model whatever `config.compute` says, its products in full precision on
    accelerators too. Compared are two batch sizes by two lengths (the longest the model takes is
    one, up to LONGEST and what fits into memory), rows of different lengths, and only where the
    mask is True; `tolerance` is absolute. Tokens are random, segments too where there are two, and
    the padding id is among them inside a row, unless the model counts positions by it. A model
    with a cache is run in two parts, the second on the first one's cache.

    Raises:
      ExportMismatch: says at which shape, row, position and token they differ, and by how much.
      ModuleNotFoundError: without the extra `export`.
    """
    onnx, onnxruntime = extra("onnx"), extra("onnxruntime")
    files = OnnxFiles(folder, config)
    compared = _compare(
        files.logits, config, params, tolerance, seed, origin=f"{folder} in onnxruntime"
    )
    header = onnx.load(files.files[0])
    opset = {entry.domain: entry.version for entry in header.opset_import}[""]
    versions = {"onnxruntime": onnxruntime.__version__, "opset": opset, "ir": header.ir_version}
    return compared | versions


def verify_folder(
    folder: pathlib.Path, config: Config, params: Params, *, tolerance: float = 1e-4, seed: int = 0
) -> dict[str, Any]:
    """Open a HuggingFace folder as a user would, with transformers and torch, and compare.

    Logits are compared as in `verify_onnx`. A model that writes text must write our tokens,
    greedily, with the folder's generation_config.json: its end, forced and suppressed tokens are
    ours then. A classifier beside a tokenizer must give our scores for a text, by class name, in
    transformers' pipeline.

    Raises:
      ExportMismatch: as `verify_onnx`, or says which tokens or scores differ.
      FileNotFoundError: if there is no such folder (transformers would look for it on the hub).
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; jaxkd.hub.folder.save writes one.")
    torch, transformers = extra("torch"), extra("transformers")
    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would be drawn over the run's own
    try:
        settings = transformers.AutoConfig.from_pretrained(folder)
        model = getattr(transformers, settings.architectures[0]).from_pretrained(folder)
        model = model.eval().float()
    finally:
        if bars:
            logging.enable_progress_bar()

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            tensors = {name: torch.tensor(array) for name, array in inputs.items()}
            outputs = model(**tensors)
        logits = outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state
        return logits.float().numpy()

    origin = f"{folder} in transformers"
    compared = _compare(run, config, params, tolerance, seed, origin=origin)
    if config.head in WRITES:
        compared |= _compare_writing(model, config, params, seed, origin)
    has_tokenizer = any((folder / name).is_file() for name in VOCABULARIES)
    if config.head == CLASSIFIES and has_tokenizer:
        compared |= _compare_classes(folder, model, config, params, seed, origin)
    return compared | {"transformers": transformers.__version__, "torch": torch.__version__}


def verify_by_reading(folder: pathlib.Path, config: Config, params: Params) -> dict[str, Any]:
    """Read a HuggingFace folder back: the same architecture, and every number of the parameters.

    It shows that nothing was lost, not that transformers computes the same from it.

    Raises:
      ExportMismatch: says which parameter or setting differs.
    """
    family = hub.family_of(config)
    config, params = config.for_hub(params)
    stored, read = hub.load(folder, on_host=True)
    ours, theirs = named(params), named(read)
    different = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours
        or name not in theirs
        or not np.array_equal(np.asarray(ours[name], np.float32), theirs[name])
    )
    if different:
        raise ExportMismatch(f"{folder}: read back, these differ: {', '.join(different[:5])}.")
    written, again = family.to_hub(config), family.to_hub(stored)
    changed = sorted(k for k in written.keys() | again.keys() if written.get(k) != again.get(k))
    if changed:
        raise ExportMismatch(f"{folder}: read back, its config differs in {', '.join(changed)}.")
    return {"read_back": "equal", "not_compared": "transformers on torch"}


def _compare(
    run: Logits, config: Config, params: Params, tolerance: float, seed: int, *, origin: str
) -> dict[str, Any]:
    computed = config.compute
    config = dataclasses.replace(config, compute="float32")
    description = json.dumps(families.describe(config))
    worst, shapes = 0.0, []
    tokens_in_memory = LARGEST // (3 * config.vocabulary)
    longest = max(1, min(config.positions_for_tokens, LONGEST, tokens_in_memory))
    # transformers finds the last token by the padding id; without one it takes single whole rows.
    whole_only = config.pad < 0 and config.head == CLASSIFIES
    for length in sorted({(longest + 1) // 2, longest}):
        used = np.array([[length], [length - length // 3], [length - length // 2]])
        mask = np.arange(length) < used
        tokens = _tokens(config, mask, numpy_stream(seed, "verify", length))
        inputs = {"input_ids": tokens, "attention_mask": mask.astype(np.int64)}
        batch = Batch(tokens=tokens.astype(np.int32), mask=mask)
        if "token_type_ids" in input_names(config):
            segments = (np.arange(length) >= used // 2) & mask
            inputs["token_type_ids"] = segments.astype(np.int64)
            batch = dataclasses.replace(batch, segments=segments.astype(np.int32))
        compared = mask
        if config.head == "multi_task":  # [B, K, C], of all tasks
            compared = np.ones((len(mask), output_of(config)[1][1]), bool)
        if isinstance(config, seq2seq.Config):
            written = inputs["decoder_input_ids"] = _decoder_tokens(tokens)
            compared = np.ones(written.shape, bool)
            batch = dataclasses.replace(
                batch, decoder_tokens=written.astype(np.int32), decoder_mask=compared
            )
        with jax.default_matmul_precision("highest"):  # accelerators round to 10 bits and fewer
            expected = np.asarray(_ours(description, params, batch))
        # all, and a ragged one alone
        for rows in (slice(0, 1),) if whole_only else (slice(0, 3), slice(1, 2)):
            shape = tokens[rows].shape
            where = f"{origin}, batch {shape[0]}, length {length}"
            try:
                exported = run({name: array[rows] for name, array in inputs.items()})
            except Exception as error:  # onnxruntime's and torch's kinds: it does not run there
                raise ExportMismatch(f"{where}: does not run: {error}") from error
            difference = _difference(exported, expected[rows], compared[rows], tolerance, where)
            worst = max(worst, difference)
            shapes.append(list(shape))
    precision = {"precision": "float32", "compute": computed}
    return {"max_abs_difference": worst, "shapes": shapes} | precision


def _tokens(config: Config, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random tokens, int64, of which one inside each row is padding where that is legal."""
    # Both sides of an encoder-decoder with two vocabularies know these.
    known = min(config.vocabulary, getattr(config, "source_vocabulary", 0) or config.vocabulary)
    ids = np.delete(np.arange(known), [config.pad] if 0 <= config.pad < known else [])
    tokens = rng.choice(ids, size=mask.shape)
    # RoBERTa counts positions by the padding id, in transformers; ours counts by the mask.
    by_padding = bool(getattr(config, "position_offset", 0))
    if config.pad >= 0 and not by_padding and mask.shape[1] > 2:
        tokens[:, 1] = config.pad  # never the last: a decoder classifies by the last that is none
    return np.where(mask, tokens, max(config.pad, 0))


def _decoder_tokens(tokens: np.ndarray) -> np.ndarray:
    """What an encoder-decoder has written so far, when it is compared: any tokens, and a few."""
    return tokens[:, : (tokens.shape[1] + 1) // 2]


@functools.partial(jax.jit, static_argnums=0)
def _ours(description: str, params: Params, batch: Batch) -> jax.Array:
    """Our logits; compiled once for all verifications of one config (which is not hashable)."""
    config = families.from_description(json.loads(description))
    outputs = forward(families.build(config), params, batch)
    # A bare encoder's "logits" are its pooler's; what everyone reads are its last states.
    bare = config.head == "bare" and isinstance(config, bert.Config)
    return outputs.hidden[-1] if bare else outputs.logits


def _compare_writing(
    model: Any, config: Config, params: Params, seed: int, origin: str
) -> dict[str, Any]:
    """Greedy tokens of two random rows; raises ExportMismatch if any differs."""
    torch, transformers = extra("torch"), extra("transformers")
    room = config.positions_for_tokens - WRITTEN
    if room < 1:
        return {}
    config = dataclasses.replace(config, compute="float32")
    mask = np.ones((2, min(5, room)), bool)
    tokens = _tokens(config, mask, numpy_stream(seed, "verify writing", mask.shape[1]))
    own = {key: getattr(model.generation_config, key, None) for key in OBEYED}
    # A model that names no end token is saved with its tokenizer's.
    end = own["eos_token_id"][0] if isinstance(own["eos_token_id"], list) else own["eos_token_id"]
    words = [word for word in model.generation_config.bad_words_ids or [] if len(word) == 1]
    limits = dict(do_sample=False, num_beams=1, max_new_tokens=WRITTEN)
    if own["pad_token_id"] is None:
        own["pad_token_id"] = max(config.pad, 0)
    settings = transformers.GenerationConfig(**own, bad_words_ids=words or None, **limits)
    with torch.no_grad():
        generated = model.generate(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            generation_config=settings,
        ).numpy()
    skipped = 1 if isinstance(config, seq2seq.Config) else tokens.shape[1]
    with jax.default_matmul_precision("highest"):
        batch = Batch(tokens=tokens.astype(np.int32), mask=mask)
        arranged = families.build(config).arrange(params)
        decoded = jax.device_get(decoder(config, WRITTEN, end=end)(arranged, batch))
    for row, (tokens_of_row, length) in enumerate(
        zip(decoded.tokens, decoded.lengths, strict=True)
    ):
        expected = tokens_of_row[0, : length[0]].tolist()
        exported = generated[row, skipped : skipped + len(expected)].tolist()
        after = generated[row, skipped + len(expected) :]
        if exported != expected or (after != own["pad_token_id"]).any():
            raise ExportMismatch(
                f"{origin}: for {tokens[row].tolist()} it writes "
                f"{generated[row, skipped:].tolist()}, ours {expected} (greedily, {WRITTEN} tokens "
                "at most). Its generation_config.json or its weights are not the model's."
            )
    return {"written_tokens": int(decoded.lengths.sum())}


def _compare_classes(
    folder: pathlib.Path, model: Any, config: Config, params: Params, seed: int, origin: str
) -> dict[str, Any]:
    """A pipeline's scores of a text by class name; raises ExportMismatch if they differ."""
    transformers = extra("transformers")
    known = folder_tokenizer(folder)
    count = config.positions_for_tokens - known.fast.num_special_tokens_to_add()
    ids = sorted(set(known.fast.get_vocab().values()) - known.special_ids)
    if count < 1 or not ids:
        return {}
    chosen = numpy_stream(seed, "verify classes", 0).choice(ids, size=min(8, count))
    text = known.decode(chosen.tolist())
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=known.fast)
    answer = pipeline(text, top_k=None, truncation=True, max_length=config.positions_for_tokens)
    exported = {entry["label"]: entry["score"] for entry in answer}
    float32 = dataclasses.replace(config, compute="float32")
    with jax.default_matmul_precision("highest"):
        (expected,) = TextModel(float32, params, known).classify([text])
    wrong = exported.keys() != expected.keys() or any(
        not abs(exported[label] - expected[label]) <= 1e-3 * max(1.0, abs(expected[label]))
        for label in expected
    )
    if wrong:
        raise ExportMismatch(
            f"{origin}: its pipeline says {exported} of {text!r}, ours {expected}."
        )
    return {"classified": text}


def _difference(
    exported: np.ndarray, expected: np.ndarray, mask: np.ndarray, tolerance: float, where: str
) -> float:
    """The largest difference where the mask is True; raises ExportMismatch above the tolerance."""
    if exported.shape != expected.shape:
        raise ExportMismatch(f"{where}: logits are {exported.shape}, ours are {expected.shape}.")
    with np.errstate(invalid="ignore"):  # inf - inf is nan, which the next lines are about
        counted = mask[..., None] if exported.ndim == 3 else True
        difference = np.where(counted, np.abs(exported - expected), 0.0)
    difference[np.isnan(exported) | np.isnan(expected)] = np.nan  # also in padding
    at = np.unravel_index(np.argmax(difference), difference.shape)  # the first nan, if any
    if not difference[at] <= tolerance:
        axes = ("row", "position", "token") if exported.ndim == 3 else ("row", "class")
        position = ", ".join(f"{axis} {int(i)}" for axis, i in zip(axes, at, strict=True))
        raise ExportMismatch(
            f"{where}: the logit of {position} is {exported[at]}, "
            f"ours is {expected[at]}; they differ by {difference[at]}, allowed is {tolerance}."
        )
    return float(difference[at])
