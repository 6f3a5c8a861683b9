"""The command line of a bundle: its options.

    python3 run_device.py --text "a fine film"             # one answer
    python3 run_device.py --file in.tsv --json             # a line each; two columns are a pair
    python3 run_device.py --rule optimal --lambda 0.02 --text "..."
    python3 run_device.py --bench --file in.tsv --budget-mb 64
    python3 run_device.py --versus ../bundle_int8 --file in.tsv
    python3 run_device.py --selftest

Exit codes: 0, 2 for an impossible request, 3 for a damaged bundle, 4 for too little memory, 5 if
this machine's answers are not the reference's.
"""

import argparse

RULES = ("none", "patience", "entropy", "confidence", "optimal")


def parser():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--text", action="append", default=[], help="a text; again for more")
    add("--pair", action="append", default=[], help="the second text of a pair")
    add("--file", help="texts, one a line; with a tab two")
    add("--ids", action="append", default=[], help="token ids instead of a text: 101,2054,102")
    add("--inputs", help="of a divided model: an npz with an array for each input")
    add("-o", "--output", help="of a divided model: an npz to write, with an array an output")
    add("--max-length", type=int, help="tokens; longer texts are cut")
    add("--batch", type=int, default=1, help="rows at a time")
    add("--json", action="store_true", help="an object a line, instead of words")
    add("--budget-mb", type=float, help="memory this may take; default: most of what is free")
    add("--window", action="store_true", help="hold one layer in memory at a time")
    add("--threads", type=int, default=0, help="0: as many as onnxruntime takes")
    add(
        "--rule",
        choices=RULES,
        help="when an early exit answers; default: all blocks run, or "
        "optimal with --lambda, patience with --patience",
    )
    add("--patience", type=int, help="exits in a row that agree")
    add("--threshold", type=float, help="of entropy (nats) or confidence (probability)")
    add(
        "--lambda",
        dest="price",
        type=float,
        help="of optimal: quality that the time of all blocks is worth",
    )
    add("--deadline-ms", type=float, help="answer with the exit that is reached by then")
    add("--beam", type=int, help="beams; 1 is greedy")
    add("--max-tokens", type=int, help="that are written at most")
    add("--bench", action="store_true", help="measure; --text or --file say on what")
    add("--seconds", type=float, default=5.0, help="of measuring")
    add("--watts", type=float, help="what an external meter shows, for boards without a sensor")
    add("--versus", help="another bundle, measured in turns with this one")
    add(
        "--save-times",
        action="store_true",
        help="with --bench: keep the milliseconds of blocks, "
        "which --rule optimal and --deadline-ms then use",
    )
    add("--selftest", action="store_true", help="compare with the reference of the bundle")
    return made
