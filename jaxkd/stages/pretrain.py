"""Train a teacher on the text alone, with LayerDrop or without."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxkd.data.rows.masking import Masking
from jaxkd.data.tokenizers.tokenizer import Tokenizer
from jaxkd.models import families
from jaxkd.models.bert import Config
from jaxkd.models.model import Params
from jaxkd.runs.experiment import Workspace
from jaxkd.stages import tokenizer
from jaxkd.stages.training import Training, check_head, depends_on, of_data, open_model


@dataclasses.dataclass
class Pretrain(Training):
    """A model from random or pretrained weights, on the text alone.

    Every token is as likely to be masked as any other, as in BERT; DistilBERT's preference for
    rare ones belongs to distillation, where the teacher says how likely they are.
    """

    model: families.Config = dataclasses.field(default_factory=Config)
    source: str = ""  # HuggingFace folder, hub id or stage to start from, instead of `model`
    layer_drop: float = 0.0  # probability of each block to be skipped in a step
    masking: Masking = dataclasses.field(default_factory=lambda: Masking(smoothing=0.0))
    unigram_bias: bool = True  # start the output bias at the log frequency of each token

    def inputs(self) -> tuple[str, ...]:
        return self.chosen()

    def depends(self) -> Any:
        return depends_on(self.source) if self.source else families.describe(self.model)["family"]

    def check(self) -> None:
        super().check()
        self.model.check()
        if not 0 <= self.layer_drop < 1:
            raise ValueError(f"layer_drop is {self.layer_drop}; it is at least 0 and below 1.")

    def run(self, workspace: Workspace) -> dict[str, Any]:
        if self.source:
            config, params = open_model(
                self.source, workspace.display.say, head=workspace.rows.head, seed=workspace.seed
            )
            how = ("compute", "attention", "scan_layers")  # of the run, not of the weights
            config = dataclasses.replace(config, **{k: getattr(self.model, k) for k in how})
        else:
            config, params = start(self.model, workspace, self.unigram_bias)
        check_vocabulary(config, workspace.rows.tokenizer)
        check_head(workspace.name, config, workspace.rows)
        tokenizer.write(workspace.rows.tokenizer, workspace.folder)
        return self.fit(
            workspace, config, params, of_data(workspace.rows), layer_drop=self.layer_drop
        )


def start(
    config: families.Config, workspace: Workspace, unigram_bias: bool
) -> tuple[families.Config, Params]:
    """A random model that fits the tokenizer; its bias perhaps the unigram distribution."""
    config = dataclasses.replace(config, **workspace.rows.fits)
    params = families.build(config).init(workspace.seed, workspace.name)
    if unigram_bias and "bias" in params["head"]:
        counts = workspace.rows.vocabulary.counts + 1.0
        bias = jnp.asarray(jnp.log(counts / counts.sum()), jnp.float32)
        bias = bias.reshape(params["head"]["bias"].shape)  # Marian's has a row
        params = params | {"head": params["head"] | {"bias": bias}}
    return config, params


def check_vocabulary(config: families.Config, its: Tokenizer) -> None:
    """Raise ValueError if the tokenizer has more tokens than the model."""
    size = its.vocab_size
    if config.vocabulary < size:
        raise ValueError(
            f"the model has {config.vocabulary} token embeddings, the tokenizer "
            f"{its.origin} has {size} tokens. Use the tokenizer of the model: "
            "--config.data.tokenizer=NAME."
        )
