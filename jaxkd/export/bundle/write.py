"""A bundle: a folder that runs a model layer by layer on a small device, with its own runner.

    python -m jaxkd.export.bundle.write RUN/STAGE/best/00000500 -o FOLDER --tokenizer RUN/STAGE/tokenizer

writes one straight from a layerwise checkpoint, a layer in memory at a time. In the folder are
`run_device.py` and its package, `manifest.json`, graphs without weights, a file of weights for each
part, the tokenizer, and a reference by which the bundle checks itself.
"""  # noqa: E501

import argparse
import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxkd import device
from jaxkd.checkpoint import layerwise
from jaxkd.core.tree import named
from jaxkd.device.bundle import Bundle
from jaxkd.export.bundle import parts, tables
from jaxkd.export.bundle.files import Files, annotate
from jaxkd.export.bundle.reference import PartOf, example, logits_by_part
from jaxkd.export.emit.kinds import FLOAT32, KINDS, Int8, Weights, weights_of
from jaxkd.export.emit.vocabulary import Vocabulary
from jaxkd.export.emit.whole import cache_names, check_export, has_cache, output_of
from jaxkd.hub.generation import eos_ids, suppressed_ids
from jaxkd.models import families, seq2seq
from jaxkd.models.families import Config
from jaxkd.models.model import Model, Params
from jaxkd.models.parts import exit_blocks

FORMAT, VERSION = "jaxkd bundle", 1
RUNNER = pathlib.Path(device.__file__).parent
TOLERANCE = 1e-4  # of a float32 bundle's logits
ALLOWED = 3.0  # times the difference seen here, of a kind of weights that cannot be equal


def write_bundle(
    folder: pathlib.Path,
    config: Config,
    part_of: PartOf,
    weights: Weights = FLOAT32,
    *,
    save_tokenizer: Callable[[pathlib.Path], Any] | None = None,
    generation: Mapping[str, Any] | None = None,
    policies: Mapping[str, Any] | None = None,
) -> None:
    """Write a bundle into a folder that does not exist or is empty.

    Args:
      part_of: a part's parameters by its name in a checkpoint; {} for one without parameters. Each
        is read alone, and dropped before the next.
      save_tokenizer: writes the tokenizer into a folder.
      generation: how a decoder writes: `eos_ids`, `pad`, `suppress_tokens`, and beam settings.
      policies: of a model with exits, what its rule of optimal stopping was made from.
    Raises:
      FileExistsError: if something is in the folder.
      ValueError: for a family or head without an ONNX form, or a part of another shape.
    """
    check_export(config)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; a bundle is written into a new folder.")
    # The reference is of float32, whatever the model computes in.
    config = dataclasses.replace(config, compute="float32")
    model = families.build(config)
    part_of = _checked(model, part_of)
    files = Files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest_parts = _ManifestParts(files, config, model, part_of, weights)
    content = (
        manifest_parts.encoder_decoder()
        if model.encoder is not None
        else manifest_parts.one_stack()
    )
    batch = example(config, model)
    logits = logits_by_part(model, part_of, batch)
    arrays = {f"logits.{name}": array for name, array in logits.items()}
    for name in ("tokens", "mask", "segments", "decoder_tokens"):
        if getattr(batch, name) is not None:
            arrays[name] = np.asarray(getattr(batch, name), np.int64)
    np.savez(folder / "reference.npz", **arrays)
    tokenizer = None
    if save_tokenizer is not None:
        save_tokenizer(folder / "tokenizer")
        file = folder / "tokenizer" / "tokenizer.json"
        tokenizer = "tokenizer/tokenizer.json" if file.is_file() else None
    copy_runner(folder)
    name, _ = output_of(config)
    files.finish({
        "format": FORMAT,
        "version": VERSION,
        "weights": weights.name,
        "bits": weights.bits if isinstance(weights, Int8) else None,
        "model": {
            "family": config.family, "head": config.head, "output": name,
            "layers": config.layers, "width": config.width, "labels": list(config.labels),
            "max_length": config.positions_for_tokens, "vocabulary": config.vocabulary,
            "problem_type": config.problem_type, "segments": getattr(config, "segments", 0),
            "cache": cache_shapes(config),
            "heads": config.heads, "inner": getattr(config, "feed_forward", 0),
            "largest_cast": manifest_parts.largest_cast,
        },
        "tokenizer": tokenizer,
        "reference": {"file": "reference.npz", "tolerance": TOLERANCE},
        "generation": dict(generation or ending_of(config)),
        "policies": dict(policies) if policies else None,
        **content,
    })  # fmt: skip
    difference = Bundle(folder).reference_difference()
    if not np.isfinite(difference):
        raise ValueError(f"{folder}: the bundle's logits are not finite, or the model's are not.")
    reference = {"file": "reference.npz", "difference": difference, "tolerance": TOLERANCE}
    if weights.name != "float32":
        reference["tolerance"] = max(TOLERANCE, ALLOWED * difference)
    annotate(folder, "reference", reference)


