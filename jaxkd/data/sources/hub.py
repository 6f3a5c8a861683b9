"""Files of the HuggingFace hub, or a quick and plain word on why they cannot be had."""

import pathlib
import re
import threading
from collections.abc import Sequence

_PATIENCE = 3  # seconds without an answer from the hub after which it counts as out of reach


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
    """An exception's kind and the beginning of what it says, up to an address."""
    said = re.split(r"(?: for url)?\W*https?://", str(error).strip().split("\n")[0])[0][:80]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
