"""Where a data set comes from: a folder, the hub, or a stand-in every Python carries."""

import contextlib
import dataclasses
import io
import os
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.hub import reason

SOURCES = ("auto", "folder", "hub", "embedded")


@dataclasses.dataclass(frozen=True)
class Source:
    """The places one data set can be had from."""

    inside: str  # its folder in $JAXKD_DATA
    files: str  # what its folder holds, in words
    repository: str  # on the hub
    read_folder: Callable[[pathlib.Path], tuple[str, Any]]  # -> name, content
    read_hub: Callable[[], tuple[str, Any]]
    embedded: Callable[[], tuple[str, Any]]


@dataclasses.dataclass(frozen=True)
class ResolvedDataset:
    """A data set's content, and what is to be said of where it comes from."""

    name: str
    origin: str  # "folder ..", "hub .." or "embedded, .. (why the others could not be had)"
    embedded: bool  # True: its numbers must never be shown as the data set's
    content: Any


def find(what: Source, dir: str | None, source: str) -> ResolvedDataset:  # noqa: A002
    """The first that can be had of: a folder, the hub, the stand-in.

    Args:
      dir: a folder. None: that in `$JAXKD_DATA`, if it exists. A folder that is named or exists
        must be whole; nothing replaces it.
      source: "folder", "hub" or "embedded" insists on that one, whatever `dir` says.
    Raises:
      ValueError: unknown source.
      FileNotFoundError: the source insisted on cannot be had.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown data.source {source!r}. {did_you_mean(source, SOURCES)}")
    why = "asked for"
    if source in ("auto", "folder"):
        folder, why = _folder(what, dir)
        if folder is not None:
            return ResolvedDataset(*_named(what.read_folder(folder), f"folder {shown(folder)}"))
        if source == "folder":
            raise FileNotFoundError(f"data.source is 'folder', but {why}. Set data.dir.")
    if source in ("auto", "hub"):
        try:
            return ResolvedDataset(*_named(what.read_hub(), f"hub {what.repository}"))
        except Exception as error:  # the hub raises its own, httpx's and the system's kinds
            failed = f"{what.repository} could not be had from the hub: {reason(error)}"
            if source == "hub":
                raise FileNotFoundError(
                    f"data.source is 'hub', but {failed}. Give data.dir a folder with "
                    f"{what.files}, or go online once so that it is cached."
                ) from error
            why = f"{why}; {failed}"
    name, content = what.embedded()
    return ResolvedDataset(
        name, f"embedded, of Python {platform.python_version()} ({why})", True, content
    )


def _named(read: tuple[str, Any], origin: str) -> tuple[str, str, bool, Any]:
    return read[0], origin, False, read[1]


def _folder(what: Source, dir: str | None) -> tuple[pathlib.Path | None, str]:  # noqa: A002
    """The folder to read, or None and why there is none."""
    if dir:
        folder = pathlib.Path(dir).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is not a folder; data.dir names one with {what.files}. Correct it, or "
                "leave it empty to look at $JAXKD_DATA and the hub."
            )
        return folder, ""
    if not os.environ.get("JAXKD_DATA"):
        return None, "no data.dir is given and $JAXKD_DATA is not set"
    folder = pathlib.Path(os.environ["JAXKD_DATA"]).expanduser() / what.inside
    if not folder.is_dir():
        return None, f"no data.dir is given and $JAXKD_DATA has no folder {what.inside}"
    return folder, ""


def shown(folder: pathlib.Path) -> str:
    """Its path as reports give it: a reader has another $JAXKD_DATA, but the same inside it."""
    root = pathlib.Path(os.environ.get("JAXKD_DATA") or "/").expanduser()
    inside = root != pathlib.Path("/") and folder.is_relative_to(root)
    return f"$JAXKD_DATA/{folder.relative_to(root)}" if inside else str(folder)


def lacking(folder: pathlib.Path, needed: str) -> FileNotFoundError:
    """The error of a folder without the files, which names what is there."""
    present = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    return FileNotFoundError(
        f"{folder} holds {present}; needed are {needed}. Put all there, or leave data.dir empty to "
        "look at $JAXKD_DATA and the hub."
    )


def decoded(content: bytes, file: pathlib.Path) -> str:
    """The text of a file, or an error that names its first byte that is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}. "
            "Convert it to UTF-8, or fetch it again."
        ) from error


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS data set of what is already in memory, in its order; needs no TensorFlow.

    `content` (split -> examples) is needed by the first `download_and_prepare()` only.
    """

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: dict[str, Any]

    def __init__(self, *, content: Any = None, **kwargs: Any):
        self._content = content
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(self.FEATURES),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        if self._content is None:
            raise ValueError(f"{type(self).__name__} has not been prepared here.")
        return {name: self._generate_examples(name) for name in self._content}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, values in enumerate(self._content[split]):
            values = values if isinstance(values, tuple) else (values,)
            yield number, dict(zip(self.FEATURES, values, strict=True))

    def prepare(self) -> None:
        """Write the examples unless they are there. TFDS renames a whole folder into place."""
        if self.data_path.exists():
            return
        tfds.disable_progress_bar()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself by print()
                self.download_and_prepare()
        except OSError:  # another process was faster: its folder stands where ours was to go
            if not self.data_path.exists():
                raise
