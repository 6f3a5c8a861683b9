"""What the command line of a bundle does; its options are in options.py."""

import json
import os
import sys
import time

import numpy as np

from jaxkd.device import bench as benchmarks
from jaxkd.device import rules
from jaxkd.device.bundle import Bundle
from jaxkd.device.decoding import Beam, search
from jaxkd.device.errors import RunnerError, UsageError
from jaxkd.device.folder import entry
from jaxkd.device.options import RULES, parser
from jaxkd.device.tokenizer import Tokenizer

TIMES = "times.json"  # of the blocks on this machine, beside the bundle's own files


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
        return 4
    return 0


def run(args, folder):
    if args.batch < 1 or (args.max_length or 1) < 1 or args.threads < 0 or not args.seconds > 0:
        raise UsageError("--batch, --max-length and --seconds are above 0, --threads not below.")
    if args.budget_mb is not None and not args.budget_mb > 0:
        raise UsageError(f"--budget-mb is {args.budget_mb:g}; it is above 0.")
    budget = None if args.budget_mb is None else args.budget_mb * 1e6
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
        other = Runner(opened(args.versus, budget, args), args, args.versus)
        versus(runner, other, inputs, other.inputs(), args)
    elif args.bench:
        print(json.dumps(runner.bench(inputs), indent=1))
    else:
        for start in range(0, len(inputs), args.batch):
            for line in runner.answers(inputs[start : start + args.batch]):
                print(line)
                sys.stdout.flush()


def run_divided(bundle, args):
    """One run of a divided model, or what --bench says of it."""
    if not args.inputs:
        names = ", ".join(sorted(bundle.model.inputs))
        raise UsageError(f"give the model's inputs with --inputs FILE.npz: {names}.")
    try:
        with np.load(args.inputs) as arrays:
            feeds = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
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
        np.savez(args.output, **outputs)


def opened(folder, budget, args):
    """The bundle under what was asked of memory."""
    length = args.max_length or 128
    return Bundle(folder, budget, args.threads, args.batch, length, window=args.window)


