"""A bundle under the options of the command line: answers, measures, times of this machine."""

import json
import os
import time

import numpy as np

from jaxkd.device import bench as benchmarks
from jaxkd.device import rules
from jaxkd.device.decoding import TOKENS, Beam, search
from jaxkd.device.errors import DamagedBundle, UsageError
from jaxkd.device.folder import entry, whole_number
from jaxkd.device.options import RULES
from jaxkd.device.scores import described_answer
from jaxkd.device.tokenizer import Tokenizer

TIMES = "times.json"  # of the blocks on this machine, beside the bundle's own files


class Runner:
    """Answers and measures one bundle."""

    def __init__(self, bundle, args, folder):
        self.bundle, self.args, self.folder = bundle, args, folder
        self.model = bundle.model
        self.described = entry(bundle.manifest, "model", dict)
        entry(self.described, "labels", list, "the model")
        entry(self.described, "head", str, "the model")
        self._tokenizer = None
        if bundle.writes and (args.rule or args.patience or args.price or args.deadline_ms):
            raise UsageError("rules and deadlines are for models that answer in one pass.")
        self.times = self._times()
        self.rule = self._rule()

    @property
    def tokenizer(self):
        """Made when a text is first read or written; None where the bundle has none."""
        name = self.bundle.manifest.get("tokenizer")
        if self._tokenizer is None and name is not None:
            content = self.bundle.folder.read(name)
            try:
                self._tokenizer = Tokenizer(content.decode("utf-8"))
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedBundle(f"{name} cannot be read: {error!r}.") from error
        return self._tokenizer

    def settings(self):
        """How a text is written: the manifest's, then the command line's."""
        settings = dict(entry(self.bundle.manifest, "generation", dict))
        for name, value in (("width", self.args.beam), ("max_tokens", self.args.max_tokens)):
            if value is not None:
                settings[name] = value
        return settings

    def inputs(self):
        """(ids, segments) of each text."""
        args, pairs = self.args, []
        if args.pair and len(args.pair) != len(args.text):
            raise UsageError(f"there are {len(args.text)} --text and {len(args.pair)} --pair.")
        pairs += list(zip(args.text, args.pair or [None] * len(args.text)))
        if args.file:
            pairs += lines_of(args.file)
        most = whole_number(self.described, "max_length", 1, "the model")
        prompts = self.bundle.writes and not hasattr(self.model, "read")
        if prompts:  # room for what is written
            most = max(most // 2, most - self.settings().get("max_tokens", TOKENS))
        longest = min(args.max_length or most, most)
        positions = self.described["max_length"]
        made = []
        if pairs and self.tokenizer is None:
            raise UsageError("the bundle has no tokenizer; give tokens with --ids.")
        for text, pair in pairs:
            ids, segments = self.tokenizer.encode(text, pair, longest)
            if prompts and len(ids) > 1 and ids[-1] in self.settings().get("eos_ids", ()):
                ids, segments = ids[:-1], segments[:-1]  # nothing would be left to continue
            made.append((ids, segments))
        for text in args.ids:
            try:
                ids = [int(each) for each in text.split(",")]
            except ValueError:
                raise UsageError(f"--ids {text}: numbers with commas between are needed.") from None
            ids = ids[: args.max_length or positions]
            made.append((ids, [0] * len(ids)))
        if not made:
            raise UsageError("there is no text: give --text, --file or --ids; or --selftest.")
        table = getattr(self.model, "source_tokens", self.model.tokens)
        for ids, _ in made:
            if not ids:
                raise UsageError("a text has no token.")
            if not 0 <= min(ids) <= max(ids) < table.size:
                raise UsageError(
                    f"token ids are from {min(ids)} to {max(ids)}; the model knows 0 to "
                    f"{table.size - 1}."
                )
        return made

    def answers(self, inputs):
        """Lines to print, of these inputs together."""
        if self.bundle.writes:
            return [line for each in inputs for line in self._written(each)]
        start = time.perf_counter()
        answer = self._answer(inputs)
        lines = []
        for row in range(len(inputs)):
            logits = answer.logits[row]
            result = {
                "exit": answer.exits[row],
                "blocks": int(answer.blocks[row]),
                "milliseconds": 1000 * (time.perf_counter() - start),
            }
            more, words = described_answer(self.described, logits, len(inputs[row][0]))
            result.update(more)
            lines.append(
                json.dumps(result)
                if self.args.json
                else f"{words}  ({result['blocks']} of {len(self.model.stack.blocks)} blocks)"
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
        """What --bench prints; `python -m jaxkd.report.boards` makes a table of it."""
        manifest = self.bundle.manifest
        measured = manifest.get("measured") or {}
        result = {
            "machine": benchmarks.versions(),
            "model": {name: manifest["model"][name] for name in MODEL},
            "weights": manifest["weights"],
            "bits": manifest.get("bits"),
            # What jaxkd measured of this bundle when it was written.
            "measured": measured.get(manifest.get("measured_as")),
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
        settings = self.settings()
        n_best = settings.pop("n_best", 1)
        reads = hasattr(self.model, "read")
        # The last token is not fed.
        room = self.model.max_length - (1 if reads else len(each[0])) + 1
        settings["max_tokens"] = min(settings.get("max_tokens", TOKENS), room)
        if room < 1:
            raise UsageError(
                f"a prompt of {len(each[0])} tokens leaves no room in {self.model.max_length}."
            )
        try:
            beam = Beam(**settings)
        except TypeError as error:
            raise DamagedBundle(f"the manifest's generation: {error}.") from error
        prompt = np.array(each[0], np.int64)
        if reads:
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
        try:
            with open(file) as stream:
                parts = dict(json.load(stream))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{file} cannot be read ({error}): remove it.") from error
        names = [f"block_{i:02d}" for i in range(len(self.model.stack.blocks))]
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

    def save_times(self, parts):
        """Keep the milliseconds of the parts for later runs on this machine."""
        names = [f"block_{i:02d}" for i in range(len(self.model.stack.blocks))]
        if not all(name in parts for name in names):
            raise UsageError(
                "no input reached all blocks: --save-times needs --bench without a rule."
            )
        try:
            with open(os.path.join(self.folder, TIMES), "w") as stream:
                json.dump(parts, stream, indent=1)
        except OSError as error:
            raise UsageError(f"{TIMES} cannot be written: {error}.") from error


MODEL = ("family", "head", "layers", "width")  # what says which model was measured


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
