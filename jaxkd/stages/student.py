"""Students cut from a teacher: fewer blocks, or fewer heads and channels."""

import dataclasses
from typing import Any, ClassVar

from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.masking import Masking
from jaxkd.distil.student import kept_blocks, prune
from jaxkd.distil.width import choose, importance, narrowed, prune_width
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.models import check_vocabulary, load_model, save_model


@dataclasses.dataclass
class Prune:
    """Keep some blocks of a model."""

    source: str  # stage whose model is pruned
    keep: str = "every_other"  # or first_half, last_half, "evenly 3", or numbers: "0,2,3"

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        kept_blocks(1000, self.keep)  # the number of blocks is not known yet

    def plan(self, configs: dict[str, Any], rows: Rows | None) -> families.Config | None:
        """The config of the shorter model; ValueError for blocks that the source lacks."""
        config = configs.get(self.source)
        if config is None:
            return None
        return config.keep(kept_blocks(config.layers, self.keep))

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(
            workspace.stage_folder(self.source), workspace.display.say, on_host=True
        )
        kept = kept_blocks(config.layers, self.keep)
        shorter = config.keep(kept)
        tokenizer.keep(workspace.stage_folder(self.source), workspace.folder)
        return {"kept": kept} | save_model(workspace, shorter, prune(params, kept))


@dataclasses.dataclass
class PruneWidth:
    """Keep the heads and channels that matter most on some batches of the training split."""

    source: str  # stage whose model is pruned
    heads: int = field(0, at_least=0)  # to keep, of each block; 0: all
    feed_forward: int = field(0, at_least=0)  # channels to keep, of each block; 0: all
    width: int = field(0, at_least=0)  # hidden channels to keep; 0: all
    batches: int = field(8, at_least=1)  # of the training split, to measure what matters
    batch_size: int = field(16, at_least=1)  # rows of each of them

    reads_text: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        if not (self.heads or self.feed_forward or self.width):
            raise ValueError(
                "heads, feed_forward and width are all 0, so nothing is pruned: give at least one "
                "of them the number to keep."
            )

    def plan(self, configs: dict[str, Any], rows: Rows | None) -> families.Config | None:
        """The config of the narrower model; errors as `distil.width.narrowed`."""
        config = configs.get(self.source)
        if config is None:
            return None
        return narrowed(config, self.heads, self.feed_forward, self.width)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.source), workspace.display.say)
        narrow = narrowed(config, self.heads, self.feed_forward, self.width)
        own = tokenizer.vocabulary(workspace.stage_folder(self.source))
        check_vocabulary(self.source, config, own, workspace.rows)
        feed = workspace.rows.training(
            seed=workspace.seed, batch_size=self.batch_size, masking=Masking(smoothing=0.0)
        )
        calibration = (feed[i] for i in range(self.batches))
        model = families.build(config)
        kept = choose(config, narrow, importance(model, model.arrange(params), calibration))
        tokenizer.keep(workspace.stage_folder(self.source), workspace.folder)
        numbers = {"kept_heads": [list(map(int, of)) for of in kept.heads]}
        return numbers | save_model(workspace, narrow, prune_width(config, params, kept))
