"""An epoch of distillation from a store of the teacher's targets, against the teacher online.

    python benchmarks/teacher_store.py
    python benchmarks/teacher_store.py --kinds draws --rows 128 --rounds 9

BERT-base (12 layers of width 768) teaches BERT-small (4 of 512): masked language modelling, rows of
128 tokens masked alike in every epoch, soft targets and labels, AdamW, float32, random weights and
tokens. An epoch reads its batches through the training feed, and the store through ArrayRecord.
Also printed: bytes a target, and what labelling took, which many students share.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
import peers

from jaxkd.checkpoint import teacher_store as store
from jaxkd.data.rows.masking import Masking, Vocabulary
from jaxkd.data.rows.text import MaskedRows
from jaxkd.data.sources.find import ResolvedDataset
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import HardLabels, SoftTargets
from jaxkd.models import bert, families
from jaxkd.runtime.allocator import restart_keeping
from jaxkd.stages.label import Label, recall_from
from jaxkd.train.optimiser import AdamW
from jaxkd.train.parallel import jitted

BATCH, LENGTH, VOCABULARY = 16, 128, 30522
TEACHER = bert.Config(max_length=LENGTH)
STUDENT = bert.Config(layers=4, width=512, heads=8, feed_forward=2048, max_length=LENGTH)
MASKING = Masking(smoothing=0.0, fixed=True)


def text(rows: int) -> MaskedRows:
    """Random tokens; what a feed needs, and no tokenizer."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1000, VOCABULARY, size=(rows, LENGTH), dtype=np.int32)
    counts = np.bincount(tokens.ravel(), minlength=VOCABULARY)
    known = Vocabulary.of(counts, special=[0, 100, 101, 102, 103], mask=103, pad=0)
    dataset = ResolvedDataset("random", "made here", False, {})
    return MaskedRows(dataset, "", None, {"train": tokens}, known, {"train": counts})


def written(folder: pathlib.Path, kind: str, rows: MaskedRows, params) -> tuple[store.Store, float]:
    """The store of one kind, and the seconds it took."""
    label = Label(kind=kind, masking=MASKING, batch_size=BATCH)
    label_batch = label.make_labeller(TEACHER, params, rows, seed=0, size=VOCABULARY)
    count = len(rows.splits["train"])
    fields = label.fields(TEACHER, label_batch(np.arange(1))[1])  # compiles
    began = time.perf_counter()
    store.write_shard(folder, 0, fields, label.examples(np.arange(count), label_batch))
    seconds = time.perf_counter() - began
    store.write_header(folder, fields, {"kind": kind}, examples=count, shards=1)
    return store.Store(folder, {}), seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=64, help="of an epoch, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each, interleaved")
    parser.add_argument("--kinds", default="draws,top_k,states")
    parser.add_argument("--chunk", type=int, default=0)
    options = parser.parse_args()
    rows, steps = text(options.rows), options.rows // BATCH
    teacher, student = families.build(TEACHER), families.build(STUDENT)
    params, start = teacher.init(0), student.init(1)
    optimiser = AdamW().build(start, 1000)
    terms = {"kd": SoftTargets(), "mlm": HardLabels(weight=0.5)}
    step = jitted(
        make_step(student, terms, optimiser, seed=0, teacher=teacher, chunk=options.chunk)
    )
    print(peers.machine(), flush=True)
    with tempfile.TemporaryDirectory() as place:
        settings = dict(seed=0, batch_size=BATCH, masking=MASKING)
        feeds = {"online": rows.training(**settings)}
        for kind in options.kinds.split(","):
            opened, seconds = written(pathlib.Path(place) / kind, kind, rows, params)
            target_count = MASKING.targets(LENGTH)
            each = (opened.bytes_an_example - store.HASH) / target_count
            print(f"{kind}: {each:.0f} bytes a target, labelled in {seconds:.1f} s", flush=True)
            feeds[kind] = rows.training(**settings, recall=recall_from(opened))
        states = {name: initial_state(start, optimiser) for name in feeds}
        times = {name: [] for name in feeds}
        for turn in range(options.rounds + 1):  # the first one compiles
            for name, feed in feeds.items():
                batches = feed.start(0)
                began = time.perf_counter()
                for _ in range(steps):
                    states[name], metrics = step(states[name], params, next(batches))
                jax.block_until_ready(metrics)
                if turn:
                    times[name].append((time.perf_counter() - began) / steps)
    online = times["online"]
    print("| targets | seconds a step, median | online's time (median of pairs) | range |")
    print("| --- | ---: | ---: | ---: |")
    for name, seconds_a_step in times.items():
        ratio = sorted(theirs / own for theirs, own in zip(online, seconds_a_step, strict=True))
        print(
            f"| {name} | {statistics.median(seconds_a_step):.2f} | {statistics.median(ratio):.2f} "
            f"| {ratio[0]:.2f} .. {ratio[-1]:.2f} |"
        )


if __name__ == "__main__":
    restart_keeping()
    main()
