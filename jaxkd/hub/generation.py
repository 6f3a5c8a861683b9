"""Defaults of transformers' `generate`: read from a folder's two config files, and written back."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxkd.hub.tensors import read_json

FILE = "generation_config.json"
TOKENS = ("bos_token_id", "eos_token_id")
# Keys of config.json that `generate` obeys where there is no generation_config.json.
OLD_KEYS = (
    *TOKENS,
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
)
_OF_THE_FILE = ("transformers_version", "_from_model_config")  # said anew by who writes


def read_generation(folder: pathlib.Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a folder's model; `stored` is its config.json with absent keys filled in.

    Keys and values are those of generation_config.json; keys that are null are left out. Token ids
    that the file does not name come from config.json.
    """
    file = folder / FILE
    own = read_json(file) if file.is_file() else {key: stored.get(key) for key in OLD_KEYS}
    tokens = {key: stored.get(key) for key in TOKENS}
    merged = tokens | {key: value for key, value in own.items() if value is not None}
    return {k: v for k, v in merged.items() if v is not None and k not in _OF_THE_FILE}


def write_generation(folder: pathlib.Path, described: Mapping[str, Any], generation: Any) -> None:
    """Write generation_config.json for a model whose config.json is `described`."""
    keys = (*TOKENS, "pad_token_id", "decoder_start_token_id")
    ids = {key: described[key] for key in keys if described.get(key) is not None}
    if described.get("is_encoder_decoder"):  # our fields say which; the old file may not
        fixed = {key: ids[key] for key in ("decoder_start_token_id",) if key in ids}
    else:
        fixed = {}
    content = ids | dict(generation) | fixed
    (folder / FILE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def tokens_of(tokenizer: Any) -> dict[str, int]:
    """Beginning and end of a text by the ids of a transformers tokenizer, for a model without."""
    first = {
        "bos_token_id": (tokenizer.bos_token_id, tokenizer.cls_token_id),
        "eos_token_id": (tokenizer.eos_token_id, tokenizer.sep_token_id),
    }
    return {
        key: next(number for number in ids if number is not None)
        for key, ids in first.items()
        if any(number is not None for number in ids)
    }


def eos_ids(generation: Mapping[str, Any], default: int | None = None) -> tuple[int, ...]:
    """Tokens that end a text; `default` where the model names none."""
    ids = generation.get("eos_token_id", default)
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list | tuple) else (ids,)


def suppressed_ids(generation: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that are never written: `suppress_tokens`, and `bad_words_ids` of one token."""
    words = generation.get("bad_words_ids") or []
    single = [word[0] for word in words if len(word) == 1]
    return tuple(sorted({*(generation.get("suppress_tokens") or ()), *single}))
