"""BERT under HuggingFace's names (`BertForMaskedLM`)."""

from collections.abc import Mapping
from typing import Any

from jaxkd.hub.names import Table, read_config
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.bert import POSITIONS, Config

_LAYER = "bert.encoder.layer.{i}"

TABLE = Table(
    modules={
        "embed/token": "bert.embeddings.word_embeddings",
        "embed/position": "bert.embeddings.position_embeddings",
        "embed/segment": "bert.embeddings.token_type_embeddings",
        "embed/norm": "bert.embeddings.LayerNorm",
        "blocks/{i}/attention/query": f"{_LAYER}.attention.self.query",
        "blocks/{i}/attention/key": f"{_LAYER}.attention.self.key",
        "blocks/{i}/attention/value": f"{_LAYER}.attention.self.value",
        "blocks/{i}/attention/output": f"{_LAYER}.attention.output.dense",
        "blocks/{i}/attention_norm": f"{_LAYER}.attention.output.LayerNorm",
        "blocks/{i}/expand": f"{_LAYER}.intermediate.dense",
        "blocks/{i}/contract": f"{_LAYER}.output.dense",
        "blocks/{i}/norm": f"{_LAYER}.output.LayerNorm",
        "head/transform": "cls.predictions.transform.dense",
        "head/norm": "cls.predictions.transform.LayerNorm",
    },
    arrays={"head/bias": "cls.predictions.bias"},
    ignored=(
        "bert.pooler.*",  # next-sentence prediction, which masked language modelling has no use for
        "cls.seq_relationship.*",
        "bert.embeddings.position_ids",  # 0 .. max_length - 1, stored by old versions
        "cls.predictions.decoder.*",  # the token embedding and the bias again
    ),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)

KEYS = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "activation": "hidden_act",
    "position": "position_embedding_type",
    "max_length": "max_position_embeddings",
    "segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "norm_epsilon": "layer_norm_eps",
    "init_std": "initializer_range",
    "pad": "pad_token_id",
}

_FIXED = {
    "hidden_act": tuple(ACTIVATIONS),
    "position_embedding_type": POSITIONS,
    "tie_word_embeddings": (True,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


def from_hub(found: Mapping[str, Any]) -> Config:
    """Our config out of a config.json; ValueError names a value that is not implemented."""
    return Config(**read_config(found, KEYS, _FIXED))


def to_hub(config: Config) -> dict[str, Any]:
    """The config.json of a model of ours."""
    ours = {theirs: getattr(config, field) for field, theirs in KEYS.items()}
    return ours | {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "tie_word_embeddings": True,
    }
