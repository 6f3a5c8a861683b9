"""A pretrained model: read by name, its classes put in the data's order, its vocabulary trimmed."""

import dataclasses
import pathlib
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.distil.student import trim_vocabulary
from jaxkd.models.config import DTYPES
from jaxkd.models.families import Config
from jaxkd.models.model import Params
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
    unnamed,
)

REGRESSION = ("LABEL_0",)  # transformers' name of the one output of a regression


@dataclasses.dataclass
class Load:
    """Read a model and its tokenizer by name."""

    name: str = ""  # HuggingFace folder, hub id, or the folder of a stage of ours
    head: str = ""  # put this head on it; empty: the one it has
    labels: tuple[str, ...] = ()  # names of its classes, in its order; empty: as it says
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
        if rows is not None and config.head == rows.head and rows.form == "classification":
            # A head that is drawn gets the classes of the data; one that is stored must have them.
            stored = read_config(self.name)
            drawn = stored is None or stored.head != config.head or unnamed(config.labels)
            agree = {x.casefold() for x in config.labels} == {x.casefold() for x in rows.labels}
            if self.labels or agree or drawn:
                changes["labels"] = tuple(rows.labels)
        if rows is not None and rows.form == "regression" and config.head == rows.head:
            stored = read_config(self.name)
            if stored is None or stored.head != config.head:
                changes["labels"] = REGRESSION
        return dataclasses.replace(config, **changes)

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
        """The model with its classes named; a head that the source lacks has those of the data.

        The third value says whether the head has still to learn the data's labels: it was drawn,
        or it has one output or classes without names, of which nobody knows what they mean.
        """
        messages: list[str] = []
        options = {"head": self.head, "seed": workspace.seed}
        config, params = open_model(self.name, messages.append, labels=self.labels, **options)
        rows, labels = workspace.rows, self.labels
        classifies = config.head == "sequence_classification"
        drawn = any("is drawn" in message for message in messages)
        known = is_stage(pathlib.Path(self.name)) or bool(labels)
        known = known or len(config.labels) > 1 and not unnamed(config.labels)
        if drawn and classifies and rows is not None and not labels:
            labels = REGRESSION if rows.form == "regression" else tuple(rows.labels)
            if labels and len(labels) != len(config.labels):
                messages.clear()
                config, params = open_model(self.name, messages.append, labels=labels, **options)
        for message in messages:
            workspace.display.say(message)
        if labels and classifies:
            config = dataclasses.replace(config, labels=tuple(labels))
        return config, params, drawn or classifies and not known


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
