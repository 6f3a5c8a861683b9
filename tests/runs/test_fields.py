"""Every field of every stage: a wrong value is a ValueError that names it, never anything else."""

import copy
import dataclasses
import importlib
import math
import pathlib
import typing

import pytest

import jaxkd.stages
from configs import recipes
from jaxkd.core import ranges
from jaxkd.data.rows.pairs import Pairs
from jaxkd.data.rows.text import MaskedText
from jaxkd.distil import terms
from jaxkd.models.bert import Config
from jaxkd.runs.experiment import check_stage
from jaxkd.runs.fields import comments_of, field_names, member
from jaxkd.stages.train import Train

SOURCES = ("a", "b")  # earlier stages, of which a stage may read any
TERMS = {
    "hard": terms.HardLabels(), "soft": terms.SoftTargets(), "divergence": terms.Divergence(),
    "cosine": terms.CosineHidden(), "hidden": terms.HiddenStates(), "maps": terms.AttentionMaps(),
    "relations": terms.Relations(), "similarity": terms.Similarity(),
    "ramped": terms.HardLabels(ramps={"weight": terms.Ramp((0, 5), (1.0, 2.0))}),
}  # fmt: skip
REQUIRED = {  # what has no default
    "Train": dict(source="a", teacher="b", terms=TERMS),
    "Prune": dict(source="a"),
    "PruneWidth": dict(source="a", heads=1),
    "Initialise": dict(model=Config()),
    "Load": dict(name="somewhere"),
    "Choose": dict(source="a"),
    "AddExits": dict(source="a"),
    "Calibrate": dict(source="a"),
    "EvaluateExits": dict(model="a", calibration="calibrated", full="b"),
    "Evaluate": dict(models=("a",)),
    "Decode": dict(models=("a",)),
    "Export": dict(model="a"),
    "Label": dict(teacher="a"),
    "Generate": dict(teacher="a", batch_size=64),
    "Search": dict(teacher="a"),
    "CompareOptimizers": dict(search="measured"),
    "Sweep": dict(train=Train(source="a", teacher="b", terms=TERMS)),
}


