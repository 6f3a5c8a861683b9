"""What the data's task means for a stage: terms of the data alone, and how a model is measured."""

from jaxkd.data.rows.text import Rows
from jaxkd.distil.objective import Terms
from jaxkd.distil.terms import CtcLabels, HardLabels
from jaxkd.evaluate.predictions import Evaluate, make_ctc_evaluate, make_evaluate
from jaxkd.models.model import Model


def terms_of(rows: Rows) -> Terms:
    """The terms learned from the data alone."""
    if rows.ctc:
        return {"ctc": CtcLabels()}
    return {"mlm" if rows.head == "masked_lm" else "cross_entropy": HardLabels()}


def measure_of(rows: Rows, model: Model, teacher: Model | None, *, chunk: int = 0) -> Evaluate:
    """The function that measures a model on batches of these rows."""
    if rows.ctc:
        return make_ctc_evaluate(model, teacher)
    return make_evaluate(model, teacher, top=rows.top, chunk=chunk, parts=rows.parts)
