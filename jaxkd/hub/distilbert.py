"""DistilBERT under HuggingFace's names."""

from jaxkd.hub.family import Family, Head
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.distilbert import Config

_LAYER = "transformer.layer.{i}"

FAMILY = Family(
    model_type="distilbert",
    config=Config,
    keys={
        "vocabulary": "vocab_size",
        "layers": "n_layers",
        "width": "dim",
        "heads": "n_heads",
        "feed_forward": "hidden_dim",
        "activation": "activation",
        "max_length": "max_position_embeddings",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
        "init_std": "initializer_range",
        "pad": "pad_token_id",
    },
    fixed={
        "activation": tuple(ACTIVATIONS),
        "tie_word_embeddings": (True,),
        "tie_weights_": (True,),
        "quantization_config": (None,),
    },
    prefix="distilbert",
    body={
        "embed/token": "embeddings.word_embeddings",
        "embed/position": "embeddings.position_embeddings",
        "embed/norm": "embeddings.LayerNorm",
        "blocks/{i}/attention/query": f"{_LAYER}.attention.q_lin",
        "blocks/{i}/attention/key": f"{_LAYER}.attention.k_lin",
        "blocks/{i}/attention/value": f"{_LAYER}.attention.v_lin",
        "blocks/{i}/attention/output": f"{_LAYER}.attention.out_lin",
        "blocks/{i}/attention_norm": f"{_LAYER}.sa_layer_norm",
        "blocks/{i}/feed_forward/expand": f"{_LAYER}.ffn.lin1",
        "blocks/{i}/feed_forward/contract": f"{_LAYER}.ffn.lin2",
        "blocks/{i}/norm": f"{_LAYER}.output_layer_norm",
    },
    heads={
        "masked_lm": Head(
            "DistilBertForMaskedLM",
            {"head/transform": "vocab_transform", "head/norm": "vocab_layer_norm"},
            {"head/bias": "vocab_projector.bias"},
            copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
        ),
        "sequence_classification": Head(
            "DistilBertForSequenceClassification",
            {"head/pool": "pre_classifier", "head/classify": "classifier"},
        ),
        "token_classification": Head(
            "DistilBertForTokenClassification", {"head/classify": "classifier"}
        ),
        "bare": Head("DistilBertModel"),
    },
)
FAMILIES = (FAMILY,)
