"""Where a student starts."""

import jax
import numpy as np
import pytest

from jaxkd.distil.student import kept_blocks, prune
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.models import tiny


def test_rules_name_the_blocks_they_keep():
    assert kept_blocks(4, "every_other") == [0, 2]
    assert kept_blocks(5, "every_other") == [0, 2, 4]
    assert kept_blocks(5, "first_half") == [0, 1, 2]
    assert kept_blocks(5, "last_half") == [2, 3, 4]
    assert kept_blocks(12, (0, 2, 4, 7, 9, 11)) == [0, 2, 4, 7, 9, 11]


def test_pruning_everything_in_order_is_the_same_model():
    model = families.build(tiny.config(layers=3))
    params = model.init(0)
    batch = tiny.batch()
    same = prune(params, [0, 1, 2])
    jax.tree.map(np.testing.assert_array_equal, same, params)
    one = families.build(tiny.config(layers=1))
    short = forward(one, prune(params, [1]), batch)
    hidden, _ = model.blocks[1].apply({"params": params["blocks"][1]}, short.hidden[0], batch.mask)
    np.testing.assert_allclose(short.hidden[1], hidden, atol=1e-6)


@pytest.mark.parametrize(
    "keep, output",
    [
        ("every_othr", "Did you mean 'every_other'"),
        ("0,4", "block .4.; the source has blocks 0 to 3"),
        ("-1", "blocks 0 to 3"),
        ((), "names block none"),
    ],
)
def test_blocks_that_are_not_there_are_named(keep, output):
    with pytest.raises(ValueError, match=output):
        kept_blocks(4, keep)


def test_a_part_that_no_model_has_is_not_pruned_in_silence():
    params = families.build(tiny.config(layers=3)).init(0) | {"adapter_00": {}}
    with pytest.raises(ValueError, match="the parameters have 'adapter_00'"):
        prune(params, [0, 2])
