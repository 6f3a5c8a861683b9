"""T5, T5 1.1 and FLAN-T5 under HuggingFace's names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.hub.family import Family, Head
from jaxkd.hub.names import Table
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.parts import Params
from jaxkd.models.t5 import Config

KEYS = {
    "vocabulary": "vocab_size",
    "layers": "num_decoder_layers",
    "encoder_layers": "num_layers",
    "width": "d_model",
    "head_width": "d_kv",
    "heads": "num_heads",
    "feed_forward": "d_ff",
    "dropout": "dropout_rate",
    "attention_dropout": "dropout_rate",
    "activation_dropout": "dropout_rate",
    "norm_epsilon": "layer_norm_epsilon",
    "buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance",
    "init_std": "initializer_range",  # a key of ours: theirs is a factor of other deviations
    "pad": "pad_token_id",
    "start": "decoder_start_token_id",
    "end": "eos_token_id",
}
FIXED = {"is_encoder_decoder": (True,), "quantization_config": (None,)}


def _side(ours: str, stored: str, cross: bool) -> dict[str, str]:
    """Names of one side; the layers of a block are numbered."""
    names = {
        f"{ours}embed/relative": f"{stored}.block.0.layer.0.SelfAttention.relative_attention_bias",
        f"{ours}head/norm": f"{stored}.final_layer_norm",
    }
    kinds = {"attention": "SelfAttention"} | ({"cross": "EncDecAttention"} if cross else {})
    for number, (kind, module) in enumerate(kinds.items()):
        layer = f"{stored}.block.{{i}}.layer.{number}"
        names[f"{ours}blocks/{{i}}/{kind}_norm"] = f"{layer}.layer_norm"
        for part in ("query", "key", "value", "output"):
            names[f"{ours}blocks/{{i}}/{kind}/{part}"] = f"{layer}.{module}.{part[0]}"
    layer = f"{stored}.block.{{i}}.layer.{len(kinds)}"
    names[f"{ours}blocks/{{i}}/norm"] = f"{layer}.layer_norm"
    # A gated layer has wi_0 (the gate) and wi_1, another wi: see _Names.
    for part, name in {"gate": "wi_0", "expand": "wi_1", "contract": "wo"}.items():
        names[f"{ours}blocks/{{i}}/feed_forward/{part}"] = f"{layer}.DenseReluDense.{name}"
    return names


class _Names(Table):
    """The names in a file, where a layer that is not gated is `wi`."""

    def export(self, params: Params) -> dict[str, np.ndarray]:
        tensors = super().export(params)
        if any(".wi_0." in name for name in tensors):
            return tensors
        return {name.replace(".wi_1.", ".wi."): array for name, array in tensors.items()}


class _T5(Family):
    """T5's tensors have no prefix."""

    def table(self, head: str, **options: Any) -> Table:
        return _Names(**vars(super().table(head, **options)))

    def stored(self, name: str, head: str) -> str:
        return name.removeprefix(".")


def _read(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The feed-forward, and what transformers 5 concludes from `tie_word_embeddings`."""
    gate, _, name = stored.get("feed_forward_proj", "relu").rpartition("-")
    scaled = stored.get("scale_decoder_outputs", stored.get("tie_word_embeddings") is not False)
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        raise ValueError(
            f"config.json: feed_forward_proj={stored['feed_forward_proj']!r} is not implemented; "
            "supported: an activation, or 'gated-' and one. " + did_you_mean(name, ACTIVATIONS)
        )
    return {
        "gated": bool(gate),
        "activation": "gelu_new" if (gate, name) == ("gated", "gelu") else name,
        "scaled_output": bool(scaled),
        "tied": True,  # a head of its own is seen in the file (folder._untied)
        "layers": stored.get("num_decoder_layers") or stored.get("num_layers", 6),
    }


def _write(config: Config) -> dict[str, Any]:
    """The keys that `_read` reads."""
    inner = config.encoder()
    if (inner.heads, inner.feed_forward) != (config.heads, config.feed_forward):
        raise ValueError(
            f"t5: the encoder has {inner.heads} heads and feed_forward {inner.feed_forward}, the "
            f"decoder {config.heads} and {config.feed_forward}; transformers has one number for "
            "both. Set encoder_heads and encoder_feed_forward to 0."
        )
    rates = {config.dropout, config.attention_dropout, config.activation_dropout}
    if len(rates) > 1:
        raise ValueError(f"t5: transformers has one dropout rate, and these are {sorted(rates)}.")
    if config.gated and config.activation == "gelu":
        raise ValueError("t5: transformers' 'gated-gelu' is activation='gelu_new'.")
    name = "gelu" if config.gated and config.activation == "gelu_new" else config.activation
    return {
        "feed_forward_proj": f"gated-{name}" if config.gated else name,
        "scale_decoder_outputs": config.scaled_output,
        "tie_word_embeddings": config.scaled_output,
        "is_encoder_decoder": True,
    }


def _family() -> Family:
    return _T5(
        model_type="t5",
        config=Config,
        keys=KEYS,
        fixed=FIXED,
        prefix="",
        body={
            "embed/token": "shared",
            **_side("encoder/", "encoder", cross=False),
            **_side("", "decoder", cross=True),
        },
        heads={
            "seq2seq_lm": Head(
                "T5ForConditionalGeneration",
                {"head/output": "lm_head"},
                copies={"lm_head.weight": ".shared.weight"},
            )
        },
        # The token embedding again, and a bias that old versions stored and never used.
        ignored=(
            ".encoder.embed_tokens.weight",
            ".decoder.embed_tokens.weight",
            ".decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        ),
        renamed={".DenseReluDense.wi.weight": ".DenseReluDense.wi_1.weight"},
        read=_read,
        write=_write,
    )


FAMILIES = (_family(),)
