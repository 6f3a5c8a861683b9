"""Models between stages: saved, opened by name, and compared with the data before they meet."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxkd.checkpoint import layerwise
from jaxkd.checkpoint.series import Series
from jaxkd.core.tree import parameter_count
from jaxkd.data.rows.base import Rows
from jaxkd.hub import folder as hub
from jaxkd.hub.labels import class_order, reorder_classes, unnamed
from jaxkd.models import families
from jaxkd.models.model import Params
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer

_NEW_CLASSIFIER = "--config.stages.STAGE.new_classifier=True"
CLASSES = ("classification", "regression")  # forms of rows with one prediction a row


def save_model(workspace: Workspace, config: families.Config, params: Params) -> dict[str, Any]:
    """Save a model that this stage does not train; returns its numbers for done.json."""
    series = Series(workspace.folder / "checkpoint", warn=workspace.display.say)
    series.save(0, params, families.describe(config))
    return {"layers": config.layers, "parameters": parameter_count(params)}


def load_model(
    folder: pathlib.Path, warn: Callable[[str], Any] = print, *, on_host: bool = False
) -> tuple[families.Config, Params]:
    """Config and parameters of a finished stage: its best state, or its last.

    Args:
      on_host: return numpy arrays, for trainings, which place them; else on the default device.
    Raises:
      FileNotFoundError: if there is no whole checkpoint.
      ValueError: if the checkpoint that the finished stage left is damaged, or its shapes are not
        those of its config.
    """
    target = _finished_checkpoint(folder)
    for name in ("best", "checkpoint"):
        target = target or Series(folder / name, warn=warn).latest()
    if target is None:
        raise FileNotFoundError(
            f"{folder} has no whole checkpoint. Delete the folder and start again: the stage is "
            "then run anew."
        )
    params, description = layerwise.load(target, on_host=on_host)
    config = families.from_description(description)
    families.check_shapes(families.build(config), params, str(target))
    return config, params


def _finished_checkpoint(folder: pathlib.Path) -> pathlib.Path | None:
    """The checkpoint that done.json names, its files compared with their digests."""
    record = _read_json(folder / "done.json")
    if not isinstance(record, dict) or not record.get("checkpoint"):
        return None
    target = folder / record["checkpoint"]
    damaged = Series(target.parent).damaged(target)
    if damaged:
        raise ValueError(
            f"{target}, which the finished stage {folder.name!r} left, is damaged "
            f"({', '.join(damaged[:3])}{' ...' if len(damaged) > 3 else ''}). Delete "
            f"{folder / 'done.json'} and start the run of that stage again: the stage goes on from "
            "its last whole checkpoint, or anew if there is none."
        )
    return target


def open_model(
    name: str,
    warn: Callable[[str], Any] = print,
    *,
    head: str = "",
    labels: Sequence[str] = (),
    seed: int = 0,
    new_parameters: Callable[[Sequence[str]], Any] = lambda names: None,
) -> tuple[families.Config, Params]:
    """A model by name, on the host: a finished stage's folder, a HuggingFace folder or a hub id.

    Args:
      head: the head that is needed. Parameters of it that the source lacks are drawn from `seed`,
        and `warn` is called with their names.
      labels: names of the classes that are needed, in order; of a stage those it has.
      new_parameters: called with the names of parameters that were drawn.
    Raises:
      FileNotFoundError, KeyError, ValueError: as `load_model` and `hub.folder.load`; for a stage
        that is not finished, or has another head.
    """
    folder = pathlib.Path(name)
    if not is_stage(folder):
        return hub.load(
            name,
            head=head,
            labels=labels,
            seed=seed,
            on_host=True,
            warn=warn,
            new_parameters=new_parameters,
        )
    if not (folder / "done.json").is_file():
        raise FileNotFoundError(
            f"{name} is a stage that was cut off: it has no done.json. Let its run finish, then "
            "start again."
        )
    config, params = load_model(folder, warn, on_host=True)
    if head and config.head != head:
        raise ValueError(f"{name} has the head {config.head}; {head} is needed here.")
    return config, params


def read_config(name: str, head: str = "") -> families.Config | None:
    """The config of a model by name, without its weights; None if it is not known before.

    Only local folders are read: whether a hub id can be reached is seen when it is loaded.
    """
    folder = pathlib.Path(name)
    if is_stage(folder):
        for series in ("best", "checkpoint"):
            steps = sorted((folder / series).glob("[0-9]*/model"))
            if steps:
                return families.from_description(layerwise.load_json(steps[-1].parent, "model"))
        return None
    stored = _read_json(folder / "config.json")
    family = hub.HUB.get(stored.get("model_type", "")) if isinstance(stored, dict) else None
    if family is None or not (head or stored.get("architectures")):
        return None
    return family.from_hub(stored, head=head or family.head(stored, []))


def is_stage(folder: pathlib.Path) -> bool:
    return (folder / "checkpoint").is_dir() or (folder / "best").is_dir()


def depends_on(name: str) -> Any:
    """Changes when the model of that name does: its stage's fingerprint, or its files."""
    folder = pathlib.Path(name)
    if (folder / "done.json").is_file():
        record = _read_json(folder / "done.json")
        return record.get("fingerprint") if isinstance(record, dict) else None
    kinds = (".json", ".safetensors", ".bin")
    # Folders of sentence-transformers have the model in one below.
    files = sorted(file for file in folder.glob("**/*") if file.suffix in kinds)
    return [
        [str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns]
        for file in files
    ]