class Runner:
    """One bundle with what was asked of it."""

    def __init__(self, bundle, args, folder):
        self.bundle, self.args, self.folder = bundle, args, folder
        self.model = bundle.model
        self.described = entry(bundle.manifest, "model", dict)
        name, self.tokenizer = bundle.manifest.get("tokenizer"), None
        if name is not None:
            self.tokenizer = Tokenizer(bundle.folder.read(name).decode("utf-8"))
        self.times = self._times()
        self.rule = self._rule()

    def inputs(self):
        """(ids, segments) of each text."""
        args, pairs = self.args, []
        if args.pair and len(args.pair) != len(args.text):
            raise UsageError(f"there are {len(args.text)} --text and {len(args.pair)} --pair.")
        pairs += list(zip(args.text, args.pair or [None] * len(args.text)))
        if args.file:
            pairs += lines_of(args.file)
        longest = min(args.max_length or self.described["max_length"], self.described["max_length"])
        made = []
        if pairs and self.tokenizer is None:
            raise UsageError("the bundle has no tokenizer; give tokens with --ids.")
        for text, pair in pairs:
            ids, segments = self.tokenizer.encode(text, pair, longest)
            made.append((ids, segments))
        for text in args.ids:
            try:
                ids = [int(each) for each in text.split(",")]
            except ValueError:
                raise UsageError(f"--ids {text}: numbers with commas between are needed.") from None
            made.append((ids[:longest], [0] * len(ids[:longest])))
        if not made:
            raise UsageError("there is no text: give --text, --file or --ids; or --selftest.")
        for ids, _ in made:
            if not ids:
                raise UsageError("a text has no token.")
        return made

    def answers(self, inputs):
        """Lines to print, of these inputs together."""
        if self.bundle.writes:
            return [line for each in inputs for line in self._written(each)]
        start = time.perf_counter()
        answer = self._answer(inputs)
        labels = self.described["labels"]
        lines = []
        for row in range(len(inputs)):
            logits = answer.logits[row]
            result = {
                "exit": answer.exits[row],
                "blocks": int(answer.blocks[row]),
                "milliseconds": 1000 * (time.perf_counter() - start),
            }
            if logits.ndim > 1:
                logits = logits[: len(inputs[row][0])]
                result["shape"] = list(logits.shape)
                if len(labels) == logits.shape[-1]:
                    result["labels"] = [labels[i] for i in logits.argmax(-1)]
                result["logits"] = logits.tolist()
                words = " ".join(result.get("labels", [f"shape {logits.shape}"]))
            elif len(logits) == 1:
                result["value"] = float(logits[0])
                words = f"{logits[0]:.4g}"
            else:
                scores = np.exp(rules.log_softmax(logits))
                result["label"] = labels[int(logits.argmax())]
                result["scores"] = {label: float(s) for label, s in zip(labels, scores)}
                words = "{}  {:.3f}".format(result["label"], scores.max())
            lines.append(
                json.dumps(result)
                if self.args.json
                else (f"{words}  ({result['blocks']} of {len(self.model.stack.blocks)} blocks)")
            )
        return lines

    def answer(self, each):
        """One input, for measuring: blocks that ran, and milliseconds of the parts."""
        if self.bundle.writes:
            self._search(each)
            return len(self.model.stack.blocks), []
        answer = self._answer([each])
        return int(answer.blocks[0]), answer.parts

    def bench(self, inputs):
        """What --bench prints."""
        result = {
            "machine": benchmarks.versions(),
            "weights": self.bundle.manifest["weights"],
            "bits": self.bundle.manifest.get("bits"),
            "rule": self.rule_name,
        }
        if not self.bundle.writes:
            result["memory_by_layer"] = benchmarks.memory_by_layer(
                lambda after: self._answer(inputs[:1], after)
            )
        result.update(
            benchmarks.bench(
                self.bundle, self.answer, inputs, self.args.seconds, watts=self.args.watts
            )
        )
        if self.args.save_times:
            self._save_times(result["parts"])
        return result

    def _answer(self, inputs, after_block=None):
        length = max(len(ids) for ids, _ in inputs)
        ids, mask, segments = (np.zeros((len(inputs), length), np.int64) for _ in range(3))
        for row, (own, own_segments) in enumerate(inputs):
            ids[row, : len(own)], mask[row, : len(own)] = own, 1
            segments[row, : len(own)] = own_segments
        return self.model(
            ids, mask, segments, self.rule, self.args.deadline_ms, self.times, after_block
        )

    def _written(self, each):
        start = time.perf_counter()
        for tokens, score in self._search(each):
            text = None if self.tokenizer is None else self.tokenizer.decode(tokens)
            if self.args.json or text is None:
                yield json.dumps(
                    {
                        "text": text,
                        "ids": [int(i) for i in tokens],
                        "score": score,
                        "milliseconds": 1000 * (time.perf_counter() - start),
                    }
                )
            else:
                yield text

    def _search(self, each):
        """The best continuations, as many as the manifest says."""
        settings = dict(entry(self.bundle.manifest, "generation", dict))
        n_best = settings.pop("n_best", 1)
        for name, value in (("width", self.args.beam), ("max_tokens", self.args.max_tokens)):
            if value is not None:
                settings[name] = value
        beam = Beam(**settings)
        prompt = np.array(each[0], np.int64)
        if hasattr(self.model, "read"):
            self.model.read(prompt[None], np.ones((1, len(prompt)), np.int64))
            prompt = np.array([self.model.start], np.int64)
        return search(self.model, beam, prompt)[:n_best]

    def _rule(self):
        args = self.args
        name = args.rule or (
            "optimal"
            if args.price is not None
            else "patience"
            if args.patience is not None
            else "none"
        )
        self.rule_name = name
        tolerance = (self.bundle.manifest.get("policies") or {}).get("tolerance", 0.1)
        if name == "patience":
            self.rule_name = f"patience {args.patience}"
            if args.patience is None:
                raise UsageError("--rule patience needs --patience.")
            return rules.Patience(args.patience, tolerance)
        if name in ("entropy", "confidence"):
            if args.threshold is None:
                raise UsageError(f"--rule {name} needs --threshold.")
            self.rule_name = f"{name} {args.threshold:g}"
            kind = rules.Entropy if name == "entropy" else rules.Confidence
            return kind(args.threshold)
        if name == "none":
            return rules.Never()
        policies = self.bundle.manifest.get("policies")
        if policies is None:
            raise UsageError(
                "--rule optimal needs a calibration, and this bundle has none. Other "
                "rules: {}.".format(", ".join(each for each in RULES if each != name))
            )
        if args.price is None:
            raise UsageError(
                "--rule optimal needs --lambda: quality that the time of all blocks is worth."
            )
        self.rule_name = f"optimal {args.price:g}"
        return rules.optimal(policies, args.price, self._exit_times(), args.deadline_ms)

    def _times(self):
        """Milliseconds of the parts that --save-times kept on this machine; None without."""
        file = os.path.join(self.folder, TIMES)
        if not os.path.isfile(file):
            return None
        with open(file) as stream:
            parts = json.load(stream)
        names = [(f"block_{i:02d}") for i in range(len(self.model.stack.blocks))]
        if not all(isinstance(parts.get(name), (int, float)) for name in names):
            raise UsageError(
                f"{file} has not the milliseconds of all blocks: run --bench --save-times "
                "again, without a rule."
            )
        self.parts = parts
        return [parts[name] for name in names]

    def _exit_times(self):
        """Of each exit: the blocks since the exit before, and its head."""
        if self.times is None:
            return None
        spent, start = [], 0
        for number, (after, name, _) in enumerate(self.model.heads):
            own = sum(self.times[start : after + 1]) + self.parts.get(name, 0.0)
            spent.append(own + (self.parts.get("embed", 0.0) if number == 0 else 0.0))
            start = after + 1
        return spent

    def _save_times(self, parts):
        names = [(f"block_{i:02d}") for i in range(len(self.model.stack.blocks))]
        if not all(name in parts for name in names):
            raise UsageError(
                "no input reached all blocks: --save-times needs --bench without a rule."
            )
        with open(os.path.join(self.folder, TIMES), "w") as stream:
            json.dump(parts, stream, indent=1)


def lines_of(file):
    """(text, None) or (text, second text) of each line."""
    try:
        with open(file, encoding="utf-8") as stream:
            lines = stream.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--file {file} cannot be read: {error}.") from error
    pairs = []
    for line in lines:
        if line.strip():
            text, tab, pair = line.partition("\t")
            pairs.append((text, pair if tab else None))
    return pairs


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