def stage_classes() -> dict[str, type]:
    """All stages of jaxkd/stages/, by name."""
    actual = {}
    for file in pathlib.Path(jaxkd.stages.__path__[0]).glob("*.py"):
        module = importlib.import_module(f"jaxkd.stages.{file.stem}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__
            if own and dataclasses.is_dataclass(value) and hasattr(value, "inputs"):
                actual[name] = value
    return actual


STAGES = stage_classes()


def made(name: str):
    stage = STAGES[name](**copy.deepcopy(REQUIRED.get(name, {})))
    if name == "Label":
        stage.masking.fixed = True
    return stage


def data_of(name: str):
    return Pairs() if name in ("Generate", "Choose", "Decode") else MaskedText()


def check(name: str, stage) -> None:
    from jaxkd.stages.exits import Calibrate
    from jaxkd.stages.generate import Generate
    from jaxkd.stages.search import Search

    earlier = {source: Generate(teacher="a") for source in SOURCES}
    earlier["calibrated"] = Calibrate(source="a")
    earlier["measured"] = Search(teacher="a", halving=0)
    check_stage("it", stage, earlier, data_of(name))


def leaves(value, path=()):
    """(path, value) of every field of a stage and of what is in it."""
    for name in field_names(value):
        inner = member(value, name)
        if field_names(inner):
            yield from leaves(inner, (*path, name))
        else:
            yield (*path, name), inner


def put(stage, path, value) -> None:
    at = stage
    for name in path[:-1]:
        at = member(at, name)
    if isinstance(at, dict):
        at[path[-1]] = value
    else:
        setattr(at, path[-1], value)


def field_at(stage, path) -> dataclasses.Field | None:
    at = stage
    for name in path[:-1]:
        at = member(at, name)
    if isinstance(at, dict):
        return None
    return next(f for f in dataclasses.fields(at) if f.name == path[-1])


WRONG_TYPES = {
    bool: ("yes", 2),
    int: ("three", 1.5, True, None),
    float: ("three", None, math.nan, math.inf, -math.inf),
    str: (5, None, ("a",)),
    tuple: (5, "text", None),
}
ODD = {  # of the right type; refused or not, but only by a ValueError
    int: (-1, 0, -(10**12), 4321),
    float: (-1.0, 0.0, 1.0, 1e300, -1e300),
    str: ("", "nonsense", "0,,", "9:9", "\n"),
    tuple: ((), (None,), (5,), ("nonsense",), (-1,), ((),), ((1,),)),
}
FIELDS = [(name, path) for name in STAGES for path, _ in leaves(made(name))]
IDS = [f"{name}.{'.'.join(path)}" for name, path in FIELDS]


def test_every_stage_is_known_and_valid():
    assert set(REQUIRED) == set(STAGES), "give a new stage's required fields in REQUIRED"
    for name in STAGES:
        check(name, made(name))


@pytest.mark.parametrize("name, path", FIELDS, ids=IDS)
def test_a_value_of_a_wrong_type_is_refused_by_the_fields_name(name, path):
    stage = made(name)
    value = dict(leaves(stage))[path]
    for wrong in WRONG_TYPES.get(type(value), ()):
        put(stage, path, wrong)
        with pytest.raises(ValueError, match=path[-1]):
            check(name, stage)


@pytest.mark.parametrize("name, path", FIELDS, ids=IDS)
def test_a_value_outside_the_declared_range_is_refused_by_the_fields_name(name, path):
    stage = made(name)
    field, value = field_at(stage, path), dict(leaves(stage))[path]
    limits = field and field.metadata.get("range")
    if not limits or not (limits.one_of or str(limits)):
        pytest.skip("no range is declared")
    several = isinstance(value, tuple)  # each of its elements has the range
    # An empty tuple has its elements' type in the annotation only.
    number = typing.get_args(field.type)[0] if several and not limits.one_of else type(value)
    step = 1 if number is int else 1e-6
    outside = [
        *([limits.at_least - step] if limits.at_least is not None else []),
        *([limits.above] if limits.above is not None else []),
        *([limits.at_most + step] if limits.at_most is not None else []),
        *([limits.below] if limits.below is not None else []),
    ]
    wrong = [(number(each),) if several else number(each) for each in outside]
    if limits.one_of:
        wrong = ["nonsense"] if number is str else [("nonsense",)]
    assert wrong
    for each in wrong:
        put(stage, path, each)
        with pytest.raises(ValueError, match=path[-1]):
            check(name, stage)


@pytest.mark.parametrize("name, path", FIELDS, ids=IDS)
def test_an_odd_value_is_accepted_or_a_value_error(name, path):
    stage = made(name)
    value = dict(leaves(stage))[path]
    for odd in ODD.get(type(value), ()):
        put(stage, path, odd)
        try:
            check(name, stage)
        except ValueError as error:
            assert "it" in str(error) and len(str(error)) > 20


@pytest.mark.parametrize(
    "path, value",
    [
        (("patience",), -1), (("evaluate_rows",), -1), (("evaluate_every",), -5),
        (("optimiser", "clip"), -0.1), (("optimiser", "b1"), 1.0), (("optimiser", "b2"), -0.1),
        (("optimiser", "epsilon"), 0.0), (("optimiser", "weight_decay"), -1e-9),
        (("batch_size",), 0), (("chunk",), -1), (("tensor",), 0), (("layer_drop",), 1.0),
    ],
)  # fmt: skip
def test_ranges_that_were_missing(path, value):
    stage = made("Train")
    put(stage, path, value)
    with pytest.raises(ValueError, match=rf"stage 'it': {'.'.join(path)} is {value}; it must be"):
        check("Train", stage)


@pytest.mark.parametrize("name", STAGES)
def test_every_number_of_a_stage_itself_has_a_range(name):
    """Of the parts of a stage (model, beam, masking) their own check says it."""
    stage = made(name)
    if name in ("Evaluate", "Decode", "Export"):
        pytest.skip("their check says it")
    for field in dataclasses.fields(stage):
        value = getattr(stage, field.name)
        if type(value) in (int, float):
            assert str(field.metadata["range"]), f"{name}.{field.name}"


def test_the_comments_that_show_prints_are_there():
    for name in ("Train", "Label", "Generate", "Initialise", "Load", "Prune"):
        lacking = set(field_names(made(name))) - set(comments_of(STAGES[name]))
        assert lacking <= {"optimiser", "beam", "masking", "batch_size"}, (name, lacking)


def test_a_layer_map_can_be_written_as_text():
    for written in ("0:0,1:2", ((0, 0), (1, 2)), [[0, 0], [1, 2]]):
        stage = made("Train")
        stage.terms["hidden"].layer_map = written
        check("Train", stage)
    stage.terms["hidden"].layer_map = "0:0,1:x"
    with pytest.raises(ValueError, match="terms.hidden.layer_map='0:0,1:x' is neither"):
        check("Train", stage)


def test_ranges_name_limits_of_both_ends():
    @dataclasses.dataclass
    class Stage:
        share: float = ranges.field(0.5, above=0, at_most=1)
        shares: tuple[float, ...] = ranges.field((0.5,), above=0)

    ranges.check(Stage())
    with pytest.raises(ValueError, match="share is 0.0; it must be above 0 and at most 1"):
        ranges.check(Stage(share=0.0))
    with pytest.raises(ValueError, match="shares is -1.0; it must be above 0"):
        ranges.check(Stage(shares=(1.0, -1.0)))


def test_recipes_are_in_range():
    for name, term in recipes.distilbert().items():
        ranges.check(term, name)
