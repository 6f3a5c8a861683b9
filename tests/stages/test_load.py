"""Models by name: HuggingFace folders and stages of runs, with their tokenizers."""

import dataclasses
import json
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
import transformers

from configs import recipes
from jaxkd.hub import folder as hub
from jaxkd.models import families
from jaxkd.runs import runner
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.evaluate import Evaluate
from jaxkd.stages.export import Export
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.models import load_model, open_model
from jaxkd.stages.student import Prune
from jaxkd.stages.train import Train
from tests.models import tiny
from tests.stages import small

SMALL = dict(vocabulary=61, layers=2, width=32, heads=4, feed_forward=48, max_length=24)
EXPORTED = [
    ("roberta", "masked_lm"),
    pytest.param("roberta", "sequence_classification", marks=pytest.mark.slow),
    pytest.param("distilbert", "bare", marks=pytest.mark.slow),
    pytest.param("gpt2", "bare", marks=pytest.mark.slow),
    pytest.param("qwen2", "causal_lm", marks=pytest.mark.slow),
    ("llama", "sequence_classification"),
    pytest.param("bart", "", marks=pytest.mark.slow),
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def named(tmp_path):
    """A folder as save_pretrained writes it, with a tokenizer of 31 tokens."""
    workspace = tmp_path / "named"
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
    config = tiny.config(layers=4)
    hub.save(
        workspace, config, families.build(config).init(5), save_tokenizer=tokenizer.save_pretrained
    )
    return workspace


def run(experiment, folder, **more):
    return runner.run(
        experiment,
        name="x",
        variant="y",
        command="",
        workdir=folder,
        cache=folder / "cache",
        **more,
    )


def pruning(name):
    stages = {
        "source": Load(name=str(name)),
        "pruned": Prune(source="source"),
        "saved": Export(model="pruned", skip=("onnx", "onnx_int8")),
    }
    return Experiment(title="Prune", data=None, stages=stages)


def test_load_prune_save(named, tmp_path):
    done = run(pruning(named), tmp_path / "runs")
    saved = done / "0" / "saved" / "huggingface"
    opened = transformers.AutoModelForMaskedLM.from_pretrained(saved)
    assert opened.config.num_hidden_layers == 2
    assert transformers.AutoTokenizer.from_pretrained(saved).get_vocab()["a"] == 5
    report = (done / "report.md").read_text()
    assert "Exported files" in report and "| saved | huggingface | transformers" in report


def test_a_stage_of_a_run_is_a_name(named, tmp_path):
    first = run(pruning(named), tmp_path / "first")
    again = run(pruning(first / "0" / "pruned"), tmp_path / "second")
    config, params = load_model(again / "0" / "pruned")
    expected = hub.load(str(named))[1]["blocks"][0]
    assert config.layers == 1
    jax.tree.map(np.testing.assert_array_equal, params["blocks"][0], expected)
    assert (again / "0" / "saved" / "huggingface" / "tokenizer.json").is_file()
    with pytest.raises(ValueError, match="has the head masked_lm; causal_lm is needed here"):
        open_model(str(first / "0" / "pruned"), head="causal_lm")


def test_a_stage_that_was_cut_off_is_no_model(named, tmp_path):
    first = run(pruning(named), tmp_path / "first")
    (first / "0" / "pruned" / "done.json").unlink()
    with pytest.raises(FileNotFoundError, match="pruned is a stage that was cut off"):
        run(pruning(first / "0" / "pruned"), tmp_path / "second")


@pytest.mark.slow
def test_another_model_under_the_same_name_is_loaded_anew(named, tmp_path):
    done = run(pruning(named), tmp_path / "runs")
    token = load_model(done / "0" / "pruned")[1]["embed"]["token"]
    config = tiny.config(layers=4)
    hub.save(named, config, families.build(config).init(6))
    run(pruning(named), tmp_path / "runs")
    assert not np.array_equal(load_model(done / "0" / "pruned")[1]["embed"]["token"], token)


def test_a_new_head_is_announced_and_follows_the_seed(named):
    output = []
    heads = [
        open_model(str(named), output.append, head="token_classification", seed=seed)[1]["head"]
        for seed in (0, 0, 1)
    ]
    kernels = [np.array(head["classify"]["kernel"]) for head in heads]
    assert np.array_equal(kernels[0], kernels[1]) and not np.array_equal(kernels[0], kernels[2])
    assert "a new head for token_classification is drawn: head/classify/bias, head" in output[0]
    output.clear()
    open_model(str(named), output.append, head="masked_lm")
    assert not output


@pytest.fixture
def in_hub_cache(named, tmp_path, monkeypatch):
    """The id of a model that the hub's cache holds, with the hub out of reach."""
    repository = tmp_path / "hub" / "models--me--tiny"
    shutil.copytree(named, repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return "me/tiny"


def test_what_follows_from_a_hub_id_is_checked_once_it_is_loaded(in_hub_cache, tmp_path):
    stages = {
        "source": Load(name=in_hub_cache),
        "same": Prune(source="source", keep="0,1,2,3"),
        "pruned": Prune(source="same", keep="evenly 9"),
    }
    with pytest.raises(ValueError, match="stage 'pruned': .*9.*4"):
        run(Experiment(title="Too many", data=None, stages=stages), tmp_path)
    folders = {path.name for path in (tmp_path / "x-y" / "0").iterdir()}
    assert folders == {"source"}


def classifier(folder, labels, **more):
    config = tiny.config(layers=2, head="sequence_classification", labels=labels, **more)
    params = families.build(config).init(5)
    hub.save(folder, config, params)
    return params


def loaded(folder, tmp_path, **settings):
    stages = {"source": Load(name=str(folder), **settings)}
    done = run(Experiment(title="Load", data=None, stages=stages), tmp_path / "runs")
    record = json.loads((done / "0" / "source" / "done.json").read_text())
    return *load_model(done / "0" / "source"), record["metrics"]["new_head"]


def test_given_labels_are_the_names_of_a_models_own_classes(tmp_path):
    params = classifier(tmp_path / "named", ("bad", "good"))
    config, actual, new_head = loaded(tmp_path / "named", tmp_path, labels=("1 star", "5 stars"))
    assert config.labels == ("1 star", "5 stars") and not new_head
    jax.tree.map(np.testing.assert_array_equal, actual["head"], params["head"])
    with pytest.raises(ValueError, match="in another order than its own"):
        loaded(tmp_path / "named", tmp_path, labels=("good", "bad"))
    with pytest.raises(ValueError, match="labels has 3 names.*has 2 classes.*new_classifier"):
        loaded(tmp_path / "named", tmp_path, labels=("a", "b", "c"))


def test_classes_are_given_to_classifiers_of_sequences_only(named, tmp_path):
    for wrong in (dict(labels=("a", "b")), dict(new_classifier=True)):
        with pytest.raises(ValueError, match="loaded with the head masked_lm"):
            loaded(named, tmp_path, **wrong)


def test_a_kind_of_problem_goes_with_the_classifier_it_belongs_to(tmp_path):
    classifier(tmp_path / "named", ("bad", "good"), problem_type="multi_label_classification")
    config, *_ = loaded(tmp_path / "named", tmp_path, new_classifier=True, labels=("a", "b"))
    assert config.problem_type == ""
    config, *_ = loaded(tmp_path / "named", tmp_path, labels=("a", "b"))
    assert config.problem_type == "multi_label_classification"


def test_a_new_classifier_is_drawn_where_it_is_wanted(tmp_path):
    params = classifier(tmp_path / "named", ("bad", "good"))
    config, actual, new_head = loaded(
        tmp_path / "named", tmp_path, labels=("a", "b", "c"), new_classifier=True
    )
    assert config.labels == ("a", "b", "c") and new_head
    assert actual["head"]["classify"]["kernel"].shape == (32, 3)
    jax.tree.map(np.testing.assert_array_equal, actual["blocks"], params["blocks"])
    rest = {name: actual["head"][name] for name in actual["head"] if name != "classify"}
    for name, leaf in rest.items():
        jax.tree.map(np.testing.assert_array_equal, leaf, params["head"][name])


def test_a_folder_without_a_tokenizer_gets_none_made_up(tmp_path):
    config = tiny.config(layers=2)
    hub.save(tmp_path / "named", config, families.build(config).init(0))
    done = run(pruning(tmp_path / "named"), tmp_path / "runs")
    assert "has no tokenizer" in (done / "log.txt").read_text()
    assert not (done / "0" / "saved" / "huggingface" / "tokenizer.json").exists()


def test_text_is_asked_for_before_anything_runs(tmp_path):
    stages = {
        "source": Initialise(fit=False, model=tiny.config()),
        "measured": Evaluate(models=("source",)),
    }
    with pytest.raises(ValueError, match=r"'measured' \(Evaluate\) reads text"):
        run(Experiment(title="x", data=None, stages=stages), tmp_path)
    assert not (tmp_path / "x-y" / "0").exists()


def test_a_model_that_predicts_no_masked_tokens_is_not_trained_to(tmp_path):
    gpt2 = families.FAMILIES["gpt2"][0](**SMALL)
    with pytest.raises(
        ValueError, match="a gpt2 with the head causal_lm does not predict the targets"
    ):
        run(
            distilling(tmp_path, Initialise(fit=False, model=gpt2), Prune(source="teacher")),
            tmp_path / "runs",
        )


@pytest.mark.parametrize("family, head", EXPORTED)
def test_every_kind_of_model_is_exported_and_compared(family, head, tmp_path):
    more = {"head": head} if head else {}
    config = families.FAMILIES[family][0](**(SMALL | more))
    stages = {
        "source": Initialise(fit=False, model=config),
        "saved": Export(model="source", skip=("onnx", "onnx_int8")),
    }
    done = run(Experiment(title="x", data=None, stages=stages), tmp_path)
    record = json.loads((done / "0" / "saved" / "done.json").read_text())
    assert record["metrics"]["huggingface"]["max_abs_difference"] < 1e-4


def test_a_name_that_is_nothing_says_what_a_name_may_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder here and could not be had"):
        run(pruning("nobody/nothing"), tmp_path)
    with pytest.raises(ValueError, match="stage 'source': name is empty"):
        run(pruning(""), tmp_path)


def distilling(tmp_path, source, student):
    corpus = small.write_corpus(tmp_path / "corpus")
    experiment = small.experiment(corpus)
    stages = {
        "teacher": source,
        "student_init": student,
        "student": Train(
            source="student_init",
            teacher="teacher",
            terms=recipes.distilbert(),
            steps=2,
            batch_size=8,
        ),
    }
    report = dataclasses.replace(experiment.report, curves=(), comparisons=())
    return dataclasses.replace(experiment, stages=stages, report=report)


def test_another_tokenizer_than_the_texts_is_refused(named, tmp_path):
    experiment = distilling(tmp_path, Load(name=str(named)), Prune(source="teacher"))
    with pytest.raises(ValueError, match="tokenizer of .* has 31 tokens, .* another id"):
        run(experiment, tmp_path / "runs")


def test_a_model_that_is_only_measured_is_compared_too(tmp_path):
    small_one = Initialise(fit=False, model=tiny.config(vocabulary=100, max_length=16))
    experiment = distilling(tmp_path, small_one, Prune(source="teacher"))
    stages = {"teacher": small_one, "evaluate": Evaluate(models=("teacher",))}
    with pytest.raises(ValueError, match="'teacher' has 100 token embeddings"):
        run(dataclasses.replace(experiment, stages=stages), tmp_path / "runs")
    # What is known before anything runs is refused then.
    bare = Initialise(model=tiny.config(head="bare"))
    with pytest.raises(ValueError, match="stage 'evaluate': stage 'teacher': .* head bare"):
        run(dataclasses.replace(experiment, stages=stages | {"teacher": bare}), tmp_path / "bare")
    assert not list((tmp_path / "bare").rglob("done.json"))


@pytest.mark.slow
def test_padding_rows_of_the_vocabulary_may_differ(tmp_path):
    shape = dict(layers=2, max_length=16)
    teacher = Initialise(fit=False, model=tiny.config(vocabulary=320, **shape))
    student = Initialise(fit=False, model=tiny.config(vocabulary=300, **shape))
    done = run(distilling(tmp_path, teacher, student), tmp_path / "runs")
    record = json.loads((done / "0" / "student" / "done.json").read_text())
    assert record["metrics"]["steps"] == 2
    small_one = Initialise(fit=False, model=tiny.config(vocabulary=100, **shape))
    with pytest.raises(ValueError, match="'student_init' has 100 token embeddings"):
        run(distilling(tmp_path, teacher, small_one), tmp_path / "other")
