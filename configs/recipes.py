"""Loss recipes by the paper that made them."""

from jaxkd.data.rows.masking import Masking
from jaxkd.distil.terms import CosineHidden, HardLabels, SoftTargets


def distilbert() -> dict[str, object]:
    """The triple loss of DistilBERT (Sanh et al., 2019), weights as its authors trained with."""
    return {
        "soft_targets": SoftTargets(weight=5.0, temperature=2.0),
        "mlm": HardLabels(weight=2.0),
        "cosine": CosineHidden(weight=1.0),
    }


def bert_masking() -> Masking:
    """Every token is equally likely to be masked, as in BERT.

    DistilBERT's preference for rare tokens, the default, is for distillation.
    """
    return Masking(smoothing=0.0)
