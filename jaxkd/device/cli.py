"""What the command line of a bundle does; its options are in options.py."""

import json
import os
import sys
import time
import zipfile

import numpy as np

from jaxkd.device import bench as benchmarks
from jaxkd.device.bundle import Bundle
from jaxkd.device.errors import NoMemory, RunnerError, UsageError
from jaxkd.device.options import parser
from jaxkd.device.runner import Runner


def main(argv=None, folder="."):
    """Runs; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        run(args, folder)
    except RunnerError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    except MemoryError:
        sys.stderr.write("out of memory: give a smaller --budget-mb, or int8 weights.\n")
        return NoMemory.code
    return 0


def run(args, folder):
    length = 1 if args.max_length is None else args.max_length
    if args.batch < 1 or length < 1 or args.threads < 0 or not args.seconds > 0:
        raise UsageError("--batch, --max-length and --seconds are above 0, --threads not below.")
    if args.budget_mb is not None and not args.budget_mb > 0:
        raise UsageError(f"--budget-mb is {args.budget_mb:g}; it is above 0.")
    budget = None if args.budget_mb is None else args.budget_mb * 1e6
    if args.save_times and not args.bench:
        raise UsageError("--save-times goes with --bench.")
    if args.threshold is not None and args.rule not in ("entropy", "confidence"):
        raise UsageError("--threshold goes with --rule entropy or --rule confidence.")
    args.text, args.pair = ([unicode_of(text) for text in each] for each in (args.text, args.pair))
    bundle = opened(folder, budget, args)
    if args.selftest:
        difference, allowed = bundle.check_reference()
        print(f"largest difference to jaxkd {difference:.3g}, allowed {allowed:.3g}: right")
        return
    if bundle.divided:
        return run_divided(bundle, args)
    runner = Runner(bundle, args, folder)
    inputs = runner.inputs()
    if args.versus:
        rival = opened(args.versus, budget, args)
        if rival.divided:
            raise UsageError("--versus compares bundles of models; that folder is a divided one.")
        other = Runner(rival, args, args.versus)
        versus(runner, other, inputs, other.inputs(), args)
    elif args.bench:
        result = runner.bench(inputs)
        print(json.dumps(result, indent=1))
        if args.save_times:
            runner.save_times(result["parts"])
    else:
        for start in range(0, len(inputs), args.batch):
            for line in runner.answers(inputs[start : start + args.batch]):
                write_line(line)


def unicode_of(argument):
    """An argument as UTF-8, whatever the locale took its bytes for."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"a text is no UTF-8: {error}.") from error


def write_line(line):
    """A line of UTF-8, whatever the locale."""
    content = f"{line}\n".encode()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(content.decode("utf-8"))


def run_divided(bundle, args):
    """One run of a divided model, or what --bench says of it."""
    if not args.inputs:
        names = ", ".join(sorted(bundle.model.inputs))
        raise UsageError(f"give the model's inputs with --inputs FILE.npz: {names}.")
    try:
        with np.load(args.inputs) as arrays:
            feeds = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"--inputs {args.inputs} cannot be read: {error}.") from error
    if args.bench:

        def answer(feeds):
            bundle.model(feeds)
            return len(bundle.model.steps), bundle.model.parts

        result = {
            "machine": benchmarks.versions(),
            "memory_by_layer": benchmarks.memory_by_layer(lambda after: bundle.model(feeds, after)),
        }
        result.update(benchmarks.bench(bundle, answer, [feeds], args.seconds, watts=args.watts))
        print(json.dumps(result, indent=1))
        return
    outputs = bundle.model(feeds)
    for name, array in outputs.items():
        print(f"{name}  {array.dtype} {array.shape}")
    if args.output:
        try:
            with zipfile.ZipFile(args.output, "w") as archive:
                for name, array in outputs.items():
                    with archive.open(f"{name}.npy", "w") as stream:
                        np.lib.format.write_array(stream, np.asarray(array))
        except OSError as error:
            raise UsageError(f"--output {args.output} cannot be written: {error}.") from error


def opened(folder, budget, args):
    """The bundle within the memory that the options allow."""
    length = args.max_length or 128
    return Bundle(
        folder, budget, args.threads, args.batch, length, args.window, args.beam, args.max_tokens
    )


def versus(first, second, inputs, others, args):
    """Both bundles in turns on the same texts: medians, and the ratio of pairs."""
    for each, other in list(zip(inputs, others))[:3]:
        first.answer(each)
        second.answer(other)
    times, start = ([], []), time.perf_counter()
    while not times[0] or time.perf_counter() - start < args.seconds:
        for each, other in zip(inputs, others):
            for own, runner, one in ((times[0], first, each), (times[1], second, other)):
                before = time.perf_counter()
                runner.answer(one)
                own.append(1000 * (time.perf_counter() - before))
    ratios = np.array(times[0]) / np.array(times[1])
    print(
        json.dumps(
            {
                "machine": benchmarks.versions(),
                "this": dict(benchmarks.percentiles(times[0]), folder=str(first.folder)),
                "other": dict(benchmarks.percentiles(times[1]), folder=str(second.folder)),
                "this_over_other": {
                    "median": float(np.median(ratios)),
                    "quartiles": [float(np.percentile(ratios, p)) for p in (25, 75)],
                },
                "inferences": len(times[0]),
            },
            indent=1,
        )
    )
