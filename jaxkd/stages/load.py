"""Where an experiment's first model comes from: one somebody trained, or random weights."""

import dataclasses
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.distil.student import trim_vocabulary
from jaxkd.models import families
from jaxkd.models.bert import Config as Bert
from jaxkd.models.config import DTYPES
from jaxkd.models.families import Config
from jaxkd.models.model import Params
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.student import leave
from jaxkd.stages.training import depends_on, open_model


@dataclasses.dataclass
class Load:
    """Read a model and its tokenizer by name."""

    name: str = ""  # HuggingFace folder, hub id, or the folder of a stage of ours
    head: str = ""  # put this head on it; empty: the one it has
    trim: bool = False  # keep only the tokens the data keeps (data.trim)
    compute: str = ""  # what its products are computed in, float32 or bfloat16; empty: as it says

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

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = open_model(
            self.name, workspace.display.say, head=self.head, seed=workspace.seed
        )
        if self.compute:
            config = dataclasses.replace(config, compute=self.compute)
            config.check()
        tokenizer.fetch(self.name, workspace.folder, workspace.display.say)
        if self.trim:
            config, params = trim_to_data(workspace, config, params)
        return leave(workspace, config, params)


def trim_to_data(workspace: Workspace, config: Config, params: Params) -> tuple[Config, Params]:
    """The model over the data's tokens; the stage gets the data's tokenizer for its own.

    Raises:
      ValueError: if the data is not trimmed, or the model calls its tokens something else.
    """
    kept = None if workspace.rows is None else workspace.rows.kept
    if kept is None:
        raise ValueError(
            f"stage {workspace.name!r} is to keep the data's tokens alone, and the data keeps all: "
            "set --config.data.trim=True."
        )
    names = {i: token for token, i in (tokenizer.vocabulary(workspace.folder) or {}).items()}
    wanted = workspace.rows.tokenizer.fast.convert_ids_to_tokens(range(len(kept)))
    unlike = [token for i, token in zip(kept, wanted, strict=True) if names.get(int(i)) != token]
    if unlike or config.vocabulary <= kept.max():
        raise ValueError(
            f"stage {workspace.name!r}: {len(unlike)} of the data's {len(kept)} tokens ({unlike[:3]}) "
            "have another id in the model's tokenizer: give the data the model's, "
            "--config.data.tokenizer=NAME."
        )
    tokenizer.write(workspace.rows.tokenizer, workspace.folder)
    shorter = dataclasses.replace(config, vocabulary=len(kept), pad=workspace.rows.tokenizer.pad)
    return shorter, trim_vocabulary(params, kept)


@dataclasses.dataclass
class Draw:
    """Random weights of a given shape."""

    model: Config = dataclasses.field(default_factory=Bert)
    fit: bool = False  # as many tokens as the data's tokenizer has, and that tokenizer

    def inputs(self) -> tuple[str, ...]:
        return ()

    def depends(self) -> Any:
        return families.describe(self.model)["family"]

    def check(self) -> None:
        self.model.check()

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config = self.model
        if self.fit:
            if workspace.rows is None:
                raise ValueError(
                    f"stage {workspace.name!r}: fit=True, and the experiment has no data."
                )
            config = dataclasses.replace(config, vocabulary=workspace.rows.tokenizer.vocab_size)
            tokenizer.write(workspace.rows.tokenizer, workspace.folder)
        return leave(workspace, config, families.build(config).init(workspace.seed, workspace.name))
