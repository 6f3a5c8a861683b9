"""A bundle's folder: every file compared with its digest, every name and size before it is used."""

import hashlib
import json
import os
import stat

import numpy as np

from jaxkd.device.errors import DamagedBundle

FORMAT, VERSION = "jaxkd bundle", 1
SUMS, MANIFEST = "SHA256SUMS", "manifest.json"
DTYPES = {
    each.__name__: each
    for each in (
        np.float32,
        np.float16,
        np.float64,
        np.int8,
        np.uint8,
        np.int32,
        np.int64,
    )
}
LARGEST = 2**40  # of a dimension or an offset: numbers above are a lie


class Folder:
    """Opens a bundle.

    Raises DamagedBundle for a file that is missing, cut or changed, a manifest of another version,
    and names that lead out of the folder.
    """

    def __init__(self, path):
        self.path = os.path.realpath(path)
        if not os.path.isdir(self.path):
            raise DamagedBundle(f"{path} is no folder.")
        self.sums = self._read_sums()
        for name in sorted(self.sums):
            self._compare(name)
        self.manifest = self._read_manifest()

    def file(self, name):
        """The path of a file of the bundle, whose content was compared with its digest."""
        if not isinstance(name, str) or name not in self.sums:
            raise DamagedBundle(
                f"{self.path}: the manifest names {name!r}, of which there is no digest in {SUMS}."
            )
        return self._path(name)

    def read(self, name):
        with open(self.file(name), "rb") as stream:
            return stream.read()

    def tensors(self, described):
        """Weights that the manifest describes, of one file or of a list of them."""
        if isinstance(described, list):
            return SeveralFiles([Tensors(self, each) for each in described])
        return Tensors(self, described)

    def _path(self, name):
        path = os.path.join(self.path, *name.split("/"))
        inside = os.path.realpath(path)
        if name.startswith("/") or "\\" in name or not inside.startswith(self.path + os.sep):
            raise DamagedBundle(f"{self.path}: {name!r} leads out of the folder.")
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            raise DamagedBundle(
                f"{self.path} lacks {name} ({error.strerror}). Copy the whole folder again."
            ) from error
        if not stat.S_ISREG(mode) or inside != os.path.normpath(path):
            raise DamagedBundle(f"{self.path}: {name} is no plain file.")
        return path

    def _read_sums(self):
        try:
            with open(os.path.join(self.path, SUMS), "rb") as stream:
                text = stream.read().decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedBundle(
                f"{self.path} has no readable {SUMS} ({error}): it is no bundle, or was cut."
            ) from error
        sums = {}
        for line in text.split("\n")[:-1]:
            digest, space, name = line[:64], line[64:66], line[66:]
            if space != "  " or not name or name in sums or digest.strip("0123456789abcdef"):
                raise DamagedBundle(f"{self.path}: {SUMS} has a damaged line: {line[:90]!r}")
            sums[name] = digest
        # The manifest's line is written last: without it the list was cut.
        if not text.endswith(f"  {MANIFEST}\n"):
            raise DamagedBundle(f"{self.path}: {SUMS} was cut. Copy the folder again.")
        return sums

    def _compare(self, name):
        digest = hashlib.sha256()
        with open(self._path(name), "rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                digest.update(piece)
        if digest.hexdigest() != self.sums[name]:
            raise DamagedBundle(
                f"{self.path}: {name} is not what was written: its digest differs. Copy the "
                "folder again."
            )

    def _read_manifest(self):
        try:
            manifest = json.loads(self.read(MANIFEST).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise DamagedBundle(f"{self.path}: {MANIFEST} is no JSON ({error}).") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DamagedBundle(f"{self.path}: {MANIFEST} is no manifest of a bundle.")
        if manifest.get("version") != VERSION:
            raise DamagedBundle(
                f"{self.path} was written as version {manifest.get('version')!r}, "
                f"and this runner reads version {VERSION}. Run the run_device.py "
                "that is in the bundle."
            )
        return manifest


def entry(owner, name, kind, what="the manifest"):
    """owner[name], which must be there and of a type.

    Raises DamagedBundle otherwise; `what` says where it stands.
    """
    value = owner.get(name) if isinstance(owner, dict) else None
    wrong = isinstance(value, bool) and kind is not bool
    if value is None or wrong or not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise DamagedBundle(
            f"{what}: {name!r} should be {' or '.join(each.__name__ for each in kinds)}, "
            f"and is {value!r:.60}."
        )
    return value


def whole_number(owner, name, least, what="the manifest"):
    """A whole number of at least `least`; raises DamagedBundle."""
    value = entry(owner, name, int, what)
    if not least <= value <= LARGEST:
        raise DamagedBundle(f"{what}: {name!r} is {value!r}; it is {least} or more.")
    return value


class Tensors:
    """One file of weights: where each tensor lies, checked against the file's size."""

    def __init__(self, folder, described):
        name = entry(described, "file", str)
        self.path = folder.file(name)
        self.bytes = whole_number(described, "bytes", 0, name)
        actual = os.path.getsize(self.path)
        if actual != self.bytes:
            raise DamagedBundle(f"{name} has {actual} bytes, and the manifest says {self.bytes}.")
        self.described = {}
        for tensor, each in entry(described, "tensors", dict, name).items():
            what = f"{name}: tensor {tensor!r}"
            dtype = DTYPES.get(entry(each, "dtype", str, what))
            if dtype is None:
                raise DamagedBundle(
                    "{} is of type {!r}; known: {}.".format(
                        what, each["dtype"], ", ".join(sorted(DTYPES))
                    )
                )
            shape, size = [], np.dtype(dtype).itemsize
            for length in entry(each, "shape", list, what):
                shape.append(whole_number({"shape": length}, "shape", 0, what))
                size *= length
            offset = whole_number(each, "offset", 0, what)
            if offset % np.dtype(dtype).itemsize or offset + size > actual:
                raise DamagedBundle(
                    f"{what} lies at byte {offset} and has {size} bytes; the file has {actual}."
                )
            self.described[tensor] = (np.dtype(dtype), tuple(shape), offset, size)

    def map(self):
        """The tensors by name, as views of the mapped file; dropped, they free its memory."""
        if not self.bytes:
            mapped = np.zeros(0, np.uint8)
        else:
            mapped = np.memmap(self.path, np.uint8, "r")
        return {
            name: mapped[offset : offset + size].view(dtype).reshape(shape)
            for name, (dtype, shape, offset, size) in self.described.items()
        }

    def prefetch(self):
        """Ask the system to read the file soon; returns at once."""
        if not hasattr(os, "posix_fadvise"):
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


class SeveralFiles:
    """Weights of several files as if they were of one."""

    def __init__(self, files):
        self.files = files
        self.bytes = sum(each.bytes for each in files)
        self.described = {}
        for each in files:
            self.described.update(each.described)

    def map(self):
        mapped = {}
        for each in self.files:
            mapped.update(each.map())
        return mapped

    def prefetch(self):
        for each in self.files:
            each.prefetch()
