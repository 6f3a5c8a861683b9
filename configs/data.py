"""Data sets by name."""

import dataclasses

from jaxkd.data.rows.alfred_steps import AlfredSteps
from jaxkd.data.rows.labelled import Labelled
from jaxkd.data.rows.pairs import Pairs
from jaxkd.data.rows.text import CausalText, MaskedText, Text

# Of embedded sentences, which are short: one width of batches is one compilation of each program.
ONE_WIDTH = {"length": 32, "shortest": 32}


def wikitext2(length: int = 128) -> MaskedText:
    """WikiText-2 under bert-base-uncased: a folder, $JAXKD_DATA/wikitext-2, or the hub."""
    return MaskedText(length=length)


def causal_wikitext2(length: int = 128, vocabulary: int = 8192) -> CausalText:
    """WikiText-2 from left to right, under a WordPiece vocabulary trained on it."""
    return CausalText(length=length, tokenizer="trained", trained_size=vocabulary)


def llama_wikitext2(length: int = 1025) -> CausalText:
    """WikiText-2 from left to right, under Llama 2's own tokens."""
    return CausalText(length=length, tokenizer="meta-llama/Llama-2-7b-hf")


def sst2(embedded: bool = False) -> Labelled:
    """SST-2 under the tokens of bert-base-uncased that it uses; embedded: its stand-in."""
    if embedded:
        return Labelled(
            origin="embedded", tokenizer="trained", trained_size=1024, trim=True, **ONE_WIDTH
        )
    return Labelled(trim=True)


def multi30k(embedded: bool = False) -> Pairs:
    """Multi30k, English to German, under subwords of both; embedded: a word-reversal stand-in."""
    if embedded:
        return Pairs(
            origin="embedded", trained_size=600, read=48, write=48, rows=256, shares=(1.0,)
        )
    return Pairs(trained_size=4000, read=64, write=80)


def alfred(embedded: bool = False) -> Pairs:
    """ALFRED: goal and step instructions to sub-goals, their objects and manipulation actions.

    embedded: a word-reversal stand-in.
    """
    if embedded:
        return dataclasses.replace(
            multi30k(embedded=True), corpus="alfred", languages=("both", "manipulations")
        )
    return Pairs(
        corpus="alfred", languages=("both", "manipulations"), trained_size=2000, read=256, write=96,
        cut=True,
    )  # fmt: skip


def noisy_letters(rows: int = 0) -> Pairs:
    """Sentences to recover from repeated and replaced letters (CTC); a token for each letter."""
    return Pairs(
        corpus="noisy_letters", trained_size=261, read=64, write=32, rows=rows, shares=(0.5, 1.0),
        ctc=True,
    )  # fmt: skip


def alfred_tasks(embedded: bool = False) -> AlfredSteps:
    """ALFRED's plans, one step a row; embedded: a stand-in made of the Python docs."""
    if embedded:
        return AlfredSteps(origin="embedded", trained_size=600, length=16, rows=128)
    return AlfredSteps()


def scan(division: str = "simple") -> Pairs:
    """SCAN's commands and actions in one of its divisions."""
    return Pairs(
        corpus="scan", languages=(division, "actions"), trained_size=400, read=24, write=256
    )


def scitldr(embedded: bool = False) -> Pairs:
    """SciTLDR's abstracts, cut where they are long, and their summaries of one sentence."""
    if embedded:
        return dataclasses.replace(multi30k(embedded=True), corpus="scitldr")
    return Pairs(corpus="scitldr", trained_size=8000, read=256, write=64, cut=True)


def qwen_tldr() -> Pairs:
    """Reddit's posts and their TL;DR, under the tokens of Qwen 1.5, for its decoders."""
    return Pairs(
        corpus="tldr", tokenizer="Qwen/Qwen1.5-MoE-A2.7B", read=512, write=128, cut=True,
        joined="\n\nTL;DR:", shares=(0.8, 1.0),
    )  # fmt: skip


def gsm8k(tokenizer: str = "trained", embedded: bool = False) -> Pairs:
    """GSM8K's questions, and answers with their reasoning, for decoders."""
    if embedded:
        return dataclasses.replace(multi30k(embedded=True), corpus="gsm8k", joined=" Answer:")
    return Pairs(
        corpus="gsm8k", tokenizer=tokenizer, trained_size=2000, read=256, write=256, cut=True,
        joined=" Answer:",
    )  # fmt: skip


def embedded(length: int = 64, rows: int = 0, kind: type[Text] = MaskedText) -> Text:
    """The prose of the Python docs, under a small vocabulary trained on it; no network."""
    return kind(origin="embedded", tokenizer="trained", trained_size=2048, length=length, rows=rows)