def ending_of(config: Config) -> dict[str, Any]:
    """Tokens that end what a model writes and those it never writes, as its folder says."""
    if not has_cache(config):
        return {}
    end = config.end if isinstance(config, seq2seq.Config) else None
    tokens = {
        "eos_ids": eos_ids(config.generation, end),
        "suppress_tokens": suppressed_ids(config.generation),
    }
    return {name: [int(number) for number in ids] for name, ids in tokens.items()}


def cache_shapes(config: Config) -> dict[str, list[int]]:
    """What a block remembers of a row before the first token."""
    groups = getattr(config, "kv_heads", 0) or config.heads
    recurrent = config.family == "lstm"
    shape = [config.width] if recurrent else [groups, 0, config.key_width]
    return {name: shape for name in cache_names(config)}


def copy_runner(folder: pathlib.Path) -> None:
    """The runner, as it is: Python 3.6, numpy and onnxruntime are all it needs."""
    target = folder / "jaxkd" / "device"
    target.mkdir(parents=True)
    (folder / "jaxkd" / "__init__.py").write_text("")
    for file in sorted(RUNNER.glob("*.py")):
        shutil.copyfile(file, target / file.name)
    shutil.copyfile(RUNNER / "run_device.py", folder / "run_device.py")
    (target / "run_device.py").unlink()


def _checked(model: Model, part_of: PartOf) -> PartOf:
    """The same, refusing a part of another shape than the model's; float32 numpy arrays."""
    shapes = model.parts(model.shapes)

    def checked(name: str) -> Params:
        part = part_of(name)
        needed = {key: leaf.shape for key, leaf in named(shapes.get(name, {})).items()}
        seen = {key: np.shape(leaf) for key, leaf in named(part).items()}
        if needed != seen:
            wrong = sorted(
                key for key in needed.keys() | seen.keys() if needed.get(key) != seen.get(key)
            )
            raise ValueError(
                f"the part {name} differs from the model's in {', '.join(wrong[:5])}: "
                f"{seen.get(wrong[0], 'nothing')}, needed is {needed.get(wrong[0], 'nothing')}."
            )
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), part)

    return checked


