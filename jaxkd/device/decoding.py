"""Greedy and beam search over a model that predicts the next token; names as in `generate`."""

import numpy as np

from jaxkd.device.errors import UsageError
from jaxkd.device.rules import log_softmax

NEVER = np.float32(-1e9)
TOKENS = 64  # that are written at most, if nobody says
EARLY = ("true", "false", "never")


class Beam:
    """How a beam searches; width 1 is greedy."""

    def __init__(
        self,
        width=1,
        max_tokens=TOKENS,
        min_tokens=0,
        length_penalty=1.0,
        early_stopping="false",
        eos_ids=(),
        suppress_tokens=(),
    ):
        if width < 1 or max_tokens < 1 or not 0 <= min_tokens <= max_tokens:
            raise UsageError(
                f"beam {width}, at least {min_tokens} and at most {max_tokens} "
                "tokens: a beam is 1 or more wide and writes a token at least."
            )
        if early_stopping not in EARLY:
            raise UsageError(
                "early_stopping is {!r}; allowed: {}.".format(early_stopping, ", ".join(EARLY))
            )
        self.width, self.max_tokens, self.min_tokens = width, max_tokens, min_tokens
        self.length_penalty, self.early_stopping = length_penalty, early_stopping
        self.eos_ids = np.array(sorted(eos_ids), np.int64)
        self.suppress_tokens = np.array(sorted(suppress_tokens), np.int64)


def search(model, beam, prompt):
    """The best continuations of one prompt: (tokens, score) each, best first.

    Args:
      model: has `first(prompt)` -> logits [1, V] and `next(tokens, parents)` -> logits [K, V],
        where beam k continues what beam parents[k] of the step before wrote.
      prompt: int64 [L].
    """
    logits = model.first(prompt)
    running = np.zeros(1, np.float32)  # log-probability of each beam
    written = np.zeros((1, 0), np.int64)
    finished = []  # (score, tokens), best first
    for count in range(1, beam.max_tokens + 1):
        total, parents, tokens = _candidates(logits, running, beam, count)
        ended = np.isin(tokens, beam.eos_ids) | (count == beam.max_tokens)
        for k in np.flatnonzero(ended[: beam.width]):  # only among the best may one end
            score = float(total[k] / np.float32(count) ** np.float32(beam.length_penalty))
            if total[k] > NEVER / 2:
                finished.append((score, np.append(written[parents[k]], tokens[k])))
        finished = sorted(finished, key=lambda each: -each[0])[: beam.width]
        going_on = np.flatnonzero(~ended)[: beam.width]
        if not len(going_on):
            break
        parents, tokens, running = parents[going_on], tokens[going_on], total[going_on]
        written = np.concatenate([written[parents], tokens[:, None]], 1)
        if _done(beam, finished, running, count):
            break
        logits = model.next(tokens, parents)
    return [(tokens, score) for score, tokens in finished]


def _candidates(logits, running, beam, count):
    """The best continuations of all beams: log-probability, parent, token; best first."""
    log_probs = log_softmax(logits)
    if len(beam.suppress_tokens):
        log_probs[:, beam.suppress_tokens] += NEVER
    if count - 1 < beam.min_tokens and len(beam.eos_ids):
        log_probs[:, beam.eos_ids] += NEVER
    needed = min((1 + len(beam.eos_ids)) * beam.width, log_probs.size)
    total = (log_probs + running[:, None]).reshape(-1)
    best = np.argpartition(-total, needed - 1)[:needed]
    best = best[np.argsort(-total[best], kind="mergesort")]
    return total[best], best // log_probs.shape[1], best % log_probs.shape[1]


def _done(beam, finished, running, count):
    """Whether no running beam can still become one of the best."""
    if len(finished) < beam.width:
        return False
    if beam.early_stopping == "true" or beam.width == 1:
        return True
    longest = beam.early_stopping == "never" and beam.length_penalty > 0
    length = np.float32(beam.max_tokens if longest else count)
    return running[0] / length ** np.float32(beam.length_penalty) <= finished[-1][0]
