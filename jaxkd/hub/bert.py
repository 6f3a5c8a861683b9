"""BERT under HuggingFace's names; TinyBERT and MiniLM are sizes of it."""

from jaxkd.hub.family import Family, Head
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.bert import POSITIONS, Config

_LAYER = "encoder.layer.{i}"

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
    "classifier_dropout": "classifier_dropout",
    "norm_epsilon": "layer_norm_eps",
    "init_std": "initializer_range",
    "pad": "pad_token_id",
}
FIXED = {
    "hidden_act": tuple(ACTIVATIONS),
    "position_embedding_type": POSITIONS,
    "tie_word_embeddings": (True,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}
BODY = {
    "embed/token": "embeddings.word_embeddings",
    "embed/position": "embeddings.position_embeddings",
    "embed/segment": "embeddings.token_type_embeddings",
    "embed/norm": "embeddings.LayerNorm",
    "blocks/{i}/attention/query": f"{_LAYER}.attention.self.query",
    "blocks/{i}/attention/key": f"{_LAYER}.attention.self.key",
    "blocks/{i}/attention/value": f"{_LAYER}.attention.self.value",
    "blocks/{i}/attention/output": f"{_LAYER}.attention.output.dense",
    "blocks/{i}/attention_norm": f"{_LAYER}.attention.output.LayerNorm",
    "blocks/{i}/feed_forward/expand": f"{_LAYER}.intermediate.dense",
    "blocks/{i}/feed_forward/contract": f"{_LAYER}.output.dense",
    "blocks/{i}/norm": f"{_LAYER}.output.LayerNorm",
}
POOLER = ("head/pool/kernel", "head/pool/bias")  # drawn where a bare model was saved without


def copies(decoder: str, prefix: str, bias: str) -> dict[str, str]:
    """The vocabulary head's matrix and bias, which old files hold twice."""
    token = f"{prefix}.{BODY['embed/token']}.weight"
    return {f"{decoder}.weight": token, f"{decoder}.bias": bias}


FAMILY = Family(
    model_type="bert",
    config=Config,
    keys=KEYS,
    fixed=FIXED,
    prefix="bert",
    body=BODY,
    heads={
        "masked_lm": Head(
            "BertForMaskedLM",
            {
                "head/transform": "cls.predictions.transform.dense",
                "head/norm": "cls.predictions.transform.LayerNorm",
            },
            {"head/bias": "cls.predictions.bias"},
            # next-sentence prediction, which masked language modelling has no use for
            ("bert.pooler.*", "cls.seq_relationship.*"),
            copies=copies("cls.predictions.decoder", "bert", "cls.predictions.bias"),
        ),
        "sequence_classification": Head(
            "BertForSequenceClassification",
            {"head/pool": "bert.pooler.dense", "head/classify": "classifier"},
        ),
        "token_classification": Head(
            "BertForTokenClassification",
            {"head/classify": "classifier"},
            ignored=("bert.pooler.*",),
        ),
        "bare": Head("BertModel", {"head/pool": "bert.pooler.dense"}, optional=POOLER),
    },
    ignored=("bert.embeddings.position_ids",),  # 0 .. max_length - 1, stored by old versions
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    also={"BertForPreTraining": "masked_lm"},
)
FAMILIES = (FAMILY,)
