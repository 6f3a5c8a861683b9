"""Divergences by name: each is the loss of that name over what counts, and bad values are named."""

import numpy as np
import pytest

from jaxkd import losses
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.distil import objective
from jaxkd.distil.terms import Divergence, HardLabels, Ramp
from jaxkd.distil.vocabulary_terms import KINDS
from tests.losses.test_losses import logits
from tests.models import tiny

OPTIONS = {
    "jensen_shannon": {"beta": 0.3, "normalised": True},
    "skewed_kl": {"alpha": 0.2},
    "skewed_reverse_kl": {"alpha": 0.2},
    "adaptive_kl": {"head": 0.7},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_is_the_loss_of_its_name_over_what_counts(kind):
    batch = tiny.batch()
    shape = (*batch.targets.shape, 61)
    student, teacher = (Outputs(logits(seed, shape), ()) for seed in (0, 1))
    options = OPTIONS.get(kind, {})
    term = Divergence(kind=kind, temperature=2.0, **options)
    objective.check({"it": term})
    name = "soft_targets" if kind == "forward_kl" else kind
    values = getattr(losses, name)(student.logits, teacher.logits, temperature=2.0, **options)
    expected = Mean.of(values, batch.target_mask)
    np.testing.assert_allclose(term.total(student, teacher, batch), expected.total, rtol=1e-6)
    np.testing.assert_allclose(term.count(batch), expected.count)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "reverse_lk"}, "terms.it.kind is 'reverse_lk'. Did you mean 'reverse_kl'"),
        ({"kind": "jensen_shannon", "beta": 1.0}, "terms.it.beta is 1.0"),
        ({"kind": "skewed_kl", "alpha": 0.0}, "terms.it.alpha is 0.0"),
        ({"temperature": 0.0}, "terms.it.temperature is 0.0"),
        ({"weight": -1.0}, "terms.it.weight is -1.0"),
        ({"ramps": {"weight": Ramp((0, 5), (1.0, -1.0))}}, "terms.it.weight is -1.0"),
        ({"ramps": {"weight": Ramp((0, 5), (1.0,))}}, "it.ramps.weight has 2 steps and 1 values"),
        ({"ramps": {"temperature": Ramp((5, 0), (1.0, 2.0))}}, r"temperature.steps is \(5, 0\)"),
        ({"ramps": {"temperature": Ramp((0, 5), (2.0, 0.0))}}, "terms.it.temperature is 0.0"),
        ({"ramps": {"wait": Ramp((0,), (2.0,))}}, "ramps has 'wait'. Did you mean 'weight'"),
    ],
)
def test_what_cannot_be_minimised_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        objective.check({"it": Divergence(**changes), "more": HardLabels()})
