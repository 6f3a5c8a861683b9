"""Memory and time to open a large text file: tokenize it, write its rows, map them.

    python benchmarks/open_corpus.py --gigabytes 1

The text is the embedded prose, repeated with a number in each document, so that all documents
differ. Peak memory is the process's own (resident set), imports and mapped pages included.
"""

import argparse
import pathlib
import resource
import tempfile
import time

from jaxkd.data.rows.text import CausalText
from jaxkd.data.sources.embedded import embedded_documents


def peak() -> float:
    """The largest resident set of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def write_corpus(file: pathlib.Path, size: float) -> None:
    documents = [text for split in embedded_documents().values() for text in split]
    written, number = 0, 0
    with open(file, "w") as stream:
        while written < size:
            text = documents[number % len(documents)].replace("\n\n", "\n")
            written += stream.write(f"document {number}\n{text}\n\n")
            number += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--length", type=int, default=128, help="tokens a row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        write_corpus(folder / "corpus.txt", options.gigabytes * 1e9)
        before, began = peak(), time.perf_counter()
        text = CausalText(
            train=str(folder / "corpus.txt"),
            tokenizer=str(trained(folder)),
            length=options.length,
        )
        rows = text.open(folder / "cache")
        seconds = time.perf_counter() - began
        print(f"{options.gigabytes:g} GB of text, {len(rows.splits['train']):,} training rows")
        print(f"peak memory {peak():.2f} GB (before opening: {before:.2f}), {seconds:.0f} s")


def trained(folder: pathlib.Path) -> pathlib.Path:
    """A vocabulary of the prose alone: training one holds its texts in memory."""
    prose = "\n\n".join(text for split in embedded_documents().values() for text in split)
    (folder / "prose.txt").write_text(prose)
    text = CausalText(
        train=str(folder / "prose.txt"), tokenizer="trained", trained_size=8192, length=128
    )
    target = folder / "tokenizer"
    target.mkdir()
    (target / "tokenizer.json").write_text(
        text.open(folder / "cache").tokenizer.fast.backend_tokenizer.to_str()
    )
    return target


if __name__ == "__main__":
    main()
