"""ALBERT under HuggingFace's names; its one layer is our one block."""

from jaxkd.hub import bert
from jaxkd.hub.family import Family, Head
from jaxkd.models.albert import Config

_LAYER = "encoder.albert_layer_groups.0.albert_layers.0"

FAMILY = Family(
    model_type="albert",
    config=Config,
    keys=bert.KEYS
    | {"embedding_width": "embedding_size", "classifier_dropout": "classifier_dropout_prob"},
    fixed=bert.FIXED | {"num_hidden_groups": (1,), "inner_group_num": (1,)},
    prefix="albert",
    body={
        "embed/token": "embeddings.word_embeddings",
        "embed/position": "embeddings.position_embeddings",
        "embed/segment": "embeddings.token_type_embeddings",
        "embed/norm": "embeddings.LayerNorm",
        "embed/widen": "encoder.embedding_hidden_mapping_in",
        "blocks/{i}/attention/query": f"{_LAYER}.attention.query",
        "blocks/{i}/attention/key": f"{_LAYER}.attention.key",
        "blocks/{i}/attention/value": f"{_LAYER}.attention.value",
        "blocks/{i}/attention/output": f"{_LAYER}.attention.dense",
        "blocks/{i}/attention_norm": f"{_LAYER}.attention.LayerNorm",
        "blocks/{i}/feed_forward/expand": f"{_LAYER}.ffn",
        "blocks/{i}/feed_forward/contract": f"{_LAYER}.ffn_output",
        "blocks/{i}/norm": f"{_LAYER}.full_layer_layer_norm",
    },
    heads={
        "masked_lm": Head(
            "AlbertForMaskedLM",
            {"head/transform": "predictions.dense", "head/norm": "predictions.LayerNorm"},
            {"head/bias": "predictions.bias"},
            ("albert.pooler.*", "sop_classifier.*"),
            copies=bert.copies("predictions.decoder", "albert", "predictions.bias"),
        ),
        "sequence_classification": Head(
            "AlbertForSequenceClassification",
            {"head/pool": "albert.pooler", "head/classify": "classifier"},
        ),
        "token_classification": Head(
            "AlbertForTokenClassification",
            {"head/classify": "classifier"},
            ignored=("albert.pooler.*",),
        ),
        "bare": Head("AlbertModel", {"head/pool": "albert.pooler"}, optional=bert.POOLER),
    },
    ignored=("albert.embeddings.position_ids",),
    absent={"hidden_size": 4096, "num_attention_heads": 64, "intermediate_size": 16384},
    also={"AlbertForPreTraining": "masked_lm"},
)
FAMILIES = (FAMILY,)
