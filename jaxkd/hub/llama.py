"""Llama under HuggingFace's names, of which the Qwens' are variations."""

from collections.abc import Mapping
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.hub.family import Family, Head
from jaxkd.hub.generation import TOKENS
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
        "causal_lm": Head(
            f"{name}ForCausalLM",
            {"head/output": "lm_head"},
            copies={"lm_head.weight": "model.embed_tokens.weight"},
        ),
        "sequence_classification": Head(
            f"{name}ForSequenceClassification", {"head/classify": "score"}
        ),
        "bare": Head(f"{name}Model"),
    }


def read(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that need more than one key."""
    fields: dict[str, Any] = {"tied": bool(stored.get("tie_word_embeddings", False))}
    if stored.get("num_key_value_heads") in (stored["num_attention_heads"], None):
        fields["kv_heads"] = 0
    width = stored["hidden_size"] // stored["num_attention_heads"]
    if stored.get("head_dim", width) in (width, None):
        fields["head_width"] = 0
    return fields | _read_rope(stored)


def _read_rope(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings, as transformers 5 writes them or as older ones did."""
    rope = dict(stored.get("rope_scaling") or {}) | dict(stored.get("rope_parameters") or {})
    theta = rope.get("rope_theta", stored.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(
            f"config.json: rope_type={kind!r} is not implemented. {did_you_mean(kind, KINDS)}"
        )
    fields = {"rope": kind, "rope_theta": float(theta)}
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(
            "config.json: partial_rotary_factor="
            f"{rope['partial_rotary_factor']} is not implemented; supported: 1.0."
        )
    return fields | {field: rope[key] for field, key in _SCALING.items() if key in rope}


def write(config: Decoder) -> dict[str, Any]:
    """What `read` reads, for transformers of either age, and the tokens of a text's two ends."""
    rope: dict[str, Any] = {"rope_type": config.rope}
    if config.rope != "default":
        rope["factor"] = config.rope_factor
    if config.rope == "llama3":
        rope |= {key: getattr(config, field) for field, key in _SCALING.items()}
    old = {"rope_theta": config.rope_theta, "rope_scaling": rope if len(rope) > 1 else None}
    width = config.head_width or config.width // config.heads
    return old | {
        "rope_parameters": rope | {"rope_theta": config.rope_theta},
        "head_dim": width,
        "num_key_value_heads": config.kv_heads or config.heads,
        "pad_token_id": None if config.pad < 0 else config.pad,
        # null where nobody named one: an absent key would mean the family's, of another vocabulary
        **{key: config.generation.get(key) for key in TOKENS},
    }


def _read(stored: Mapping[str, Any]) -> dict[str, Any]:
    bias = bool(stored.get("attention_bias", False))
    fields = {"attention_bias": bias, "output_bias": bias}
    return read(stored) | fields | {"feed_forward_bias": bool(stored.get("mlp_bias", False))}


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
    absent={
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    ignored=("model.layers.*.self_attn.rotary_emb.inv_freq",),  # computed from the config
    read=_read,
    write=_write,
)
FAMILIES = (FAMILY,)
