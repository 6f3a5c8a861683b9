"""Files of the HuggingFace hub, or a quick and plain word on why they cannot be had."""

import pathlib
import re
import threading
from collections.abc import Sequence

_PATIENCE = 3  # seconds without an answer from the hub after which it counts as out of reach


class HubUnavailable(FileNotFoundError):
    """The hub did not give the files."""


def hub_files(repository: str, *alternatives: Sequence[str], kind: str) -> list[pathlib.Path]:
    """The files of the first alternative that can be had: from the local hub cache, else the hub.

    A hub that cannot be reached costs seconds: huggingface_hub alone repeats its question for 23.

    Args:
      kind: "model" or "dataset".
    Raises:
      Exception: what huggingface_hub raises: offline, no such repository, no such file ...
    """
    import huggingface_hub

    for files in alternatives:
        cached = [
            huggingface_hub.try_to_load_from_cache(repository, file, repo_type=kind)
            for file in files
        ]
        if all(isinstance(path, str) for path in cached):
            return [pathlib.Path(path) for path in cached]
    for files in alternatives:
        url = huggingface_hub.hf_hub_url(repository, files[0], repo_type=kind)
        try:
            _ask(url)
        except huggingface_hub.errors.EntryNotFoundError:
            if files is alternatives[-1]:
                raise
            continue
        return [
            pathlib.Path(huggingface_hub.hf_hub_download(repository, file, repo_type=kind))
            for file in files
        ]
    raise ValueError("hub_files needs at least one alternative.")


def dataset_files(repository: str, files: Sequence[str]) -> list[pathlib.Path]:
    """Files of a data set.

    Raises:
      HubUnavailable: says why they cannot be had. What is wrong with a file's content is found
        later, by who reads it, and is not taken for an unreachable hub.
    """
    try:
        return hub_files(repository, files, kind="dataset")
    except Exception as error:  # huggingface_hub raises its own, httpx's and the system's kinds
        raise HubUnavailable(
            f"{repository} could not be had from the hub: {reason(error)}"
        ) from error


SPLITS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


def dataset_splits(name: str) -> dict[str, list[pathlib.Path]]:
    """The files of each split of a data set, by their names (train-00000-of-00002.parquet, ...).

    Args:
      name: a repository, or "REPOSITORY:FOLDER" for one of several subsets.
    Raises:
      HubUnavailable: says why they cannot be had.
      ValueError: if no file is named after a split.
    """
    import huggingface_hub

    repository, _, inside = name.partition(":")
    try:
        every = huggingface_hub.HfApi().list_repo_files(repository, repo_type="dataset")
    except Exception as error:  # as above
        raise HubUnavailable(
            f"{repository} could not be had from the hub: {reason(error)}"
        ) from error
    by_split: dict[str, list[str]] = {}
    for file in sorted(every):
        if inside and not file.startswith(f"{inside}/"):
            continue
        for split, words in SPLITS.items():
            stem = file.rsplit("/", 1)[-1]
            pattern = rf"({'|'.join(words)})([-_.].*)?\.(parquet|jsonl|csv|tsv)(\.gz)?"
            if re.fullmatch(pattern, stem):
                by_split.setdefault(split, []).append(file)
    folders = {file.rpartition("/")[0] for files in by_split.values() for file in files}
    if "train" not in by_split or len(folders) > 1:
        raise ValueError(
            f"{name}: "
            + (
                f"the data set has several subsets ({', '.join(sorted(folders))}). Choose one: "
                f"--config.data.train={repository}:FOLDER."
                if len(folders) > 1
                else f"no file is named after the split train. It has: {', '.join(every[:8])}."
            )
        )
    return {split: dataset_files(repository, files) for split, files in by_split.items()}


def _ask(url: str) -> None:
    """Return if the hub knows the file; raise what stands against it, or TimeoutError."""
    import huggingface_hub

    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            huggingface_hub.get_hf_file_metadata(url, timeout=_PATIENCE)
            outcome.append(None)
        except Exception as error:  # handed to the caller below
            outcome.append(error)

    # A thread: looking up a name obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * _PATIENCE)
    if not outcome:
        raise TimeoutError(f"no answer within {2 * _PATIENCE} s")
    if outcome[0] is not None:
        raise outcome[0]


def reason(error: Exception) -> str:
    """An exception's kind and the beginning of its message, up to an address."""
    message = re.split(r"(?: for url)?\W*https?://", str(error).strip().split("\n")[0])[0][:80]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
