"""Texts from a CTC model: its likeliest hypotheses, in the form a beam search returns."""

from collections.abc import Callable

import jax
import numpy as np

from jaxkd.core.batch import Batch
from jaxkd.decode.beam import Beam, Decoded
from jaxkd.decode.ctc import n_best_of
from jaxkd.models.model import Model, Params, forward


def ctc_decoder(model: Model, beam: Beam, max_labels: int) -> Callable[[Params, Batch], Decoded]:
    """A function (params, batch) -> hypotheses; width 1 is greedy.

    Args:
      max_labels: width of the arrays returned, whatever the length of the batch.
    """

    @jax.jit
    def log_probs_of(params: Params, batch: Batch) -> jax.Array:
        return jax.nn.log_softmax(forward(model, params, batch).logits)

    def write(params: Params, batch: Batch) -> Decoded:
        log_probs = jax.device_get(log_probs_of(params, batch))
        tokens, lengths, scores = n_best_of(
            log_probs, np.asarray(batch.mask), width=beam.width, n=beam.n_best, room=max_labels
        )
        return Decoded(tokens, lengths, scores, scores)

    return write