def compatible(
    name: str,
    config: families.Config,
    vocabulary: Mapping[str, int] | None,
    rows: Rows,
) -> None:
    """Check that a model and the data mean the same: head, classes, token ids.

    Args:
      name: the stage of the model, for messages.
      vocabulary: tokens and ids of the model's own tokenizer; None if it has none.
    Raises:
      ValueError: names both sides of what differs.
    """
    if config.head != rows.head:
        raise ValueError(
            f"stage {name!r}: a {config.family} with the head {config.head} does not predict the "
            f"targets of the data ({type(rows).__name__}), which need the head {rows.head}."
        )
    check_labels(name, config, rows)
    check_vocabulary(name, config, vocabulary, rows)


def check_labels(name: str, config: families.Config, rows: Rows) -> None:
    """Raise ValueError unless the model's classes are those of the data, in the same order."""
    if rows.form not in (*CLASSES, "multi_task"):
        return
    regression, single = rows.form == "regression", len(config.labels) == 1
    if regression and not single:
        raise ValueError(
            f"stage {name!r} predicts {len(config.labels)} classes {_listed(config.labels)}; the "
            "data has numbers as labels (regression), which needs a head with one label. Draw one: "
            f"{_NEW_CLASSIFIER}."
        )
    if rows.form == "classification" and single:
        raise ValueError(
            f"stage {name!r} has one label {_listed(config.labels)}, which is a regression head; "
            f"the data has the classes {_listed(rows.labels)}. Draw a classifier for them: "
            f"{_NEW_CLASSIFIER}."
        )
    if regression or not rows.labels or config.labels == tuple(rows.labels):
        return
    if (
        len(config.labels) != len(rows.labels)
        or not unnamed(config.labels)
        or class_order(config.labels, rows.labels) is not None
    ):
        raise ValueError(f"stage {name!r} has {_other_classes(config.labels, rows.labels)}")


def align_labels(
    name: str,
    config: families.Config,
    params: Params,
    labels: Sequence[str],
    warn: Callable[[str], Any] = print,
) -> tuple[families.Config, Params]:
    """The same classifier with its classes in the order of `labels`, matched by name.

    Names are compared without regard to case. A model whose classes are unnamed keeps its order
    and gets the names, and `warn` is called.

    Raises:
      ValueError: if the names are not the same set; shows both lists.
    """
    target, source = tuple(labels), tuple(config.labels)
    if config.head != "sequence_classification" or source == target or len(target) < 2:
        return config, params
    order = class_order(source, target)
    if order is None and len(source) == len(target) and unnamed(source):
        warn(
            f"{name}: the classes of the model have no names; they are taken for {_listed(target)}"
        )
        return dataclasses.replace(config, labels=target), params
    if order is None:
        raise ValueError(f"{name} has {_other_classes(source, target)}")
    if order != list(range(len(order))):
        warn(f"{name}: its classes {_listed(source)} are put in the data's order {_listed(target)}")
        params = reorder_classes(params, order, None)
    return dataclasses.replace(config, labels=target), params


def check_vocabulary(
    name: str, config: families.Config, vocabulary: Mapping[str, int] | None, rows: Rows
) -> None:
    """Raise ValueError unless the model's tokens have the ids that the data's tokenizer gives."""
    data_vocabulary = rows.tokenizer.fast.get_vocab()
    if vocabulary is not None and dict(vocabulary) != data_vocabulary:
        different = sum(data_vocabulary.get(token) != i for token, i in vocabulary.items())
        raise ValueError(
            f"the tokenizer of {name!r} has {len(vocabulary)} tokens, {different} of them under "
            f"another id or none in that of the text ({rows.tokenizer.origin}, "
            f"{len(data_vocabulary)} tokens): its predictions cannot be compared token by token. "
            "Give the text the model's own: --config.data.tokenizer=NAME."
        )
    if config.vocabulary < rows.tokenizer.vocab_size:
        raise ValueError(
            f"{name!r} has {config.vocabulary} token embeddings, the tokenizer of the text has "
            f"{rows.tokenizer.vocab_size} tokens ({rows.tokenizer.origin}). Use the tokenizer of "
            "the model: --config.data.tokenizer=NAME."
        )


def check_stage_model(workspace: Workspace, name: str, config: families.Config) -> None:
    """`compatible` for the model of stage `name`, whose tokenizer lies in its folder."""
    own = tokenizer.vocabulary(workspace.stage_folder(name))
    compatible(name, config, own, workspace.rows)


def _other_classes(own: Sequence[str], data: Sequence[str]) -> str:
    """Both lists, and what to do about them."""
    same = (
        "If they mean the same, give the model's classes the names of the data, in the order of "
        f'the model\'s numbers: --config.stages.STAGE.labels="{tuple(data)}". Else draw'
    )
    return (
        f"the {len(own)} classes {_listed(own)}; the data has the {len(data)} classes "
        f"{_listed(data)}. {same if len(own) == len(data) else 'Draw'} a classifier for the "
        f"data's classes: {_NEW_CLASSIFIER}."
    )


def _listed(labels: Sequence[str]) -> str:
    few = ", ".join(map(repr, labels[:8]))
    return f"({few}{', ...' if len(labels) > 8 else ''})"


def _read_json(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
