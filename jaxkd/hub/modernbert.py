"""ModernBERT (and Ettin's encoders) under HuggingFace's names."""

from collections.abc import Mapping
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.hub.family import Family, Head
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.modernbert import Config

_LAYER = "layers.{i}"
_TYPES = {"full_attention": "global", "sliding_attention": "local"}
_THETAS = {  # kind of block there -> our field, the key of old files
    "full_attention": ("rope_theta", "global_rope_theta"),
    "sliding_attention": ("local_rope_theta", "local_rope_theta"),
}

KEYS = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "activation": "hidden_activation",
    "max_length": "max_position_embeddings",
    "dropout": "embedding_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "mlp_dropout",
    "norm_epsilon": "norm_eps",
    "norm_bias": "norm_bias",
    "init_std": "initializer_range",
    "pad": "pad_token_id",
    "attention_bias": "attention_bias",
    "feed_forward_bias": "mlp_bias",
    "classifier_bias": "classifier_bias",
    "decoder_bias": "decoder_bias",
    "classifier_pooling": "classifier_pooling",
    "head_activation": "classifier_activation",
}
FIXED = {
    "hidden_activation": tuple(ACTIVATIONS),
    "classifier_activation": tuple(ACTIVATIONS),
    "classifier_pooling": ("cls", "mean"),
    "tie_word_embeddings": (True,),
    "quantization_config": (None,),
}
BODY = {
    "embed/token": "embeddings.tok_embeddings",
    "embed/norm": "embeddings.norm",
    "blocks/{i}/attention_norm": f"{_LAYER}.attn_norm",
    # One tensor holds queries, keys and values, and one the two halves of the gated layer.
    "blocks/{i}/attention/query": f"{_LAYER}.attn.Wqkv",
    "blocks/{i}/attention/key": f"{_LAYER}.attn.Wqkv",
    "blocks/{i}/attention/value": f"{_LAYER}.attn.Wqkv",
    "blocks/{i}/attention/output": f"{_LAYER}.attn.Wo",
    "blocks/{i}/norm": f"{_LAYER}.mlp_norm",
    "blocks/{i}/feed_forward/gate": f"{_LAYER}.mlp.Wi",
    "blocks/{i}/feed_forward/expand": f"{_LAYER}.mlp.Wi",
    "blocks/{i}/feed_forward/contract": f"{_LAYER}.mlp.Wo",
    "head/final_norm": "final_norm",
}
_HIDDEN = {"head/transform": "head.dense", "head/norm": "head.norm"}


def _read(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Kinds of blocks, rotary frequencies and the window, as transformers 4 or 5 spells them."""
    layers, fields = stored.get("num_hidden_layers", Config().layers), {}
    every = stored.get("global_attn_every_n_layers", 3)
    kinds = stored.get("layer_types") or [
        "sliding_attention" if i % every else "full_attention" for i in range(layers)
    ]
    unknown = [kind for kind in kinds if kind not in _TYPES]
    if unknown:
        raise ValueError(f"config.json: layer_types has {unknown[0]!r}. {did_you_mean('', _TYPES)}")
    types = tuple(_TYPES[kind] for kind in kinds)
    plain = Config(layers=layers, global_every=every).types
    fields["global_every"] = every
    fields["layer_types"] = () if types == plain else types
    ropes = stored.get("rope_parameters") or {}
    if stored.get("rope_scaling"):
        raise ValueError("config.json: rope_scaling is not implemented for modernbert.")
    for kind, (field, old) in _THETAS.items():
        rope = ropes.get(kind) or {}
        if rope.get("rope_type", "default") != "default":
            raise ValueError(
                f"config.json: rope_type={rope['rope_type']!r} is not implemented for modernbert; "
                "supported: 'default'."
            )
        theta = rope.get("rope_theta", stored.get(old))
        if theta is not None:
            fields[field] = float(theta)
    fields["window"] = stored.get("local_attention", 128) // 2
    if stored.get("classifier_dropout") is None:
        fields["classifier_dropout"] = 0.0
    return fields


def _write(config: Config) -> dict[str, Any]:
    """The keys that `_read` reads, for transformers 4 and 5."""
    kinds = {ours: name for name, ours in _TYPES.items()}
    return {
        "classifier_dropout": config.classifier_dropout,
        "layer_types": [kinds[kind] for kind in config.types],
        "global_attn_every_n_layers": config.global_every,
        "local_attention": 2 * config.window,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": getattr(config, field)}
            for kind, (field, _) in _THETAS.items()
        },
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.local_rope_theta,
    }


FAMILY = Family(
    model_type="modernbert",
    config=Config,
    keys=KEYS,
    fixed=FIXED,
    prefix="model",
    body=BODY,
    heads={
        "masked_lm": Head(
            "ModernBertForMaskedLM",
            _HIDDEN,
            {"head/bias": "decoder.bias"},
            copies={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
        ),
        "sequence_classification": Head(
            "ModernBertForSequenceClassification", _HIDDEN | {"head/classify": "classifier"}
        ),
        "token_classification": Head(
            "ModernBertForTokenClassification", _HIDDEN | {"head/classify": "classifier"}
        ),
        "bare": Head("ModernBertModel"),
    },
    absent={"tie_word_embeddings": True},
    read=_read,
    write=_write,
)
FAMILIES = (FAMILY,)
