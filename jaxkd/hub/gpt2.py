"""GPT-2 under HuggingFace's names; queries, keys and values are one tensor there."""

from jaxkd.hub.family import Family, Head
from jaxkd.hub.generation import TOKENS
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.gpt2 import Config

_LAYER = "h.{i}"

FAMILY = Family(
    model_type="gpt2",
    config=Config,
    keys={
        "vocabulary": "vocab_size",
        "layers": "n_layer",
        "width": "n_embd",
        "heads": "n_head",
        "activation": "activation_function",
        "max_length": "n_positions",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
        "norm_epsilon": "layer_norm_epsilon",
        "init_std": "initializer_range",
        "pad": "pad_token_id",
        "tied": "tie_word_embeddings",
    },
    fixed={
        "activation_function": tuple(ACTIVATIONS),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "quantization_config": (None,),
    },
    prefix="transformer",
    body={
        "embed/token": "wte",
        "embed/position": "wpe",
        "blocks/{i}/attention_norm": f"{_LAYER}.ln_1",
        "blocks/{i}/attention/query": f"{_LAYER}.attn.c_attn",
        "blocks/{i}/attention/key": f"{_LAYER}.attn.c_attn",
        "blocks/{i}/attention/value": f"{_LAYER}.attn.c_attn",
        "blocks/{i}/attention/output": f"{_LAYER}.attn.c_proj",
        "blocks/{i}/norm": f"{_LAYER}.ln_2",
        "blocks/{i}/feed_forward/expand": f"{_LAYER}.mlp.c_fc",
        "blocks/{i}/feed_forward/contract": f"{_LAYER}.mlp.c_proj",
        "head/norm": "ln_f",
    },
    heads={
        "causal_lm": Head(
            "GPT2LMHeadModel",
            {"head/output": "lm_head"},
            copies={"lm_head.weight": "transformer.wte.weight"},
        ),
        "sequence_classification": Head(
            "GPT2ForSequenceClassification", {"head/classify": "score"}
        ),
        "bare": Head("GPT2Model"),
    },
    ignored=("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),  # the causal mask
    untransposed=("blocks/*",),  # a "Conv1D" keeps [in, out]
    absent={"bos_token_id": 50256, "eos_token_id": 50256},
    read=lambda stored: {"feed_forward": stored.get("n_inner") or 4 * stored.get("n_embd", 768)},
    write=lambda config: {
        "n_inner": config.feed_forward,
        "embd_pdrop": config.dropout,
        "pad_token_id": None if config.pad < 0 else config.pad,
        **{key: config.generation.get(key) for key in TOKENS},
    },
)
FAMILIES = (FAMILY,)
