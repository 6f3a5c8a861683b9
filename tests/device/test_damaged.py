"""A bundle damaged in any place gives a clear error or its own answer, never another one."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from jaxkd.device.bundle import Bundle
from jaxkd.device.cli import main
from jaxkd.device.errors import DamagedBundle, DifferentAnswers, RunnerError
from tests.device import bundles

PLACES = 500


def tree(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "b"
    bundles.classifier(folder)
    return folder


def copied(sound, tmp_path):
    shutil.rmtree(tmp_path / "b", ignore_errors=True)
    shutil.copytree(sound, tmp_path / "b")
    return tmp_path / "b"


def test_files_that_are_flipped_or_cut_are_refused(sound, tmp_path):
    draw = np.random.default_rng(0)
    folder = copied(sound, tmp_path)
    files = sorted(tree(folder).items())
    sizes = np.array([len(content) for _, content in files], float)
    Bundle(folder)
    for place in range(PLACES):
        # Large files are hit as often as their size says, small ones too.
        chance = sizes / sizes.sum() if place % 2 else (sizes > 0) / (sizes > 0).sum()
        name, content = files[draw.choice(len(files), p=chance)]
        at = int(draw.integers(len(content)))
        if place % 5 == 0:
            damaged = content[:at]
        else:
            damaged = bytearray(content)
            damaged[at] ^= 1 << int(draw.integers(8))
        (folder / name).write_bytes(bytes(damaged))
        with pytest.raises(DamagedBundle):
            Bundle(folder)
        (folder / name).write_bytes(content)
    assert Bundle(folder).reference_difference() < 1e-4


def test_a_manifest_that_lies_with_right_digests_is_refused_or_changes_no_answer(sound, tmp_path):
    """Each number is made too large, too small or no number; each name leads elsewhere."""
    folder = copied(sound, tmp_path)
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"\0" * 4096)
    manifest = json.loads((folder / "manifest.json").read_text())
    lies = []
    for i, (path, value) in enumerate(leaves(manifest)):
        # A field recurs in every block and tensor; each time two others of its lies are tried.
        possible = list(lies_about(path, value, outside))
        lies += [each for j, each in enumerate(possible) if (j - i) % len(possible) < 2]
    assert len(lies) > 200
    refused = 0
    for path, lie in lies:
        (folder / "manifest.json").write_text(json.dumps(changed(manifest, path, lie)))
        bundles.refresh(folder)
        before = set(tmp_path.rglob("*"))
        try:
            Bundle(folder).check_reference()
        except (DamagedBundle, DifferentAnswers):
            refused += 1
        assert set(tmp_path.rglob("*")) == before
    assert outside.read_bytes() == b"\0" * 4096
    assert refused > len(lies) // 2


def leaves(value, path=()):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list) and len(value) < 5:
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i))
    elif not isinstance(value, list):
        yield path, value


def lies_about(path, value, outside):
    # What these say is shown to users, and no answer depends on it.
    if path[0] in ("policies", "generation", "weights", "bits", "measured"):
        return
    if path[0] == "model" and path[1] in ("labels", "max_length", "family", "head", "layers"):
        return
    if isinstance(value, str):
        yield path, f"../{outside.name}"
        yield path, str(outside)
        yield path, ""
    elif isinstance(value, (int, float)):
        yield path, value + 64
        yield path, -1
        yield path, 2**62
        yield path, "7"


def changed(value, path, lie):
    if not path:
        return lie
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], lie)
    return copy


@pytest.mark.parametrize(
    "name", ["../outside", "weights/../../outside", "/etc/hostname", "weights/link"]
)
def test_names_that_lead_out_of_the_folder_are_refused(name, sound, tmp_path):
    folder = copied(sound, tmp_path)
    (tmp_path / "outside").write_bytes(b"secret")
    os.symlink(tmp_path / "outside", folder / "weights" / "link")
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  {name}\n" + sums.read_text())
    with pytest.raises(DamagedBundle, match="leads out of the folder|no plain file") as error:
        Bundle(folder)
    assert "secret" not in str(error.value)


def test_another_version_names_both(sound, tmp_path):
    folder = copied(sound, tmp_path)
    for version in (0, 2, "1"):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
        bundles.refresh(folder)
        with pytest.raises(DamagedBundle, match=f"version {version!r}, .* reads version 1"):
            Bundle(folder)


def test_weights_that_were_exchanged_differ_from_the_reference(sound, tmp_path):
    """Right digests, wrong model: only the reference can say."""
    folder = copied(sound, tmp_path)
    first, second = folder / "weights" / "block_00.bin", folder / "weights" / "block_01.bin"
    first.write_bytes(second.read_bytes())
    bundles.refresh(folder)
    with pytest.raises(DifferentAnswers, match="allowed is 0.0001"):
        Bundle(folder).check_reference()
    assert main(["--selftest"], folder) == 5


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_weights_that_are_no_numbers_or_zeros_fail_the_reference(weights, tmp_path):
    folder = tmp_path / "b"
    bundles.classifier(folder, weights=weights)
    assert main(["--selftest"], folder) == 0
    file = folder / "weights" / "block_00.bin"
    content = bytearray(file.read_bytes())
    described = json.loads((folder / "manifest.json").read_text())["blocks"][0]["weights"]
    offset = described["tensors"]["norm/bias"]["offset"]
    content[offset : offset + 4] = np.float32(np.nan).tobytes()
    for changed_content in (bytes(content), bytes(len(content))):
        file.write_bytes(changed_content)
        bundles.refresh(folder)
        assert main(["--selftest"], folder) == 5


def test_codes_of_errors(sound, tmp_path, capsys):
    folder = copied(sound, tmp_path)
    assert main(["--selftest"], folder) == 0
    assert main([], folder) == 2
    assert main(["--ids", "1,2", "--budget-mb", "0.001"], folder) == 4
    (folder / "weights" / "tokens.bin").unlink()
    assert main(["--selftest"], folder) == 3
    assert "lacks weights/tokens.bin" in capsys.readouterr().err
    assert issubclass(DamagedBundle, RunnerError)
