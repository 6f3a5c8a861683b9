#!/usr/bin/env bash
# optuna 5.0.0: a journal whose last line was cut short (its process was killed, or the disk was full,
# while it appended) opens once more, with all finished trials. The next trial is appended to that
# very line, and from then on the study cannot be opened at all, however many trials it holds. Seen:
# "opens again: 3 trials", "while going on: JSONDecodeError", "opens later: JSONDecodeError". Whoever
# opens such a file has to cut the unfinished line off first. Exit status 1 if that changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
pip install --quiet optuna==5.0.0
cd "$place"
cat > journal.py <<'PY'
import sys

import optuna
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study():
    storage = optuna.storages.JournalStorage(JournalFileBackend("study.journal"))
    return optuna.create_study(storage=storage, study_name="one", load_if_exists=True)


if sys.argv[1] == "fill":
    study().optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    content = open("study.journal", "rb").read()
    lines = content.splitlines(keepends=True)
    # As an append that was cut short leaves it: half of one more line.
    open("study.journal", "ab").write(lines[-1][: len(lines[-1]) // 2])
elif sys.argv[1] == "go on":
    again = study()
    print(f"opens again: {len(again.trials)} trials")
    try:
        again.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    except ValueError as error:
        print(f"while going on: {type(error).__name__}")
else:
    try:
        print(f"opens later: {len(study().trials)} trials")
    except ValueError as error:
        print(f"opens later: {type(error).__name__}: {error}"[:120])
PY
python -W ignore journal.py fill
python -W ignore journal.py "go on" | tee first.txt
python -W ignore journal.py later | tee second.txt
grep -q "opens again: 3 trials" first.txt
grep -Eq "opens later: (ValueError|JSONDecodeError)" second.txt
