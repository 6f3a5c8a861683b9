"""Llama under HuggingFace's names, of which the Qwens' are variations."""

from collections.abc import Mapping
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.hub.family import Family, Head
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.decoder import Config as Decoder
from jaxkd.models.llama import Config
from jaxkd.models.rotary import KINDS

LAYER = "layers.{i}"

KEYS = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "feed_forward": "intermediate_size",
    "activation": "hidden_act",
    "max_length": "max_position_embeddings",
    "attention_dropout": "attention_dropout",
    "norm_epsilon": "rms_norm_eps",
    "init_std": "initializer_range",
    "pad": "pad_token_id",
    "tied": "tie_word_embeddings",
}
FIXED = {
    "hidden_act": tuple(ACTIVATIONS),
    "use_sliding_window": (False,),
    "quantization_config": (None,),
}
_SCALING = {
    "rope_factor": "factor",
    "rope_low": "low_freq_factor",
    "rope_high": "high_freq_factor",
    "rope_original": "original_max_position_embeddings",
}
ATTENTION = {
    "embed/token": "embed_tokens",
    "blocks/{i}/attention_norm": f"{LAYER}.input_layernorm",
    "blocks/{i}/attention/query": f"{LAYER}.self_attn.q_proj",
    "blocks/{i}/attention/key": f"{LAYER}.self_attn.k_proj",
    "blocks/{i}/attention/value": f"{LAYER}.self_attn.v_proj",
    "blocks/{i}/attention/output": f"{LAYER}.self_attn.o_proj",
    "blocks/{i}/norm": f"{LAYER}.post_attention_layernorm",
    "head/norm": "norm",
}
BODY = ATTENTION | {
    "blocks/{i}/feed_forward/gate": f"{LAYER}.mlp.gate_proj",
    "blocks/{i}/feed_forward/expand": f"{LAYER}.mlp.up_proj",
    "blocks/{i}/feed_forward/contract": f"{LAYER}.mlp.down_proj",
}


def heads(name: str) -> dict[str, Head]:
    """The heads of a decoder whose classes in transformers begin with `name`."""
    return {
        "causal_lm": Head(f"{name}ForCausalLM", {"head/output": "lm_head"}, ignored=("lm_head.*",)),
        "sequence_classification": Head(
            f"{name}ForSequenceClassification", {"head/classify": "score"}
        ),
        "bare": Head(f"{name}Model"),
    }


def read(found: Mapping[str, Any]) -> dict[str, Any]:
    """What needs more than one key; absent keys mean what transformers takes them to mean."""
    ours: dict[str, Any] = {"tied": bool(found.get("tie_word_embeddings", False))}
    if found.get("num_key_value_heads") == found["num_attention_heads"]:
        ours["kv_heads"] = 0
    width = found["hidden_size"] // found["num_attention_heads"]
    if found.get("head_dim", width) in (width, None):
        ours["head_width"] = 0
    return ours | _read_rope(found)


def _read_rope(found: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings, as transformers 5 writes them or as older ones did."""
    told = dict(found.get("rope_scaling") or {}) | dict(found.get("rope_parameters") or {})
    theta = told.get("rope_theta", found.get("rope_theta", 10000.0))
    kind = told.get("rope_type", told.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(
            f"config.json: rope_type={kind!r} is not implemented. {did_you_mean(kind, KINDS)}"
        )
    ours = {"rope": kind, "rope_theta": float(theta)}
    if told.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(
            "config.json: partial_rotary_factor="
            f"{told['partial_rotary_factor']} is not implemented; supported: 1.0."
        )
    return ours | {field: told[key] for field, key in _SCALING.items() if key in told}


def write(config: Decoder) -> dict[str, Any]:
    """What `read` reads, for transformers of either age."""
    told: dict[str, Any] = {"rope_type": config.rope}
    if config.rope != "default":
        told["factor"] = config.rope_factor
    if config.rope == "llama3":
        told |= {key: getattr(config, field) for field, key in _SCALING.items()}
    old = {"rope_theta": config.rope_theta, "rope_scaling": told if len(told) > 1 else None}
    width = config.head_width or config.width // config.heads
    return old | {
        "rope_parameters": told | {"rope_theta": config.rope_theta},
        "head_dim": width,
        "num_key_value_heads": config.kv_heads or config.heads,
        "pad_token_id": None if config.pad < 0 else config.pad,
    }


def _read(found: Mapping[str, Any]) -> dict[str, Any]:
    bias = bool(found.get("attention_bias", False))
    ours = {"attention_bias": bias, "output_bias": bias}
    return read(found) | ours | {"feed_forward_bias": bool(found.get("mlp_bias", False))}


def _write(config: Config) -> dict[str, Any]:
    return write(config) | {
        "attention_bias": config.attention_bias,
        "mlp_bias": config.feed_forward_bias,
    }


FAMILY = Family(
    model_type="llama",
    config=Config,
    keys=KEYS,
    fixed=FIXED,
    prefix="model",
    body=BODY,
    heads=heads("Llama"),
    ignored=("model.layers.*.self_attn.rotary_emb.inv_freq",),  # computed from the config
    read=_read,
    write=_write,
)
FAMILIES = (FAMILY,)
