"""RoBERTa under HuggingFace's names; XLM-RoBERTa and CamemBERT are the same under their own."""

from jaxkd.hub import bert
from jaxkd.hub.family import Family, Head
from jaxkd.models.roberta import Config


def _family(model_type: str, name: str, vocabulary: int = 30522) -> Family:
    """The family whose classes in transformers begin with `name`."""
    return Family(
        model_type=model_type,
        config=Config,
        keys=bert.KEYS,
        fixed=bert.FIXED,
        prefix="roberta",
        body=bert.BODY,
        heads={
            "masked_lm": Head(
                f"{name}ForMaskedLM",
                {"head/transform": "lm_head.dense", "head/norm": "lm_head.layer_norm"},
                {"head/bias": "lm_head.bias"},
                ("roberta.pooler.*",),
                copies=bert.copies("lm_head.decoder", "roberta", "lm_head.bias"),
            ),
            "sequence_classification": Head(
                f"{name}ForSequenceClassification",
                {"head/pool": "classifier.dense", "head/classify": "classifier.out_proj"},
                ignored=("roberta.pooler.*",),
            ),
            "token_classification": Head(
                f"{name}ForTokenClassification",
                {"head/classify": "classifier"},
                ignored=("roberta.pooler.*",),
            ),
            "bare": Head(
                f"{name}Model", {"head/pool": "roberta.pooler.dense"}, optional=bert.POOLER
            ),
        },
        ignored=("roberta.embeddings.position_ids",),
        absent={
            "vocab_size": vocabulary,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 1,
        },
        # transformers counts positions from the padding id; on writing, Config.for_hub moves rows.
        read=lambda stored: {"position_offset": stored["pad_token_id"] + 1},
    )


# The last two are read as RoBERTa and written as RoBERTa: the computation is the same.
FAMILIES = (
    _family("roberta", "Roberta", vocabulary=50265),
    _family("xlm-roberta", "XLMRoberta"),
    _family("camembert", "Camembert"),
)
