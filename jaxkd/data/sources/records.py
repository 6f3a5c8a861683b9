"""Rows of a file one at a time, whatever its format; errors name file and line."""

import csv
import dataclasses
import gzip
import hashlib
import json
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxkd.data.sources.find_files import missing_files

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")  # of tables; the first three also with .gz
csv.field_size_limit(2**31 - 1)  # a field may be a whole article


@dataclasses.dataclass(frozen=True)
class Records:
    """The rows of one split. Iterating reads the files anew, a row at a time.

    `how` names everything besides the files that decides what is read: with the files' digests it
    identifies the rows.
    """

    read: Callable[[], Iterator[tuple[str, Any]]]  # (where a row stands, the row)
    files: tuple[pathlib.Path, ...] = ()
    how: str = ""

    def __iter__(self) -> Iterator[Any]:
        for _, row in self.read():
            yield row

    def map(self, function: Callable[[Any], Any], how: str) -> "Records":
        """What the function makes of each row; its errors name where the row stands.

        Raises (when it is iterated over):
          ValueError: for a row that the function refuses, or that lacks what it reads.
        """

        def read() -> Iterator[tuple[str, Any]]:
            for where, row in self.read():
                try:
                    yield where, function(row)
                except KeyError as error:
                    names = ", ".join(row) if isinstance(row, Mapping) else "nothing"
                    raise ValueError(f"{where}: no field {error}; it has: {names}.") from error
                except (ValueError, TypeError, IndexError, AttributeError) as error:
                    raise ValueError(f"{where}: {error}") from error

        return Records(read, self.files, f"{self.how}|{how}")

    def flat_map(self, function: Callable[[Any], Sequence[Any]], how: str) -> "Records":
        """All rows that the function makes of each row; errors as for `map`."""
        several = self.map(function, how)

        def read() -> Iterator[tuple[str, Any]]:
            for where, rows in several.read():
                for row in rows:
                    yield where, row

        return Records(read, several.files, several.how)

    def keep(self, function: Callable[[Any], bool], how: str) -> "Records":
        """Only the rows for which the function is true."""

        def read() -> Iterator[tuple[str, Any]]:
            for where, row in self.read():
                if function(row):
                    yield where, row

        return Records(read, self.files, f"{self.how}|{how}")


def in_memory(rows: Sequence[Any], how: str) -> Records:
    """Rows that were made and not read; `how` says by what."""
    return Records(lambda: ((f"row {i}", row) for i, row in enumerate(rows, 1)), (), how)


def held_out(
    records: Records, key: Callable[[Any], str], percent: int = 5
) -> tuple[Records, Records]:
    """Those that stay and those that are held out, by a hash of their key.

    Equal keys are never on both sides, and nothing depends on the order.
    """

    def is_held_out(row: Any) -> bool:
        return int(hashlib.sha256(key(row).encode()).hexdigest(), 16) % 100 < percent

    return (
        records.keep(lambda row: not is_held_out(row), f"all but {percent}% by hash"),
        records.keep(is_held_out, f"{percent}% by hash"),
    )


def a_text(value: Any, name: str = "the text") -> str:
    """A text without white space around it.

    Raises:
      ValueError: if it is no string, has nothing in it, or cannot be written as UTF-8.
    """
    if not isinstance(value, str):
        value_in_words = "missing" if value is None else f"{value!r}, which is no text"
        raise ValueError(f"{name} is {value_in_words}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} has half of a surrogate pair (position {error.start}), which no UTF-8 text "
            "can have. Write the whole character."
        ) from None
    if not value.strip():
        raise ValueError(f"{name} is empty.")
    return value.strip()


def find_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A file of the folder or its gzipped form.

    Raises:
      FileNotFoundError: if neither is there; says what is.
    """
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise missing_files(folder, f"{name} (or {name}.gz)")


def chunks(file: pathlib.Path) -> Iterator[bytes]:
    """The content of a file, unpacked where it is gzipped, a megabyte at a time.

    Raises:
      ValueError: if a .gz file is no gzip file, or not a whole one.
    """
    opened = gzip.open(file) if file.suffix == ".gz" else open(file, "rb")
    with opened as stream:
        try:
            while block := stream.read(2**20):
                yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{file} is no whole gzip file ({error}). Fetch it again.") from error


def lines(file: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, with their ends, gzipped or not; without a byte-order mark.

    Raises:
      ValueError: names the first byte that is not UTF-8.
    """
    rest, number, offset = b"", 0, 0

    def decoded(raw: bytes) -> str:
        mark = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
        try:
            return raw[mark:].decode()
        except UnicodeDecodeError as error:
            at = mark + error.start
            raise ValueError(
                f"{file} is not UTF-8: byte {offset + at} is 0x{raw[at]:02x} (line {number}). "
                "Convert it to UTF-8, or fetch it again."
            ) from error

    for block in chunks(file):
        *whole, rest = (rest + block).split(b"\n")
        for raw in whole:
            number += 1
            yield number, decoded(raw + b"\n")
            offset += len(raw) + 1
    if rest:
        number += 1
        yield number, decoded(rest)