class _ManifestParts:
    """Writes the parts of one model; what it returns is the manifest's."""

    def __init__(
        self, files: Files, config: Config, model: Model, part_of: PartOf, weights: Weights
    ):
        self.files, self.config, self.model = files, config, model
        self.part_of, self.weights = part_of, weights
        self.largest_cast = 0  # bytes of the largest float16 matrix, as float32

    def one_stack(self) -> dict[str, Any]:
        """An encoder, or a decoder."""
        embed = self.part_of("embed")
        start = parts.begin(self.config, self.model, embed, self.weights)
        content: dict[str, Any] = {
            "kind": "decoder" if parts.is_decoder(self.model) else "encoder",
            "blocks": self._blocks(self.model, start, ""),
            "begin": self.files.graph("begin", start.graph),
        }
        return content | self._heads(embed)

    def encoder_decoder(self) -> dict[str, Any]:
        """An encoder, the keys and values that decoder blocks make of its states, a decoder."""
        config, model = self.config, self.model
        embed, inner = self.part_of("embed"), self.part_of("encoder_embed")
        own = bool(config.source_vocabulary)
        source = parts.begin(
            config, model.encoder, inner, self.weights, side="encoder",
            tokens=inner["token"] if own else embed["token"],
        )  # fmt: skip
        encoder: dict[str, Any] = {
            "blocks": self._blocks(model.encoder, source, "encoder"),
            "begin": self.files.graph("encoder_begin", source.graph),
        }
        if model.encoder.head is not None:
            norm = parts.final_norm(config, self.part_of("encoder_head"), self.weights)
            encoder["norm"] = self.files.graph("encoder_norm", norm)
        if own:
            table = tables.write_rows(self.files, "encoder_tokens", inner["token"], self.weights)
            encoder["tokens"] = table
        target = parts.begin(config, model, embed, self.weights, side="decoder")
        content = {
            "kind": "encoder-decoder",
            "encoder": encoder,
            "blocks": self._blocks(model, target, "decoder"),
            "begin": self.files.graph("begin", target.graph),
            "start": config.start,
        }
        return content | self._heads(embed)

    def _blocks(self, model: Model, start: parts.Begin, side: str) -> list[dict[str, Any]]:
        """Each block's graph and weights; a shared block's are the first one's."""
        prefix, described = "encoder_" if side == "encoder" else "", []
        for i, module in enumerate(model.blocks):
            names = start.inputs_of(module.config)
            if model.shared and i:
                described.append(described[0])
                continue
            name = f"{prefix}block_{i:02d}"
            params = self.part_of(name)
            graph = parts.block(
                self.config, model, module, params, self.weights, names, side=side
            )  # fmt: skip
            arrays, block = dict(graph.weights), {"inputs": dict(names)}
            block["graph"] = self.files.graph(name, graph)
            if side == "decoder":
                memory = parts.memory_of(self.config, module, params, self.weights)
                arrays |= memory.weights
                block["memory"] = self.files.graph(f"memory_{i:02d}", memory)
            casts = [2 * each.nbytes for each in arrays.values() if each.dtype == np.float16]
            self.largest_cast = max([self.largest_cast, *casts])
            described.append(block | {"weights": self.files.tensors(name, arrays)})
        return described

    def _heads(self, embed: Params) -> dict[str, Any]:
        """The head and exits, and tables that are as large as the vocabulary."""
        config, head = self.config, self.part_of("head")
        if type(self.model.head) not in parts.STATES:
            content: dict[str, Any] = {"heads": self._classifiers(head)}
            table = tables.write_rows(self.files, "tokens", embed["token"], self.weights)
            return content | {"tokens": table}
        graph = parts.head(config, self.model.head, head, self.weights, reads="token")
        content = {"heads": {"head": {"graph": self.files.graph("head", graph)}}}
        of = Vocabulary.of(head, embed["token"])
        tied = of.matrix is embed["token"]
        matrix = tables.write_vocabulary(
            self.files, "tokens" if tied else "vocabulary", of.matrix, self.weights
        )
        product = tables.product(of.matrix.shape[1], self.weights)
        content["vocabulary"] = {
            "table": matrix,
            "product": self.files.graph("product", product),
            "bias": None if of.bias is None else self.files.tensors("bias", {"bias": of.bias}),
        }
        if not tied:
            matrix = tables.write_rows(self.files, "tokens", embed["token"], self.weights)
        return content | {"tokens": matrix}

    def _classifiers(self, head: Params) -> dict[str, Any]:
        config, blocks = self.config, exit_blocks(self.model.heads)
        made = {}
        for name, module in self.model.heads.items():
            params = self.part_of(name) if name != "head" else head
            own = {**head, **params} if self.model.shared_head else params
            reads = "mean" if name in self.model.mean_readers else "token"
            graph = parts.head(config, module, own, self.weights, reads=reads)
            made[name] = {
                "graph": self.files.graph(name, graph),
                "after": blocks.get(name, config.layers - 1),
            }
        return made


def parts_of(config: Config, params: Params) -> PartOf:
    """Parts of parameters that are in memory."""
    known = families.build(config).parts(params)
    return lambda name: known.get(name, {})


def parts_on_disk(checkpoint: pathlib.Path) -> tuple[Config, PartOf]:
    """The config of a layerwise checkpoint, and its parts, each read when it is needed."""
    if not (checkpoint / "model").is_dir():
        raise FileNotFoundError(
            f"{checkpoint} is no checkpoint of ours: it has no folder 'model'. A run has them in "
            "STAGE/best/STEP and STAGE/checkpoint/STEP."
        )
    config = families.from_description(layerwise.load_json(checkpoint, "model"))

    def part_of(name: str) -> Params:
        if not (checkpoint / name).is_dir():
            return {}
        return layerwise.load_part(checkpoint, name, on_host=True)

    return config, part_of


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m jaxkd.export.bundle.write", description=__doc__)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--weights", choices=list(KINDS), default="float32")
    parser.add_argument("--bits", type=int, choices=(7, 8), default=0, help="of int8")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="folder of the model's tokenizer")
    args = parser.parse_args(argv)
    save = None
    if args.tokenizer is not None:
        if not args.tokenizer.is_dir():
            parser.error(f"--tokenizer {args.tokenizer}: no such folder")
        save = lambda target: shutil.copytree(args.tokenizer, target)  # noqa: E731
    try:
        config, part_of = parts_on_disk(args.checkpoint)
        write_bundle(
            args.output, config, part_of, weights_of(args.weights, args.bits), save_tokenizer=save
        )
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        sys.exit(f"{error}")
    if has_cache(config) and not ending_of(config)["eos_ids"]:
        print("The checkpoint names no end token: texts end at --max-tokens.")
    print(f"{args.output}: {args.weights}, run {args.output / 'run_device.py'}")


if __name__ == "__main__":
    main()
