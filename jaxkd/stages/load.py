"""A pretrained model: read by name, its classes put in the data's order, its vocabulary trimmed."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.distil.student import trim_vocabulary
from jaxkd.hub.labels import class_order, unnamed
from jaxkd.models import families
from jaxkd.models.config import DTYPES
from jaxkd.models.families import Config
from jaxkd.models.model import Params
from jaxkd.models.parts import exit_blocks
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.models import (
    align_labels,
    check_vocabulary,
    depends_on,
    is_stage,
    open_model,
    read_config,
    save_model,
)

CLASSIFIES = "sequence_classification"
REGRESSION = ("LABEL_0",)  # transformers' name of the one output of a regression


@dataclasses.dataclass
class Load:
    """Read a model and its tokenizer by name."""

    name: str = ""  # HuggingFace folder, hub id, or the folder of a stage of ours
    head: str = ""  # put this head on it; empty: the one it has
    labels: tuple[str, ...] = ()  # names of its classes, in its order; empty: as it says
    new_classifier: bool = False  # draw one for the data's classes, where its own mean others
    trim: bool = False  # keep only the tokens the data keeps (data.trim)
    compute: str = ""  # dtype of its products, float32 or bfloat16; empty: as it says
    # The same sums, by rounding: compile one block and loop over it, which compiles much faster.
    scan_layers: bool = field(False, result=False)

    def inputs(self) -> tuple[str, ...]:
        return ()

    def depends(self) -> Any:
        return depends_on(self.name)

    def check(self) -> None:
        if not self.name:
            raise ValueError(
                "name is empty. Give a HuggingFace folder, a hub id or the folder of a stage: "
                "--config.stages.STAGE.name=NAME."
            )
        if self.compute and self.compute not in DTYPES:
            raise ValueError(f"compute={self.compute!r}. {did_you_mean(self.compute, DTYPES)}")

    def plan(self, configs: dict[str, Config | None], rows: Rows | None) -> Config | None:
        """The config of a local folder; None for a hub id, which is read when it is loaded."""
        config = read_config(self.name, self.head)
        if config is None:
            return None
        changes = self._changes()
        if self.trim and rows is not None and rows.kept is not None:
            changes["vocabulary"] = len(rows.kept)
        self._check_head(config)
        if config.head == CLASSIFIES:
            drawn = self.new_classifier or self._head_is_drawn(config)
            labels = self._labels(config, rows, drawn)
            if rows is not None and rows.form == "classification":
                taken = unnamed(labels) and len(labels) == len(rows.labels)
                if taken or class_order(labels, rows.labels) is not None:
                    labels = tuple(rows.labels)
            changes["labels"] = labels
            if drawn:
                changes["problem_type"] = ""
        return dataclasses.replace(config, **changes)

    def _head_is_drawn(self, config: Config) -> bool:
        """Whether a local folder lacks the head that it is loaded with."""
        try:
            stored = read_config(self.name)
        except ValueError:  # its own head is none of ours, and is left out
            return True
        return stored is None or stored.head != config.head

    def _check_head(self, config: Config) -> None:
        """Raise ValueError if classes are named or drawn for a model without a classifier."""
        if (self.labels or self.new_classifier) and config.head != CLASSIFIES:
            raise ValueError(
                f"labels and new_classifier are for a classifier of sequences; {self.name} is "
                f"loaded with the head {config.head}. Give it one: "
                f"--config.stages.STAGE.head={CLASSIFIES}."
            )

    def _labels(self, config: Config, rows: Rows | None, drawn: bool) -> tuple[str, ...]:
        """Names of the classes, in the model's order: given, or as the model says; the data's for
        a classifier that is drawn.

        Raises:
          ValueError: if classes are given that a classifier which is not drawn cannot have: more,
            fewer, or its own in another order.
        """
        if self.labels:
            if not drawn and len(self.labels) != len(config.labels):
                raise ValueError(
                    f"labels has {len(self.labels)} names, {self.labels}; {self.name} has "
                    f"{len(config.labels)} classes, {config.labels}. Name each of them, or draw "
                    "a new classifier: --config.stages.STAGE.new_classifier=True."
                )
            order = class_order(config.labels, self.labels)
            if not drawn and order not in (None, list(range(len(self.labels)))):
                raise ValueError(
                    f"labels={self.labels} are the classes of {self.name} in another order than "
                    f"its own, {config.labels}. Leave labels empty: classes of the same names are "
                    "put in the data's order."
                )
            return tuple(self.labels)
        if not drawn or rows is None or rows.head != config.head:
            return config.labels
        return REGRESSION if rows.form == "regression" else tuple(rows.labels) or config.labels

    def _changes(self) -> dict[str, Any]:
        """Fields of the config that this stage sets."""
        changes: dict[str, Any] = {"compute": self.compute} if self.compute else {}
        return changes | ({"scan_layers": True} if self.scan_layers else {})

    def check_config(self, configs: dict[str, Config | None], rows: Rows | None) -> None:
        """Raise ValueError if a local model's token ids are not those of the data it predicts."""
        config = self.plan(configs, rows)
        if config is None or rows is None or self.trim or config.head != rows.head:
            return
        check_vocabulary(self.name, config, _vocabulary(pathlib.Path(self.name)), rows)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        say = workspace.display.say
        config, params, new_head = self._open(workspace)
        config = dataclasses.replace(config, **self._changes())
        config.check()
        rows = workspace.rows
        if rows is not None and rows.form == "classification" and config.head == rows.head:
            config, params = align_labels(self.name, config, params, rows.labels, say)
        tokenizer.fetch(self.name, workspace.folder, say)
        if self.trim:
            config, params = trim_to_data(workspace, config, params)
        return save_model(workspace, config, params) | {"new_head": new_head}

    def _open(self, workspace: Workspace) -> tuple[Config, Params, bool]:
        """The model with its classes named.

        The third value says whether the head has still to learn the data's labels: it was drawn,
        or it has one output or classes without names, of which nobody knows what they mean.
        """
        new: list[str] = []
        config, params = open_model(
            self.name,
            workspace.display.say,
            head=self.head,
            seed=workspace.seed,
            new_parameters=new.extend,
        )
        self._check_head(config)
        if config.head != CLASSIFIES:
            return config, params, bool(new)
        drawn = self.new_classifier or bool(new)
        labels = self._labels(config, workspace.rows, drawn)
        known = is_stage(pathlib.Path(self.name)) or bool(self.labels)
        known = known or len(config.labels) > 1 and not unnamed(config.labels)
        draw = self.new_classifier or len(labels) != len(config.labels)
        config = dataclasses.replace(config, labels=labels)
        if drawn:  # a kind of problem belongs to the classes there were
            config = dataclasses.replace(config, problem_type="")
        if draw:
            params = _new_classifier(config, params, workspace.seed)
            workspace.display.say(f"{self.name}: a new classifier is drawn for {labels}")
        return config, params, drawn or not known


