"""No candidate of a space is invalid, and none that is valid is missing."""

import itertools

import jax
import numpy as np
import pytest

from jaxkd.models import bert, families
from jaxkd.search.space import Space, own_feed_forwards, parameters_limit

CHOICES = {
    "layers": (1, 4), "width": (8, 12, 16, 24), "heads": (1, 2, 3, 4), "feed_forward": (8, 48),
    "activation": ("gelu", "relu"),
}  # fmt: skip
SIZES = dict(vocabulary=31, layers=4, width=24, heads=4, feed_forward=48, max_length=16)


def teacher_of(family, **more):
    return families.FAMILIES[family][0](**SIZES, **more)


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
def test_ten_thousand_draws_can_all_be_built(limited):
    teacher = teacher_of("bert")
    limits = [parameters_limit(teacher, 5_000.0)] if limited else []
    space, random = Space(teacher, CHOICES, limits), np.random.default_rng(0)
    drawn = {}
    for _ in range(10_000):
        candidate = space.draw(random)
        assert list(candidate) == list(CHOICES)
        drawn[space.key(candidate)] = candidate
    for candidate in drawn.values():
        config = space.config(candidate)
        config.check()
        shapes = families.build(config).shapes
        assert config.width % config.heads == 0
        count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        assert not limited or count <= 5_000
    assert set(drawn) == {space.key(each) for each in space.all()}  # draws reach all of it


def test_all_candidates_are_those_of_the_product_that_keep_the_rules():
    teacher = teacher_of("bert")
    space = Space(teacher, CHOICES, [parameters_limit(teacher, 5_000.0)])
    expected = []
    for values in itertools.product(*CHOICES.values()):
        candidate = dict(zip(CHOICES, values, strict=True))
        if candidate["width"] % candidate["heads"]:
            continue
        shapes = families.build(families.FAMILIES["bert"][0](**(SIZES | candidate))).shapes
        if sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) <= 5_000:
            expected.append(candidate)
    assert space.all() == expected
    assert 0 < len(expected) < space.size


@pytest.mark.parametrize(
    "family, more",
    [("distilbert", {}), ("roberta", {}), ("albert", {"embedding_width": 8}), ("modernbert", {}),
     ("gpt2", {}), ("llama", {"kv_heads": 2}), ("qwen2", {"kv_heads": 2}),
     ("qwen3", {"kv_heads": 2, "head_width": 6})],
)  # fmt: skip
def test_every_candidate_of_other_families_runs_too(family, more):
    choices = {"layers": (2,), "width": (8, 12, 24), "heads": (1, 2, 3, 4), "feed_forward": (16,)}
    space = Space(teacher_of(family, **more), choices)
    candidates = space.all()
    assert len(candidates) >= 4
    for candidate in candidates:
        config = space.config(candidate)
        assert families.build(config).shapes
        for name, value in candidate.items():
            assert getattr(config, name) == value


def test_the_nearest_candidate_keeps_what_it_can():
    space = Space(teacher_of("bert"), CHOICES)
    for candidate in space.all():
        assert space.complete(candidate) == candidate
    target = {"layers": 4, "width": 8, "heads": 3, "feed_forward": 48, "activation": "relu"}
    assert space.complete(target) == target | {"heads": 2}


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"layer": (1, 2)}, "no dimension 'layer'.*layers"),
        ({"width": ()}, "at least one value"),
        ({"width": (8, 8)}, "only once"),
        ({"width": (16, 8)}, "ascending"),
        ({"layers": (0, 1)}, "from 1"),
        ({"layers": (4, 8)}, "the teacher's 4"),
        ({"width": (7, 11), "heads": (2, 4)}, "has no candidate.*divide the width"),
        ({}, "has no candidate"),
    ],
)
def test_a_space_that_cannot_be_is_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        Space(teacher_of("bert"), choices)


def test_a_limit_below_the_smallest_model_is_refused():
    teacher = teacher_of("bert")
    with pytest.raises(ValueError, match="under parameters at most 100"):
        Space(teacher, CHOICES, [parameters_limit(teacher, 100.0)])


def test_blocks_may_have_feed_forwards_of_their_own():
    teacher = bert.Config(**SIZES, head="bare")
    choices = {"layers": (1, 2, 4), "heads": (2, 4)} | own_feed_forwards(4, (8, 16, 48))
    space = Space(teacher, choices)
    # 3 + 9 + 81 combinations of widths, each for two numbers of heads; keys tell them apart.
    assert len(space.all()) == len({space.key(c) for c in space.all()}) == 2 * (3 + 9 + 81)
    draw = np.random.default_rng(0)
    for _ in range(50):
        candidate = space.draw(draw)
        config = space.config(candidate)
        assert len(config.feed_forwards) == config.layers
        families.build(config).shapes  # noqa: B018
        assert space.canonical(candidate) == candidate and not space.excess(candidate)
    for wrong in ({"feed_forward_0": (8,)}, choices | {"feed_forward": (8,)}):
        with pytest.raises(ValueError, match="feed_forward for all blocks, or"):
            Space(teacher, wrong)
