"""A search over a table, to be killed: python tests/search/trials.py JOURNAL WORKER MOST PAUSE.

With a fifth argument, a file, it writes JOURNAL.WORKER.ready and begins when that file is there.
"""

import json
import pathlib
import sys
import time

import numpy as np

from jaxkd.models.bert import Config
from jaxkd.search.optimisers import Evolution, Outcome
from jaxkd.search.space import Space
from jaxkd.search.study import Study

SPACE = Space(
    Config(layers=8, width=64, heads=4, feed_forward=256),
    {"layers": (1, 2, 4, 6, 8), "width": (16, 32, 48, 64), "feed_forward": (64, 128, 192, 256)},
)


def reward(key: str) -> float:
    return float(np.random.default_rng(list(key.encode())).uniform())


def search(journal: str, worker: str, most: int, pause: float = 0.0) -> None:
    study = Study(SPACE, journal, "trials", worker, most)
    optimiser, observed = Evolution(SPACE, 0, population=8, tournament=4), set()
    while True:
        for record in study.records():
            if record.state != "running" and record.number not in observed:
                observed.add(record.number)
                optimiser.observe(record.candidate, Outcome(record.measured["reward"]))
        interrupted = study.interrupted()
        record = study.resume(interrupted[0]) if interrupted else study.claim(optimiser.suggest)
        if record is None:
            return
        time.sleep(pause)
        with open(f"{journal}.measured", "a") as file:
            file.write(json.dumps([worker, record.key]) + "\n")
        study.finish(record, reward(record.key), {}, stopped=False)


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 5:
        pathlib.Path(f"{sys.argv[1]}.{sys.argv[2]}.ready").touch()
        while not pathlib.Path(sys.argv[5]).exists():
            time.sleep(0.005)
    search(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
