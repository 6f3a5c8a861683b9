"""Checkpoints of one training, by step: written whole or not at all, checked before use."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from jaxkd.checkpoint import layerwise


@dataclasses.dataclass(frozen=True)
class Series:
    """A folder of checkpoints `00000100/`, each beside the digests of its files.

    The digests (`00000100.sha256.json`) are written last and atomically: a checkpoint without
    them was cut off, one that differs from them was damaged, and neither is ever used.
    """

    folder: pathlib.Path
    keep: int = 2
    warn: Callable[[str], None] = print  # called with a sentence for every skipped checkpoint

    def save(
        self,
        step: int,
        params: Any,
        model: dict[str, Any],
        *,
        state: Any = None,
        data: dict[str, Any] | None = None,
    ) -> pathlib.Path:
        """Write step's checkpoint, then remove all but the newest `keep`.

        Raises:
          OSError: if the disk is full; the older checkpoints are kept.
        """
        target = self.folder / f"{step:08d}"
        self._remove(target)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            layerwise.save(target, params, model, state=state, data=data)
            _write_atomically(_digests_of(target), _digest_file(target))
        except Exception as error:
            if _is_disk_full(error):
                self._remove(target)
                raise OSError(
                    errno.ENOSPC,
                    f"no space left on the disk of {self.folder} while saving step {step}. The "
                    "checkpoints before it are intact. Free some space and start again: the run "
                    "goes on from them",
                ) from error
            raise
        for old in self._whole()[: -self.keep]:
            self._remove(old)
        for unfinished in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        return target

    def latest(self) -> pathlib.Path | None:
        """The newest checkpoint whose files are what was written; None if there is none.

        Skipped ones are named to `warn`, and stay on disk.
        """
        for target in sorted(self._folders(), reverse=True):
            if not _digest_file(target).is_file():
                self.warn(f"checkpoint {target} was not finished; using the one before it.")
                continue
            damaged = self.damaged(target)
            if not damaged:
                return target
            self.warn(
                f"checkpoint {target} is damaged ({', '.join(damaged[:3])}"
                f"{' ...' if len(damaged) > 3 else ''}); using the one before it."
            )
        return None

    def damaged(self, target: pathlib.Path) -> list[str]:
        """Files of a checkpoint that are not what was written; its digest file if that cannot be
        read."""
        stored = _read_json(_digest_file(target))
        if stored is None:
            return [_digest_file(target).name]
        digests = _digests_of(target)
        return sorted(name for name in stored if digests.get(name) != stored[name])

    def newest(self) -> pathlib.Path | None:
        """The newest finished checkpoint, its files not compared with their digests."""
        return max(self._whole(), default=None)

    def _folders(self) -> list[pathlib.Path]:
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.is_dir() and p.name.isdigit())

    def _whole(self) -> list[pathlib.Path]:
        return [p for p in self._folders() if _digest_file(p).exists()]

    def _remove(self, target: pathlib.Path) -> None:
        # Digests first: a removal that is cut off leaves a checkpoint that is not used.
        _digest_file(target).unlink(missing_ok=True)
        if target.exists():
            shutil.rmtree(target)


def check_space(folder: pathlib.Path, needed: int) -> None:
    """Raise OSError if the disk under `folder` has fewer than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    check_disk(folder, needed)


def check_disk(folder: pathlib.Path, needed: int) -> None:
    """The same for a folder that need not exist; nothing is made."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder} has {free / 1e6:.0f} MB free, and the checkpoints need about "
            f"{needed / 1e6:.0f} MB. Free some space, or choose another --workdir",
        )


def _digest_file(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f"{target.name}.sha256.json")


def _digests_of(target: pathlib.Path) -> dict[str, str]:
    digests = {}
    for file in sorted(target.rglob("*")):
        if file.is_file():
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            digests[str(file.relative_to(target))] = digest
    return digests


def _write_atomically(content: Any, file: pathlib.Path) -> None:
    unfinished = file.with_name(f".{file.name}.tmp")
    with open(unfinished, "w") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def _read_json(file: pathlib.Path) -> dict[str, str] | None:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):  # not there, or damaged
        return None
    return content if isinstance(content, dict) else None


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