def _new_classifier(config: Config, params: Params, seed: int) -> Params:
    """The parameters with another classifier, of the config's number of labels, on the host."""
    model = families.build(config)
    names = ("head", *exit_blocks(model.heads))
    drawn = jax.jit(lambda: {name: model.init(seed, "new head")[name] for name in names})()
    classify = {name: jax.tree.map(np.asarray, drawn[name]["classify"]) for name in names}
    return params | {name: {**params[name], "classify": classify[name]} for name in names}


def _vocabulary(folder: pathlib.Path) -> dict[str, int] | None:
    """Tokens and ids of the tokenizer in a stage or HuggingFace folder; None if it has none."""
    if is_stage(folder):
        return tokenizer.vocabulary(folder)
    if not any((folder / file).is_file() for file in tokenizer.VOCABULARIES):
        return None
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder).get_vocab()


def trim_to_data(workspace: Workspace, config: Config, params: Params) -> tuple[Config, Params]:
    """The model over the data's tokens; the stage gets the data's tokenizer.

    Raises:
      ValueError: if the data is not trimmed, or the model has other ids for its tokens.
    """
    kept = None if workspace.rows is None else workspace.rows.kept
    if kept is None:
        raise ValueError(
            f"stage {workspace.name!r} has trim=True, and the data keeps all its tokens: "
            "set --config.data.trim=True."
        )
    names = {i: token for token, i in (tokenizer.vocabulary(workspace.folder) or {}).items()}
    tokens = workspace.rows.tokenizer.fast.convert_ids_to_tokens(range(len(kept)))
    different = [token for i, token in zip(kept, tokens, strict=True) if names.get(int(i)) != token]
    if different or config.vocabulary <= kept.max():
        raise ValueError(
            f"stage {workspace.name!r}: {len(different)} of the data's {len(kept)} tokens "
            f"({different[:3]}) "
            "have another id in the model's tokenizer: give the data the model's, "
            "--config.data.tokenizer=NAME."
        )
    tokenizer.write(workspace.rows.tokenizer, workspace.folder)
    shorter = dataclasses.replace(config, vocabulary=len(kept), pad=workspace.rows.tokenizer.pad)
    return shorter, trim_vocabulary(params, kept)
