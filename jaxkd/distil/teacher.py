"""A teacher's outputs for a batch: of a forward pass, or of stored targets."""

import dataclasses

import jax

from jaxkd.core.batch import Batch
from jaxkd.core.outputs import Outputs
from jaxkd.core.stored_targets import Hidden, Scores, States
from jaxkd.models.model import Model, Params, forward, predict
from jaxkd.models.quantised import dequantise


def teacher_outputs(teacher: Model | None, params: Params | None, batch: Batch) -> Outputs | None:
    """The teacher's outputs, without gradient; None if there are neither a teacher nor targets.

    Stored targets (`batch.stored_targets`) replace the forward pass: last hidden states go
    through the teacher's own head, for which `params` needs its head and token embedding only.
    """
    stored = batch.stored_targets
    if stored is None:
        outputs = None if teacher is None else forward(teacher, dequantise(params), batch)
    elif isinstance(stored, States):
        hidden = stored.hidden.astype(teacher.head.config.dtype)
        # The states are those of the target positions already.
        everywhere = dataclasses.replace(batch, target_positions=None)
        logits, projection = predict(teacher, dequantise(params), everywhere, hidden)
        outputs = Outputs(logits, (hidden,), projection=projection)
    elif isinstance(stored, Hidden):
        outputs = Outputs(None, stored.states)
    elif isinstance(stored, Scores):
        outputs = Outputs(stored.logits, ())
    else:
        outputs = Outputs(None, (), sparse=stored)
    return jax.lax.stop_gradient(outputs)
