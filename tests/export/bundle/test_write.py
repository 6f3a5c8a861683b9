"""Bundles are written part by part, refuse what does not fit, and store a matrix once."""

import gc
import json
import weakref

import numpy as np
import onnx
import pytest

from jaxkd.checkpoint import layerwise
from jaxkd.device.bundle import Bundle
from jaxkd.export.bundle.format import Bundle as BundleFormat
from jaxkd.export.bundle.write import main, parts_of, parts_on_disk, write_bundle
from jaxkd.export.formats import Format
from jaxkd.export.onnx_model import export_onnx
from jaxkd.export.verify import ExportMismatch
from jaxkd.models import families
from tests.device import bundles
from tests.models.tiny import random_params


def test_a_checkpoint_becomes_a_bundle_a_layer_in_memory_at_a_time(tmp_path):
    config = bundles.config_of("bert", "sequence_classification", layers=6)
    params = random_params(config)
    layerwise.save(tmp_path / "c", params, families.describe(config))
    read, on_disk = parts_on_disk(tmp_path / "c")
    assert read == config
    alive: list[weakref.ref] = []
    most = 0

    def part_of(name):
        nonlocal most
        part = on_disk(name)
        if name.startswith("block"):
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            alive.append(weakref.ref(part["feed_forward"]["expand"]["kernel"]))
        return part

    write_bundle(tmp_path / "b", config, part_of)
    assert most <= 1 and len(alive) == 12  # once to write, once for the reference
    assert Bundle(tmp_path / "b").reference_difference() < 1e-5


def test_the_command_writes_what_the_function_does(tmp_path, capsys):
    config = bundles.config_of("marian", "seq2seq_lm")
    params = random_params(config)
    layerwise.save(tmp_path / "c", params, families.describe(config))
    main([str(tmp_path / "c"), "-o", str(tmp_path / "b"), "--weights", "int8", "--bits", "7"])
    bundles.write(tmp_path / "again", config, "int8", params=params)
    sums = [(tmp_path / name / "SHA256SUMS").read_text() for name in ("b", "again")]
    assert sums[0] == sums[1]
    assert "run_device.py" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is not empty"):
        main([str(tmp_path / "c"), "-o", str(tmp_path / "b")])
    with pytest.raises(SystemExit, match="is no checkpoint of ours"):
        main([str(tmp_path), "-o", str(tmp_path / "d")])


def test_equal_blocks_share_a_graph_and_other_widths_have_their_own(tmp_path):
    bundles.write(tmp_path / "b", bundles.config_of("bert", "bare", layers=5))
    graphs = sorted(file.name for file in (tmp_path / "b" / "graphs").iterdir())
    assert graphs == ["begin.onnx", "block_00.onnx", "head.onnx"]
    model = onnx.load(tmp_path / "b" / "graphs" / "block_00.onnx")
    assert model.ir_version == 7 and model.opset_import[0].version == 13
    assert sum(np.prod(tensor.dims) for tensor in model.graph.initializer) < 100
    inputs = {value.name for value in model.graph.input}
    assert "attention/query+key+value/kernel" in inputs


@pytest.mark.parametrize("family, head", [("bert", "masked_lm"), ("bart", "seq2seq_lm")])
def test_sizes_of_the_kinds(family, head, tmp_path):
    config = bundles.config_of(
        family, head, width=64, feed_forward=256, layers=3, vocabulary=5000, heads=4
    )
    params, sizes = random_params(config), {}
    for weights in ("float32", "float16", "int8"):
        bundles.write(tmp_path / weights, config, weights, params=params)
        files = (tmp_path / weights / "weights").iterdir()
        sizes[weights] = sum(file.stat().st_size for file in files)
    assert sizes["float16"] < 0.51 * sizes["float32"]
    assert sizes["int8"] < 0.29 * sizes["float32"]  # scales and vectors weigh more in small models


def test_int8_loses_what_the_whole_file_loses(tmp_path):
    config = bundles.config_of("bert", "sequence_classification", layers=4)
    params = random_params(config)
    from jaxkd.export.emit.kinds import Int8
    from jaxkd.export.onnx_files import OnnxFiles

    bundles.write(tmp_path / "b", config, "int8", params=params)
    export_onnx(config, params, tmp_path / "w", Int8(7))
    bundle = Bundle(tmp_path / "b")
    with np.load(tmp_path / "b" / "reference.npz") as arrays:
        arrays = {name: arrays[name] for name in arrays.files}
    inputs = {"input_ids": arrays["tokens"], "attention_mask": arrays["mask"],
              "token_type_ids": arrays["segments"]}  # fmt: skip
    whole = np.abs(OnnxFiles(tmp_path / "w", config).logits(inputs) - arrays["logits.head"]).max()
    assert bundle.reference_difference() < 1.5 * whole + 0.02


def test_a_part_of_another_shape_is_refused_by_name(tmp_path):
    config = bundles.config_of("bert", "bare")
    params = random_params(config)
    params["blocks"][1]["norm"]["scale"] = np.ones(31, np.float32)
    with pytest.raises(ValueError, match=r"block_01 .*norm/scale.*31.*32"):
        write_bundle(tmp_path / "b", config, parts_of(config, params))


def test_numbers_too_large_for_float16_are_refused(tmp_path):
    config = bundles.config_of("bert", "bare")
    params = random_params(config)
    kernel = np.array(params["blocks"][0]["feed_forward"]["expand"]["kernel"])
    kernel[0, 0] = 7e4
    params["blocks"][0]["feed_forward"]["expand"]["kernel"] = kernel
    with pytest.raises(ValueError, match="float16 ends at 65504"):
        bundles.write(tmp_path / "b", config, "float16", params=params)


def test_the_format_checks_itself(tmp_path):
    config = bundles.config_of("bert", "sequence_classification")
    params = random_params(config)
    assert isinstance(BundleFormat(), Format)
    with pytest.raises(ValueError, match="Did you mean 'int8'"):
        BundleFormat(weights="int9").check()
    each = BundleFormat()
    assert each.write(tmp_path / "b", config, params)["megabytes"] > 0
    result = each.verify(tmp_path / "b", config, params, tolerance=1e-4)
    assert result["max_abs_difference"] < 1e-5
    with pytest.raises(ExportMismatch, match="differ from ours"):
        each.verify(tmp_path / "b", config, params, tolerance=1e-9)
    coarse = BundleFormat(weights="int8", bits=7)
    coarse.write(tmp_path / "i", config, params)
    difference = coarse.verify(tmp_path / "i", config, params, tolerance=1e-4)
    reference = json.loads((tmp_path / "i" / "manifest.json").read_text())["reference"]
    assert reference["tolerance"] == pytest.approx(3 * difference["max_abs_difference"])
    Bundle(tmp_path / "i").check_reference()


def test_a_model_that_computes_in_bfloat16_has_a_reference_of_float32(tmp_path):
    config = bundles.config_of("bert", "sequence_classification", compute="bfloat16")
    bundles.write(tmp_path / "b", config)
    assert Bundle(tmp_path / "b").reference_difference() < 1e-5
