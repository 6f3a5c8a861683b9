"""RoBERTa under HuggingFace's names."""

from jaxkd.hub import bert
from jaxkd.hub.family import Family, Head
from jaxkd.models.roberta import Config

FAMILY = Family(
    model_type="roberta",
    config=Config,
    keys=bert.KEYS,
    fixed=bert.FIXED,
    prefix="roberta",
    body=bert.BODY,
    heads={
        "masked_lm": Head(
            "RobertaForMaskedLM",
            {"head/transform": "lm_head.dense", "head/norm": "lm_head.layer_norm"},
            {"head/bias": "lm_head.bias"},
            ("roberta.pooler.*", "lm_head.decoder.*"),  # unused; the embedding and the bias again
        ),
        "sequence_classification": Head(
            "RobertaForSequenceClassification",
            {"head/pool": "classifier.dense", "head/classify": "classifier.out_proj"},
            ignored=("roberta.pooler.*",),
        ),
        "token_classification": Head(
            "RobertaForTokenClassification",
            {"head/classify": "classifier"},
            ignored=("roberta.pooler.*",),
        ),
        "bare": Head("RobertaModel", {"head/pool": "roberta.pooler.dense"}),
    },
    ignored=("roberta.embeddings.position_ids",),
)
FAMILIES = (FAMILY,)
