"""Where students come from: a pruned teacher, or random weights of the same shape."""

import dataclasses
from typing import Any, ClassVar

from jaxkd.checkpoint.series import Series
from jaxkd.core.tree import parameter_count
from jaxkd.data.rows.masking import Masking
from jaxkd.distil.student import kept_blocks, prune
from jaxkd.distil.width import choose, importance, narrowed, prune_width
from jaxkd.models import families
from jaxkd.models.model import Params
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.pretrain import start
from jaxkd.stages.training import check_tokenizer, load_model


@dataclasses.dataclass
class Prune:
    """Keep some blocks of a model."""

    source: str  # stage whose model is pruned
    keep: str = "every_other"  # or first_half, last_half, or block numbers: "0,2,3"

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        kept_blocks(1000, self.keep)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(
            workspace.stage_folder(self.source), workspace.display.say, on_host=True
        )
        kept = kept_blocks(config.layers, self.keep)
        shorter = families.with_layers(config, len(kept))
        tokenizer.keep(workspace.stage_folder(self.source), workspace.folder)
        return {"kept": kept} | leave(workspace, shorter, prune(params, kept))


@dataclasses.dataclass
class PruneWidth:
    """Keep the heads, feed-forward channels and hidden channels that matter on some of the text."""

    source: str  # stage whose model is pruned
    heads: int = 0  # to keep, of each block; 0: all
    feed_forward: int = 0  # channels to keep, of each block; 0: all
    width: int = 0  # hidden channels to keep; 0: all
    batches: int = 8  # of the training split, to see what matters
    batch_size: int = 16

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        if self.batches < 1 or self.batch_size < 1:
            raise ValueError(
                f"batches={self.batches}, batch_size={self.batch_size}: what matters is seen on at "
                "least one row."
            )
        if not (self.heads or self.feed_forward or self.width):
            raise ValueError("nothing is pruned: give heads, feed_forward or width what to keep.")

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.source), workspace.display.say)
        narrow = narrowed(config, self.heads, self.feed_forward, self.width)
        check_tokenizer(workspace, self.source, config)
        feed = workspace.rows.training(
            seed=workspace.seed, batch_size=self.batch_size, masking=Masking(smoothing=0.0)
        )
        shown = (feed[i] for i in range(self.batches))
        model = families.build(config)
        kept = choose(config, narrow, importance(model, model.arrange(params), shown))
        tokenizer.keep(workspace.stage_folder(self.source), workspace.folder)
        chosen = {"kept_heads": [list(map(int, of)) for of in kept.heads]}
        return chosen | leave(workspace, narrow, prune_width(config, params, kept))


@dataclasses.dataclass
class Initialise:
    """Random weights: a shape of its own, or another stage's with fewer blocks."""

    like: str = ""  # stage whose shape is taken, where `model` is none
    layers: int = 2
    model: families.Config | None = None
    unigram_bias: bool = True  # start the output bias at the log frequency of each token

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.like,) if self.like else ()

    def depends(self) -> Any:
        return None if self.model is None else families.describe(self.model)["family"]

    def check(self) -> None:
        if bool(self.like) == (self.model is not None):
            raise ValueError(
                f"like is {self.like!r} and model {self.model}: give one of the two, a stage whose "
                "shape is taken or a shape."
            )
        if self.layers < 1:
            raise ValueError(f"layers is {self.layers}; it must be at least 1.")
        if self.model is not None:
            self.model.check()

    def run(self, workspace: Workspace) -> dict[str, Any]:
        shape = self.model
        if shape is None:
            config, _ = load_model(
                workspace.stage_folder(self.like), workspace.display.say, on_host=True
            )
            shape = families.with_layers(config, self.layers)
        tokenizer.write(workspace.rows.tokenizer, workspace.folder)
        return leave(workspace, *start(shape, workspace, self.unigram_bias))


def leave(workspace: Workspace, config: families.Config, params: Params) -> dict[str, Any]:
    """Save a model that is not trained; returns what done.json says of it."""
    series = Series(workspace.folder / "checkpoint", warn=workspace.display.say)
    series.save(0, params, families.describe(config))
    return {"layers": config.layers, "parameters": parameter_count(params)}
