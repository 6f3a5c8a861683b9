"""Prune a pretrained model and save it for every HuggingFace tool; nothing is trained.

    python run.py --config experiments/prune.py --config.stages.source.name=NAME
    python run.py --config experiments/prune.py --config.stages.source.name=NAME \
        --config.stages.pruned.keep=0,2,4,5

NAME is a folder as `save_pretrained` writes it, a hub id (google-bert/bert-base-uncased) or a stage
of a run (runs/wikitext-mini/0/teacher_plain). Every other block is kept, starting with the first.
The result is runs/prune-default/0/saved/huggingface, with the tokenizer; it is opened with
transformers and compared with ours before the run ends. A run for a second model moves the result
of the first to runs/prune-default/0/replaced; give each its own --workdir to keep both in place.
"""

from configs import models
from jaxkd.core.names import did_you_mean
from jaxkd.runs.experiment import Experiment
from jaxkd.stages.export import Export
from jaxkd.stages.initialise import Initialise
from jaxkd.stages.load import Load
from jaxkd.stages.student import Prune

VARIANTS = ("default", "smoke")


def get_config(variant: str = "default") -> Experiment:
    """default: a model by name; smoke: a small random one, since nothing is trained."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of prune. {did_you_mean(variant, VARIANTS)}")
    return Experiment(
        title="A pretrained model with fewer blocks",
        data=None,
        stages={
            "source": Load() if variant == "default" else Initialise(model=models.bert("tiny")),
            "pruned": Prune(source="source"),
            "saved": Export(model="pruned", skip=("onnx", "onnx_int8")),
        },
    )
