"""What is said of a row's logits: classes with their scores, numbers, labels of tokens."""

import numpy as np

from jaxkd.device import rules


def described_answer(model, logits, tokens):
    """(a dict for --json, words) of one row.

    Scores are those of transformers' pipelines: softmax over classes, sigmoids where several labels
    may hold at once, the number itself of a regression.

    Args:
      model: the manifest's description of the model.
      tokens: of the row; logits of more positions are of padding.
    """
    labels, kind = list(model["labels"]), model.get("problem_type") or ""
    if model["head"] == "multi_task":
        return _tasks(labels, logits)
    if logits.ndim > 1:
        logits = logits[:tokens]
        result = {"shape": list(logits.shape), "logits": logits.tolist()}
        if len(labels) != logits.shape[-1]:
            return result, f"shape {logits.shape}"
        result["labels"] = [labels[i] for i in logits.argmax(-1)]
        return result, " ".join(result["labels"])
    one = len(logits) == 1
    if kind == "regression" or (one and not kind):
        values = [float(value) for value in logits]
        names = ["value"] if one else labels
        return dict(zip(names, values)), " ".join(f"{value:.4g}" for value in values)
    if one or kind == "multi_label_classification":
        scores = 1 / (1 + np.exp(-logits.astype(float)))
        chosen = [label for label, score in zip(labels, scores) if score >= 0.5]
        result = {"labels": chosen, "scores": _named(labels, scores)}
        return result, " ".join(chosen) or "none"
    scores = np.exp(rules.log_softmax(logits))
    result = {"label": labels[int(logits.argmax())], "scores": _named(labels, scores)}
    return result, f"{result['label']}  {scores.max():.3f}"


def _tasks(labels, logits):
    """Labels are TASK:CLASS; a task with fewer classes has scores that never win."""
    tasks, words = {}, []
    names = []
    for label in labels:
        if label.split(":")[0] not in names:
            names.append(label.split(":")[0])
    for number, task in enumerate(names):
        own = [label.split(":", 1)[1] for label in labels if label.split(":")[0] == task]
        scores = np.exp(rules.log_softmax(logits[number][: len(own)]))
        tasks[task] = {"label": own[int(scores.argmax())], "scores": _named(own, scores)}
        words.append(f"{task}: {tasks[task]['label']} {scores.max():.3f}")
    return {"tasks": tasks}, ", ".join(words)


def _named(labels, scores):
    return {label: float(score) for label, score in zip(labels, scores)}
