"""The whole-model ONNX file against exports of transformers' model with the same weights.

    pip install -c constraints.txt -e '.[export]' onnxscript
    python benchmarks/whole_file.py                                     # BERT-base, random weights
    python benchmarks/whole_file.py --model FOLDER --file rows.tsv      # and the score of each

Peers: transformers.exporters (the newest opset, without and with its fusions for onnxruntime),
torch.onnx.export of the same model, and onnxruntime's `quantize_dynamic` of each. All run in
onnxruntime with its default optimisations, in turns in one process; threads spin within a run and
stop at its end, as otherwise they would take the next run's cores. float32 answers are equal to
1e-4 before anything is timed. FOLDER is a HuggingFace folder of a BERT classifier; the lines of
rows.tsv are a text, a tab and the number of its class.
"""

import argparse
import contextlib
import io
import json
import logging
import pathlib
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from device import config, feeds_of, interleaved, random_part, ratio, session

SHAPES = ((1, 32), (32, 128))  # texts, tokens
OPSET = 17  # of torch.onnx.export; transformers.exporters has a default of its own
Session = Callable[[dict[str, np.ndarray]], np.ndarray]


def random_model() -> tuple[Any, Any]:
    """BERT-base's shape, our config and parameters."""
    from jaxkd.models import families
    from jaxkd.models.parts import join

    chosen = config()
    model = families.build(chosen)
    parts = {name: random_part(part) for name, part in model.parts(model.shapes).items()}
    return chosen, join(parts)


def exports(root: pathlib.Path, folder: pathlib.Path | None) -> tuple[dict, pathlib.Path]:
    """Files by name, and the folder with transformers' model."""
    import torch
    import transformers
    from transformers.exporters import OnnxConfig, OnnxExporter

    from jaxkd.export.emit.kinds import weights_of
    from jaxkd.export.onnx_model import export_onnx
    from jaxkd.hub.folder import load, save

    if folder is None:
        chosen, params = random_model()
        folder = root / "huggingface"
        save(folder, chosen, params)
    else:
        chosen, params = load(folder, head="sequence_classification")
    files = {}
    for kind in ("float32", "int8"):
        (files[f"jaxkd {kind}"],) = export_onnx(chosen, params, root / kind, weights_of(kind))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in
              ("input_ids", "attention_mask", "token_type_ids")}  # fmt: skip
    for name, fusions in (("transformers", None), ("transformers, fused", "cpu")):
        settings = OnnxConfig(dynamic=True, ort_fusions=fusions)
        made = OnnxExporter().export(model, dict(inputs), settings)
        made.save_pretrained(root / name)
        (files[f"{name} float32"],) = (root / name).rglob("*.onnx")
    axes = {name: {0: "batch", 1: "length"} for name in inputs}
    (root / "torch").mkdir()
    files["torch float32"] = root / "torch" / "model.onnx"
    model.config.return_dict = False
    torch.onnx.export(
        model, tuple(inputs.values()), files["torch float32"], input_names=list(inputs),
        output_names=["logits"], dynamic_axes=axes, opset_version=OPSET, dynamo=False,
    )  # fmt: skip
    for name in ("transformers", "transformers, fused", "torch"):
        files[f"{name} int8"] = quantised(files[f"{name} float32"])
    return files, folder


def quantised(file: pathlib.Path) -> pathlib.Path:
    """By onnxruntime's quantize_dynamic with its defaults, the weights' bits as ours."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    from jaxkd.export.processor import int8_bits

    made, loaded = file.with_name("int8.onnx"), onnx.load(file)
    # Shapes of what it transposes in place would be stale.
    weights = {each.name for each in loaded.graph.initializer}
    kept = [info for info in loaded.graph.value_info if info.name not in weights]
    del loaded.graph.value_info[:]
    loaded.graph.value_info.extend(kept)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the shapes it does not know
        quantize_dynamic(loaded, made, reduce_range=int8_bits() == 7)
    return made


def scores(sessions: dict[str, Session], folder: pathlib.Path, file: pathlib.Path) -> None:
    """Accuracy of each on labelled lines, a text at a time."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [line.rsplit("\t", 1) for line in file.read_text().splitlines() if line.strip()]
    print(f"\n| {len(rows)} rows | accuracy [%] |\n|---|---|")
    encoded = [tokenizer(text, truncation=True, return_tensors="np") for text, _ in rows]
    for name, run in sessions.items():
        right = [int(run(dict(each))[0].argmax()) == int(label)
                 for each, (_, label) in zip(encoded, rows, strict=True)]  # fmt: skip
        print(f"| {name} | {100 * np.mean(right):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=None)
    parser.add_argument("--file", type=pathlib.Path, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if args.file is not None and args.model is None:
        parser.error("--file needs --model: random weights have no score.")
    from jaxkd.device.bench import versions

    logging.disable(logging.WARNING)
    print(json.dumps(versions()))
    with tempfile.TemporaryDirectory(prefix="jaxkd-whole-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files, folder = exports(pathlib.Path(name), args.model)
        sessions = {name: session(file, args.threads) for name, file in files.items()}
        for rows, length in SHAPES:
            ids = np.random.default_rng(0).integers(1000, 2000, (rows, length))
            feeds = feeds_of(ids)
            answers = {name: run(feeds) for name, run in sessions.items()}
            reference = answers["jaxkd float32"]
            print(f"\n{rows} x {length} tokens\n")
            print("| file | median ms | of jaxkd's | error of the logits |\n|---|---|---|---|")
            runs = {name: lambda run=run, feeds=feeds: run(feeds) for name, run in sessions.items()}
            measured = interleaved(runs, args.rounds * (4 if rows == 1 else 1))
            for name, each in measured.items():
                kind = name.split()[-1]
                error = np.linalg.norm(answers[name] - reference) / np.linalg.norm(reference)
                if kind == "float32":
                    assert np.abs(answers[name] - reference).max() < 1e-4, name
                compared = ratio(each, measured[f"jaxkd {kind}"])
                print(f"| {name} | {np.median(each):.1f} | {compared} | {error:.4f} |", flush=True)
        if args.file is not None:
            scores(sessions, folder, args.file)


if __name__ == "__main__":
    main()
