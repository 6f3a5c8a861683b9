"""Qwen2 (and 2.5), Qwen3 and Qwen2-MoE under HuggingFace's names."""

from collections.abc import Mapping
from typing import Any

from jaxkd.hub.family import Family
from jaxkd.hub.llama import ATTENTION, BODY, FIXED, KEYS, LAYER, heads, read, write
from jaxkd.models import qwen2, qwen2_moe, qwen3

_ABSENT = {  # of Qwen2 and Qwen3
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 22016,
}


def _read3(stored: Mapping[str, Any]) -> dict[str, Any]:
    bias = bool(stored.get("attention_bias", False))
    return read(stored) | {"attention_bias": bias, "output_bias": bias}


QWEN2 = Family(
    model_type="qwen2",
    config=qwen2.Config,
    keys=KEYS,
    fixed=FIXED,
    prefix="model",
    body=BODY,
    heads=heads("Qwen2"),
    absent=_ABSENT,
    read=read,
    write=write,
)
QWEN3 = Family(
    model_type="qwen3",
    config=qwen3.Config,
    keys=KEYS,
    fixed=FIXED,
    prefix="model",
    body=BODY
    | {
        "blocks/{i}/attention/query_norm": f"{LAYER}.self_attn.q_norm",
        "blocks/{i}/attention/key_norm": f"{LAYER}.self_attn.k_norm",
    },
    heads=heads("Qwen3"),
    absent=_ABSENT | {"head_dim": 128, "max_position_embeddings": 32768},
    read=_read3,
    write=lambda config: write(config) | {"attention_bias": config.attention_bias},
)
QWEN2_MOE = Family(
    model_type="qwen2_moe",
    config=qwen2_moe.Config,
    keys=KEYS
    | {
        "experts": "num_experts",
        "experts_per_token": "num_experts_per_tok",
        "expert_width": "moe_intermediate_size",
        "shared_width": "shared_expert_intermediate_size",
        "normalise_experts": "norm_topk_prob",
        "attention_bias": "qkv_bias",
    },
    fixed=FIXED | {"decoder_sparse_step": (1,), "mlp_only_layers": ([], None)},
    prefix="model",
    body=ATTENTION
    | {
        "blocks/{i}/experts/router": f"{LAYER}.mlp.gate",
        "blocks/{i}/experts/gate": f"{LAYER}.mlp.experts.{{j}}.gate_proj",
        "blocks/{i}/experts/expand": f"{LAYER}.mlp.experts.{{j}}.up_proj",
        "blocks/{i}/experts/contract": f"{LAYER}.mlp.experts.{{j}}.down_proj",
        "blocks/{i}/experts/shared/gate": f"{LAYER}.mlp.shared_expert.gate_proj",
        "blocks/{i}/experts/shared/expand": f"{LAYER}.mlp.shared_expert.up_proj",
        "blocks/{i}/experts/shared/contract": f"{LAYER}.mlp.shared_expert.down_proj",
        "blocks/{i}/experts/shared_gate": f"{LAYER}.mlp.shared_expert_gate",
    },
    heads=heads("Qwen2Moe"),
    absent={
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 32768,
    },
    read=read,
    write=write,
)
FAMILIES = (QWEN2, QWEN3, QWEN2_MOE)
