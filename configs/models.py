"""Model sizes by name."""

import dataclasses

from jaxkd.models import llama as llama_family
from jaxkd.models import lstm as lstm_family
from jaxkd.models import marian as marian_family
from jaxkd.models import roberta as roberta_family
from jaxkd.models import seq2seq
from jaxkd.models.bert import Config


def bert(size: str) -> Config:
    """A BERT for masked language modelling; the vocabulary follows the tokenizer.

    tiny: for tests; mini: trains in minutes on two cores (tanh GELU, no dropout, since one pass
    over the text cannot be memorised); paper: BERT's width, 4 layers, as in the original project;
    base: bert-base-uncased.
    """
    sizes = {
        "tiny": Config(
            layers=2, width=32, heads=2, feed_forward=64, max_length=64, activation="gelu_new",
            dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0,
        ),
        "mini": Config(
            layers=4, width=128, heads=4, feed_forward=512, max_length=32, activation="gelu_new",
            dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0,
        ),
        "paper": Config(layers=4, max_length=128),
        "base": Config(),
    }  # fmt: skip
    return sizes[size]


def llama(size: str, role: str) -> llama_family.Config:
    """A Llama teacher, and students of a quarter and half its width (narrow, wide).

    The vocabulary follows the tokenizer, and the embedding is tied to the head: at these sizes it
    is most of the parameters. smoke: for tests; mini: trains in minutes on two cores. llama:
    students of Llama-2-7b, with 0.47 and 1.36 billion parameters.
    """
    if size == "llama":
        width, inner = {"narrow": (1024, 4096), "wide": (2048, 5632)}[role]
        return llama_family.Config(
            layers=24, width=width, heads=16, feed_forward=inner, compute="bfloat16"
        )
    width, deepest = {"smoke": (32, 2), "mini": (256, 4)}[size]
    fewer, share = {"teacher": (1, 1), "wide": (2, 2), "narrow": (2, 4)}[role]
    layers, width = deepest // fewer, width // share
    return llama_family.Config(
        layers=layers, width=width, heads=max(2, width // 32), feed_forward=3 * width,
        max_length=128, tied=True, compute="bfloat16",
    )  # fmt: skip


def bert_ctc(size: str, role: str) -> Config:
    """A BERT with a label or a blank at each position; the vocabulary follows the tokenizer.

    smoke: for tests; mini: a teacher trains in minutes on two cores, its student has a seventh of
    the parameters.
    """
    if size == "smoke":
        return dataclasses.replace(bert("tiny"), layers={"teacher": 2, "student": 1}[role])
    layers, width = {"teacher": (4, 192), "student": (2, 96)}[role]
    return Config(
        layers=layers, width=width, heads=width // 32, feed_forward=4 * width, max_length=64,
        activation="gelu_new", dropout=0.1, attention_dropout=0.1,
    )  # fmt: skip


def roberta_multi_task(size: str) -> roberta_family.Config:
    """A RoBERTa of twelve layers for several tasks; classes and vocabulary follow the data.

    smoke: two narrow layers, for tests. Attention weights have no dropout, with which a step of
    mini takes 1.5 times as long for 32 rows of 256 tokens (4.5 s and 2.9 a step, one run each, on
    one core of a Xeon with AMX, another training beside it, with the allocator's defaults).
    """
    layers, width = {"smoke": (2, 32), "mini": (12, 128)}[size]
    return roberta_family.Config(
        layers=layers, width=width, heads=max(2, width // 32), feed_forward=4 * width,
        max_length=258, head="multi_task", attention_dropout=0.0, compute="bfloat16",
    )  # fmt: skip


def llama_gsm8k(size: str, role: str) -> llama_family.Config:
    """A decoder that continues a question with its answer; the student has half of the width.

    The vocabulary follows the tokenizer. smoke: for tests; mini: trains on two cores.
    """
    config = llama(size, {"student": "wide"}.get(role, role))
    return dataclasses.replace(config, max_length=512)


def seq2seq_model(kind: str, size: str, role: str) -> seq2seq.Config:
    """An encoder-decoder teacher, and a student of a seventh or a quarter of its parameters.

    Vocabulary and its special tokens follow the tokenizer. kind: transformer (in Marian's form) or
    lstm. smoke: for tests; mini: a teacher trains in half an hour on one core.
    """
    widths = {"smoke": {"teacher": 32, "student": 16}, "mini": {"teacher": 256, "student": 128}}
    width = widths[size][role]
    layers = {"teacher": 3, "student": 1}[role] if size == "mini" else 1
    # Token vectors times sqrt(width), and the output of a layer, then have a variance of about 1.
    common = dict(width=width, init_std=width**-0.5, compute="bfloat16")
    if kind == "lstm":
        layers = min(layers, 2)
        return lstm_family.Config(layers=layers, encoder_layers=layers, dropout=0.2, **common)
    return marian_family.Config(
        layers=layers, encoder_layers=layers, heads=max(2, width // 64), feed_forward=4 * width,
        max_length=512, dropout=0.1, **common,
    )  # fmt: skip
