"""Where a known data set comes from: a folder, the hub, or a stand-in every Python carries."""

import dataclasses
import os
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.data.sources.digests import file_digest
from jaxkd.data.sources.find_files import display_path
from jaxkd.data.sources.hub import HubUnavailable, dataset_files
from jaxkd.data.sources.records import Records, in_memory

ORIGINS = ("auto", "folder", "hub", "embedded")
Splits = Mapping[str, Records]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One known data set: a row of the table of its kind (data/corpora/)."""

    name: str  # as reports call it
    inside: str  # its folder in $JAXKD_DATA
    files: str  # what its folder holds, in words
    read_folder: Callable[[pathlib.Path], Splits]
    repository: str = ""  # on the hub
    hub_files: Sequence[str] = ()
    read_hub: Callable[[list[pathlib.Path]], Splits] | None = None  # of `hub_files`
    # A stand-in (name, split -> rows); its numbers are never shown as the data set's.
    embedded: Callable[[], tuple[str, Mapping[str, Sequence[Any]]]] | None = None
    # sha256 of the training split's (unpacked) first file. A folder with another file is called by
    # its own name. Empty: it is not known, and it has its name where it lies in $JAXKD_DATA.
    known: frozenset[str] = frozenset()
    made: bool = False  # made by jaxkd itself: there is nothing else than `embedded`
    labels: tuple[str, ...] = ()  # names of the classes, where rows are labelled
    texts: int = 1  # of a labelled row: one, or two that are read together
    notes: Callable[[Splits], tuple[str, ...]] = lambda splits: ()  # what reports say of the splits


@dataclasses.dataclass(frozen=True)
class ResolvedDataset:
    """A data set's splits, and what reports say of where they come from."""

    name: str
    origin: (
        str  # "folder ..", "hub ..", "files ..", or "embedded, .. (why the others cannot be had)"
    )
    embedded: bool  # True: its numbers must never be shown as the data set's
    splits: Splits
    expected: str = ""  # the known data set that the experiment is about; "": one's own files
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


MADE = "made by jaxkd itself"  # the origin of a corpus that no files are read for


def find(
    corpus: Corpus,
    dir: str,  # noqa: A002
    origin: str,
    cache: pathlib.Path,
) -> ResolvedDataset:
    """The first that can be had of: a folder, the hub, the stand-in.

    Args:
      dir: a folder. Empty: that in `$JAXKD_DATA`, if it exists. A folder that is named or exists
        must be whole; nothing replaces it.
      origin: "folder", "hub" or "embedded" insists on that one.
      cache: where digests of files are kept.
    Raises:
      ValueError: unknown origin; a folder beside an origin that reads none.
      FileNotFoundError: the origin insisted on cannot be had.
    """
    if origin not in ORIGINS:
        raise ValueError(f"unknown data.origin {origin!r}. {did_you_mean(origin, ORIGINS)}")
    if corpus.made:
        if dir or origin != "auto":
            raise ValueError(
                f"data.dir={dir!r} and data.origin={origin!r}: {corpus.name} is made by jaxkd "
                "itself, and comes from nowhere else. Leave both as they are."
            )
        return _stand_in(corpus, MADE, embedded=False)
    if dir and origin in ("hub", "embedded"):
        raise ValueError(
            f"data.dir={dir!r} would not be read: data.origin is {origin!r} here (a smoke variant "
            "always runs on its embedded text). Leave data.dir out, or set "
            "--config.data.origin=folder."
        )
    why = "as data.origin says"
    if origin in ("auto", "folder"):
        folder, why = _folder(corpus, dir)
        if folder is not None:
            return _of_folder(corpus, folder, cache)
        if origin == "folder":
            raise FileNotFoundError(f"data.origin is 'folder', but {why}. Set data.dir.")
    if origin in ("auto", "hub"):
        try:
            files = _hub(corpus)
        except HubUnavailable as error:
            if origin == "hub":
                raise FileNotFoundError(
                    f"data.origin is 'hub', but {error}. Give data.dir a folder with "
                    f"{corpus.files}, or go online once so that it is cached."
                ) from error
            why = f"{why}; {error}"
        else:
            # Outside the try: a file that cannot be read is no unreachable hub.
            splits = corpus.read_hub(files)
            return ResolvedDataset(
                corpus.name, f"hub {corpus.repository}", False, splits, corpus.name,
                corpus.labels, corpus.notes(splits),
            )  # fmt: skip
    if corpus.embedded is None:
        raise FileNotFoundError(
            f"{corpus.name} cannot be had: {why}. Give data.dir a folder with {corpus.files}."
        )
    origin = f"embedded, of Python {platform.python_version()} ({why})"
    return _stand_in(corpus, origin, embedded=True)


def _hub(corpus: Corpus) -> list[pathlib.Path]:
    if corpus.read_hub is None:
        raise HubUnavailable(
            f"{corpus.repository or corpus.name} could not be had: its files are not read from "
            "the hub"
        )
    return dataset_files(corpus.repository, corpus.hub_files)


def _stand_in(corpus: Corpus, origin: str, *, embedded: bool) -> ResolvedDataset:
    name, content = corpus.embedded()
    how = f"{name}, Python {platform.python_version()}"
    splits = {split: in_memory(rows, f"{how}, {split}") for split, rows in content.items()}
    return ResolvedDataset(name, origin, embedded, splits, corpus.name, corpus.labels)


def _of_folder(corpus: Corpus, folder: pathlib.Path, cache: pathlib.Path) -> ResolvedDataset:
    splits = corpus.read_folder(folder)
    name = corpus.name
    if corpus.known:
        first = splits["train"].files[0]
        if file_digest(first, cache) not in corpus.known:
            name = folder.absolute().name
    elif not display_path(folder).startswith("$JAXKD_DATA"):
        name = folder.absolute().name
    return ResolvedDataset(
        name, f"folder {display_path(folder)}", False, splits, corpus.name, corpus.labels,
        corpus.notes(splits),
    )  # fmt: skip


def _folder(corpus: Corpus, dir: str) -> tuple[pathlib.Path | None, str]:  # noqa: A002
    """The folder to read, or None and why there is none."""
    if dir:
        folder = pathlib.Path(dir).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is not a folder; data.dir names one with {corpus.files}. Correct it, or "
                "leave it empty to look at $JAXKD_DATA and the hub."
            )
        return folder, ""
    if not os.environ.get("JAXKD_DATA"):
        return None, "no data.dir is set and $JAXKD_DATA is not set"
    folder = pathlib.Path(os.environ["JAXKD_DATA"]).expanduser() / corpus.inside
    if not folder.is_dir():
        return None, f"no data.dir is set and $JAXKD_DATA has no folder {corpus.inside}"
    return folder, ""
