"""Every parameter of every family has one row of axes, and each letter is its size."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.tree import named
from jaxkd.decode.beam import in_compute_dtype
from jaxkd.distil.student import trim_vocabulary
from jaxkd.models import axes, config, families
from jaxkd.models.quantised import Int8, quantise
from jaxkd.models.stack import stack
from jaxkd.train.optimiser import AdamW
from jaxkd.train.placement import CUT, _cut

# No two sizes are equal, so that a letter that stands for another axis is seen.
SIZES = dict(vocabulary=61, layers=2, width=24, heads=4, feed_forward=40, max_length=31)
MORE = {
    "albert": {"embedding_width": 20},
    "llama": {"kv_heads": 2, "head_width": 14},
    "qwen2": {"kv_heads": 2},
    "qwen3": {"kv_heads": 2, "head_width": 14},
    "qwen2_moe": dict(kv_heads=2, experts=5, experts_per_token=2, expert_width=17, shared_width=19),
    "t5": dict(encoder_layers=1, head_width=7, buckets=8),
    "marian": dict(encoder_layers=1),
    "bart": dict(encoder_layers=1),
    "lstm": dict(encoder_layers=1, heads=1, source_vocabulary=67),
    "modernbert": dict.fromkeys(
        ("norm_bias", "attention_bias", "feed_forward_bias", "classifier_bias"), True
    ),
}
LABELS = ("task:a", "task:b", "task:c")
CASES = [
    (family, head) for family, (kind, _) in families.FAMILIES.items() for head in kind.known_heads
]


def made(family, head):
    kind, _ = families.FAMILIES[family]
    settings = SIZES | MORE.get(family, {}) | dict(head=head, labels=LABELS)
    return kind(**settings)


def shapes(family, head):
    model = families.build(made(family, head))
    return named(jax.eval_shape(lambda: model.init(0)))


def sizes(c, name):
    """What each letter stands for in this config."""
    state = c.width // 2 if "/forward/" in name or "/backward/" in name else c.width
    return {
        "D": c.width,
        "M": getattr(c, "embedding", c.width),
        "HK": c.heads * c.key_width,
        "GK": (getattr(c, "kv_heads", 0) or c.heads) * c.key_width,
        "K": c.key_width,
        "H": c.heads,
        "F": c.feed_forward,
        "V": c.vocabulary,
        "X": getattr(c, "source_vocabulary", 0),
        "P": c.max_length + (c.position_offset if c.family == "bart" else 0),
        "T": getattr(c, "segments", 0),
        "R": getattr(c, "buckets", 0),
        "C": len(c.labels),
        "E": getattr(c, "experts", 0),
        "I": getattr(c, "expert_width", 0),
        "J": getattr(c, "shared_width", 0),
        "W": state,
        "4W": 4 * state,
        "O": 1,
        "1": 1,
    }


@pytest.mark.parametrize("family, head", CASES)
def test_every_parameter_has_one_row_and_its_letters_are_its_sizes(family, head):
    c = made(family, head)
    for name, leaf in shapes(family, head).items():
        assert len(axes.rows_of(name)) == 1, (name, axes.rows_of(name))
        letters = axes.axes(name, len(leaf.shape))
        assert leaf.shape == tuple(sizes(c, name)[letter] for letter in letters), (name, letters)


# What each consumer did by names of its own before there was a table.
OLD_CUT = (
    (r"(query|key|value|expand|gate)(/kernel|/bias)?", -1),
    (r"(attention|cross)/output/kernel|contract(/kernel)?", -2),
    (r"embed/token|head/output", -2),
    (r"head/bias", -1),
)


def old_cut(name, ndim):
    for pattern, axis in OLD_CUT:
        if re.search(f"(^|/)({pattern})$", name) and ndim + axis >= 0:
            return ndim + axis
    return None


OLD_KERNELS = ("kernel", "gate", "expand", "contract")
OLD_ROWS = ("token", "position", "segment", "output", "relative")  # the last is T5's: no old rule


@pytest.mark.parametrize("family, head", CASES)
def test_sharding_int8_decay_and_compute_dtype_are_as_they_were(family, head):
    for name, leaf in shapes(family, head).items():
        ndim, last = len(leaf.shape), name.rsplit("/", 1)[-1]
        letters = axes.axes(name, ndim)
        if not name.startswith("encoder/embed/token"):  # a second vocabulary was cut as the first
            assert _cut(name, ndim) == old_cut(name, ndim), name
        matrix = axes.is_matrix(letters)
        assert matrix == (ndim > 1 and not name.endswith("bias")), name
        quantised = matrix and not axes.is_recurrent(letters)
        assert quantised == (ndim >= 2 and last in OLD_KERNELS + OLD_ROWS), name
        if quantised:
            assert axes.has_rows(letters) == (last in OLD_ROWS), name


def test_stacked_blocks_have_one_more_axis():
    model = families.build(made("bert", "masked_lm"))
    listed, stacked = (named(f(model.init(0))) for f in (lambda p: p, stack))
    for name, leaf in stacked.items():
        one = listed[name.replace("blocks/", "blocks/0/")]
        letters = axes.axes(name, leaf.ndim)
        assert letters[leaf.ndim - one.ndim :] == axes.axes(
            name.replace("blocks/", "blocks/0/"), one.ndim
        )
        assert (letters[0] == "N") == name.startswith("blocks/")


@pytest.mark.parametrize(
    "consume",
    [
        lambda params: quantise(params, "int8"),
        lambda params: trim_vocabulary(params, np.arange(5)),
        lambda params: in_compute_dtype(made("bert", "masked_lm"), params),
        lambda params: (
            AdamW().build(params, 3).init(params)
            and AdamW()
            .build(params, 3)
            .update(params, AdamW().build(params, 3).init(params), params)
        ),
        lambda params: _cut("blocks/0/adapter/down", 2),
    ],
    ids=["int8", "trimming", "compute dtype", "weight decay", "sharding"],
)
def test_a_name_that_nobody_knows_is_an_error(consume):
    params = families.build(made("bert", "masked_lm")).init(0)
    params["blocks"][0]["adapter"] = {"down": jnp.ones((24, 3))}
    with pytest.raises(ValueError, match="'blocks/0/adapter/down' with 2 axes has no row"):
        consume(params)


def test_trimming_goes_by_the_axis_and_not_by_its_length():
    """A vocabulary of as many tokens as the width, and a label for each."""
    c = made("bert", "token_classification")
    c = dataclasses.replace(c, vocabulary=24, max_length=24, labels=tuple(map(str, range(24))))
    params = families.build(c).init(0)
    kept = np.array([3, 0, 5])
    short = trim_vocabulary(params, kept)
    families.check_shapes(families.build(dataclasses.replace(c, vocabulary=3)), short, "trimmed")
    np.testing.assert_array_equal(short["embed"]["token"], params["embed"]["token"][kept])
    with pytest.raises(ValueError, match=r"tokens \[24\] are kept, and the vocabulary has 24"):
        trim_vocabulary(params, np.array([1, 24]))


def test_a_family_from_outside_brings_its_names_and_rows():
    bert = families.FAMILIES["bert"]

    @dataclasses.dataclass
    class Nameless(bert[0]):
        pass

    with pytest.raises(ValueError, match="Nameless has no name of its own"):
        families.register(Nameless, bert[1])

    @dataclasses.dataclass
    class Twin(bert[0]):
        family = "bert"

    with pytest.raises(ValueError, match="family 'bert' is jaxkd.models.bert.Config already"):
        families.register(Twin, bert[1])

    @dataclasses.dataclass
    class Mine(bert[0]):
        family = "mine"

    with pytest.raises(ValueError, match=r"axes of 'embed/token' are .*, not \('D V',\)"):
        families.register(Mine, bert[1], axes={"embed/token": ("D V",)})
    try:
        families.register(Mine, bert[1], axes={"block/adapter/down": ("D A",)})
        assert axes.axes("blocks/1/adapter/down", 2) == ("D", "A")
        settings = Mine(**SIZES)
        assert settings.family == "mine"
        assert families.from_description(families.describe(settings)) == settings
        assert set(families.build(settings).init(0)) == {"embed", "blocks", "head"}
    finally:
        families.FAMILIES.pop("mine", None)
        axes.TABLE.pop("block/adapter/down", None)


@pytest.mark.parametrize(
    "rate", ["dropout", "attention_dropout", "activation_dropout", "classifier_dropout"]
)
def test_a_model_drops_if_one_of_its_rates_is_above_zero(rate):
    rates = ("dropout", "attention_dropout", "activation_dropout", "classifier_dropout")
    none = config.Config(head="sequence_classification", **dict.fromkeys(rates, 0.0))
    assert not none.drops and dataclasses.replace(none, **{rate: 0.1}).drops


def test_int8_of_every_matrix_has_a_scale_for_each_output_or_row():
    stored = quantise(families.build(made("bert", "masked_lm")).init(0), "int8")
    query = stored["blocks"][0]["attention"]["query"]
    assert isinstance(query["kernel"], Int8) and query["kernel"].scale.shape == (1, 24)
    assert stored["embed"]["token"].scale.shape == (61, 1)
    assert "V" in CUT and query["bias"].dtype == jnp.float32