def text_lines(file: pathlib.Path) -> Records:
    """Each line of a text file, without its end."""

    def read() -> Iterator[tuple[str, str]]:
        for number, line in lines(file):
            yield f"{file}, line {number}", line.rstrip("\r\n")

    return Records(read, (file,), "lines")


def json_lines(file: pathlib.Path) -> Records:
    """A JSON object a line."""

    def read() -> Iterator[tuple[str, dict[str, Any]]]:
        empty = True
        for number, line in lines(file):
            empty, where = False, f"{file}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where} is {line[:60]!r}, and no JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where} is {line[:60]!r}, and no JSON object {{...}}.")
            yield where, row
        if empty:
            raise ValueError(f"{file} has no lines. Fetch it again.")

    return Records(read, (file,), "jsonl")


def table(file: pathlib.Path, header: Sequence[str] = (), *, skip_ragged: bool = False) -> Records:
    """Rows of a CSV or TSV file as {column: text}.

    CSV is read as RFC 4180 says (quoted fields may hold commas and line ends). In a TSV file a
    quotation mark is an ordinary character, as in GLUE's.

    Args:
      header: names of the columns, for a file that has none.
      skip_ragged: leave rows of another number of fields out, for data sets known to have some.
    Raises (when it is iterated over):
      ValueError: for a duplicate column, a row with more or fewer fields than the header, quotes
        that do not end; names file and line.
    """
    tabs = ".tsv" in file.suffixes[-2:] or ".txt" in file.suffixes[-2:]

    def fields() -> Iterator[tuple[int, list[str]]]:
        if tabs:
            for number, line in lines(file):
                yield number, line.rstrip("\r\n").split("\t")
            return
        reader = csv.reader((line for _, line in lines(file)), strict=True)
        start = 1
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"{file}, line {start}: {error}.") from error
            if row:  # an empty line between rows
                yield start, row
            start = reader.line_num + 1

    def read() -> Iterator[tuple[str, dict[str, str]]]:
        rows, names, count = fields(), list(header), 0
        if not names:
            _, names = next(rows, (0, []))
            names = [name.strip() for name in names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not all(names):
            raise ValueError(
                f"{file}, line 1: the header is {', '.join(map(repr, names)) or 'empty'}; every "
                "column needs a name of its own"
                + (f", and {twice[0]!r} is there twice." if twice else ".")
            )
        for number, row in rows:
            if len(row) != len(names):
                if skip_ragged:
                    continue
                raise ValueError(
                    f"{file}, line {number} has {len(row)} fields, and there are {len(names)} "
                    f"columns ({', '.join(names)}): {' | '.join(row)[:80]!r}. "
                    + ("Quote a field that holds a comma." if not tabs else "")
                )
            count += 1
            yield f"{file}, line {number}", dict(zip(names, row, strict=True))
        if not count:
            raise ValueError(f"{file} has a header and no rows. Fetch it again.")

    return Records(read, (file,), f"table {list(header)} {skip_ragged}")


def parquet(file: pathlib.Path) -> Records:
    """Rows of a Parquet file as {column: value}, some thousand in memory at a time."""

    def read() -> Iterator[tuple[str, dict[str, Any]]]:
        import pyarrow
        import pyarrow.parquet

        number = 0
        try:
            opened = pyarrow.parquet.ParquetFile(file)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{file} is no Parquet file: {error}. Fetch it again.") from error
        with opened:
            for batch in opened.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row

    return Records(read, (file,), "parquet")


def tfds_folder(folder: pathlib.Path) -> dict[str, Records]:
    """Each split of a data set that a TFDS builder prepared, as {feature: value}.

    Needs no TensorFlow: the builder must have written ArrayRecord or Parquet files.

    Raises:
      ValueError: if TFDS cannot read the folder so.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS raises many kinds
        raise ValueError(
            f"{folder} has a dataset_info.json, and TFDS cannot open it: {error}."
        ) from error

    def records(split: str) -> Records:
        def read() -> Iterator[tuple[str, dict[str, Any]]]:
            try:
                source = builder.as_data_source(split=split)
            except (NotImplementedError, ImportError) as error:
                raise ValueError(
                    f"{folder}: {error}. Without TensorFlow, prepare the data set with "
                    'file_format="array_record".'
                ) from error
            for number in range(len(source)):
                yield f"{folder}, {split} example {number}", _plain(source[number])

        files = tuple(sorted(p for p in folder.iterdir() if p.is_file()))
        return Records(read, files, f"tfds {split}")

    return {split: records(split) for split in builder.info.splits}


def _plain(value: Any) -> Any:
    """TFDS's bytes and numpy values as Python's."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def open_records(file: pathlib.Path) -> Records:
    """The rows of a table by the ending of its name, one of FORMATS.

    Raises:
      ValueError: for another ending.
    """
    suffix = file.suffixes[-2] if file.suffix == ".gz" and len(file.suffixes) > 1 else file.suffix
    if suffix in (".csv", ".tsv"):
        return table(file)
    if suffix == ".jsonl":
        return json_lines(file)
    if file.suffix == ".parquet":
        return parquet(file)
    raise ValueError(
        f"{file}: {suffix or 'no ending'} is no format of a table; allowed are "
        f"{', '.join(FORMATS)} (all but the last also with .gz)."
    )
