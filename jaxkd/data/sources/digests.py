"""What files hold, by a digest: each is read once, and not again while it is unchanged."""

import hashlib
import json
import os
import pathlib

from jaxkd.data.sources.records import chunks


def file_digest(file: pathlib.Path, cache: pathlib.Path) -> str:
    """sha256 of a file's content, of a gzipped one's unpacked content.

    Kept in `cache / "digests"` with the file's size and time of change. A file of another size or
    time is read again.
    """
    path = file.absolute()
    stat = path.stat()
    stamp = [str(path), stat.st_size, stat.st_mtime_ns]
    kept = cache / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.json"
    try:
        stored = json.loads(kept.read_text())
        if stored["stamp"] == stamp:
            return stored["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged: it is made anew
    digest = hashlib.sha256()
    for block in chunks(path):
        digest.update(block)
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_name(f".{kept.name}.{os.getpid()}")
    unfinished.write_text(json.dumps({"stamp": stamp, "sha256": digest.hexdigest()}))
    os.replace(unfinished, kept)
    return digest.hexdigest()
