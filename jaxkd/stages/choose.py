"""Which of a teacher's texts a student learns: the best, the closest to a reference, the right."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from jaxkd.core.random import numpy_stream
from jaxkd.core.ranges import field
from jaxkd.data.rows.pair_rows import NOTHING
from jaxkd.metrics.text import answer_match, sentence_bleu
from jaxkd.runs.experiment import Workspace
from jaxkd.stages.generate import Generate, hypotheses
from jaxkd.stages.targets import FILE

HOW = ("best", "closest", "right", "n_best")


@dataclasses.dataclass
class Choose:
    """New targets of the training split, chosen from what a `Generate` stage wrote.

    best: the hypothesis of the highest score (sequence-level distillation). closest: the one
    closest to the reference by smoothed sentence BLEU (sequence-level interpolation). right: the
    best one with the reference's answer, the number after ####; the reference itself if there is
    none. n_best: each source as often as it has hypotheses, drawn by the teacher's probabilities
    among them, so that the mean over the rows is the mean under the teacher.
    Source: Kim and Rush (2016), arXiv:1606.07947, sections 3.2 and 3.3; Yuan et al. (2023),
    arXiv:2308.01825, for what is right.
    """

    source: str = "generated"
    how: str = field("best", one_of=HOW)  # rule by which hypotheses are chosen

    reads_text: ClassVar[bool] = True
    gives_targets: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        """Nothing but ranges, which are checked for every stage."""

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        if not isinstance(earlier[self.source], Generate):
            raise ValueError(f"source={self.source!r}: that is no Generate stage.")

    def run(self, workspace: Workspace) -> dict[str, Any]:
        written = hypotheses(workspace, self.source)
        rows = len(written["tokens"])
        numbers: dict[str, Any] = {}
        if self.how == "n_best":
            sources, which = drawn(written["log_probability"], written["scores"], workspace.seed)
        else:
            sources, which = np.arange(rows), np.zeros(rows, int)
        if self.how == "closest":
            which, numbers["sentence_bleu"] = self._closest(workspace, written)
        if self.how == "right":
            which = self._right(workspace, written)
            numbers["right"] = float(np.mean(which >= 0))
        tokens, lengths = written["tokens"][sources, which], written["lengths"][sources, which]
        end = workspace.rows.tokenizer.sep
        targets = np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, NOTHING)
        if self.how == "right":
            targets, lengths = self._else_references(workspace, targets, which < 0)
        # A hypothesis that was cut off has no end token, and the student does not learn one.
        numbers["ended"] = float(np.mean(targets[np.arange(len(targets)), lengths - 1] == end))
        np.savez(workspace.folder / FILE, targets=targets.astype(np.int32), sources=sources)
        return {"examples": len(targets), "first": float(np.mean(which == 0))} | numbers

    def _right(self, workspace: Workspace, written: dict[str, np.ndarray]) -> np.ndarray:
        """The first hypothesis of each row with the right answer; -1 where none has it."""
        decode = workspace.rows.tokenizer.decode
        which = np.full(len(written["tokens"]), -1)
        for i, references in enumerate(workspace.rows.references("train")):
            rows = zip(
                written["tokens"][i], written["lengths"][i], written["scores"][i], strict=True
            )
            for j, (tokens, n, score) in enumerate(rows):
                if score > EMPTY and answer_match([decode(tokens[:n].tolist())], [references]):
                    which[i] = j
                    break
        return which

    def _else_references(
        self, workspace: Workspace, targets: np.ndarray, missing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The targets, with references in the rows where one is missing; and their lengths."""
        own = workspace.rows.splits["train"][:, workspace.rows.source_columns :]
        wide = np.full(own.shape, NOTHING, targets.dtype)
        wide[:, : targets.shape[1]] = targets
        wide = np.where(missing[:, None], own, wide)
        return wide, (wide >= 0).sum(1)

    def _closest(
        self, workspace: Workspace, written: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, float]:
        """The hypothesis of each row closest to its references, and the mean of their BLEU."""
        decode = workspace.rows.tokenizer.decode
        references = workspace.rows.references("train")
        which, highest = np.zeros(len(references), int), np.zeros(len(references))
        workspace.display.start(workspace.name, len(references))
        for i, texts in enumerate(references):
            rows = zip(
                written["tokens"][i], written["lengths"][i], written["scores"][i], strict=True
            )
            bleu = [
                sentence_bleu(decode(tokens[:n].tolist()), texts) if score > EMPTY else -1.0
                for tokens, n, score in rows
            ]
            which[i] = int(np.argmax(bleu))
            highest[i] = bleu[which[i]]
            if i % 1000 == 999:
                workspace.display.step(i + 1, {})
        workspace.display.stop()
        return which, float(highest.mean())


EMPTY = -1e8  # lower scores fill up rows with fewer hypotheses


def drawn(
    log_probability: np.ndarray, scores: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and hypotheses: each row N times, its hypotheses by renormalised probabilities.

    Args:
      log_probability, scores: [rows, N].
    Returns: two arrays [rows * N]: row numbers, and the hypothesis drawn for each.
    """
    rows, n = log_probability.shape
    log_probs = np.where(scores > EMPTY, log_probability, -np.inf)
    shares = np.exp(log_probs - log_probs.max(1, keepdims=True))
    shares = np.cumsum(shares / shares.sum(1, keepdims=True), axis=1)
    # Systematic sampling: a hypothesis of probability p comes floor(n p) or ceil(n p) times.
    offset = numpy_stream(seed, "n best", 0).random((rows, 1))
    points = (np.arange(n) + offset) / n
    which = (points[:, :, None] > shares[:, None, :]).sum(2)
    return np.repeat(np.arange(rows), n), np.minimum(which, n - 1).ravel()
