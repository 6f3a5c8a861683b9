"""A whole encoder as one ONNX graph: token ids and mask to logits."""

import jax
import numpy as np

from jaxkd.export.emit import encoder
from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import FLOAT32, Weights
from jaxkd.export.emit.layers import Emitter
from jaxkd.models import families
from jaxkd.models.families import Config
from jaxkd.models.model import Params
from jaxkd.models.stack import listed_blocks

ROW = ("batch", "length")


def input_names(config: Config) -> tuple[str, ...]:
    """The inputs of a config's ONNX file, by the names tokenizers of transformers use.

    >>> input_names(families.FAMILIES["bert"][0]())
    ('input_ids', 'attention_mask', 'token_type_ids')
    """
    segments = ("token_type_ids",) if getattr(config, "segments", 0) > 1 else ()
    return ("input_ids", "attention_mask", *segments)


def output_of(config: Config) -> tuple[str, tuple[int | str, ...]]:
    """The name and shape of the output: logits, or of a bare model its last states."""
    if config.head == "bare":
        return "last_hidden_state", (*ROW, config.width)
    if config.head == "masked_lm":
        return "logits", (*ROW, config.vocabulary)
    if config.head == "multi_task":
        tasks = [label.split(":")[0] for label in config.labels]
        return "logits", ("batch", len(set(tasks)), max(map(tasks.count, tasks)))
    classes = len(config.labels)
    return "logits", (
        ("batch", classes) if config.head != "token_classification" else (*ROW, classes)
    )


def check_encoder(config: Config) -> None:
    """Raise ValueError unless there are emitters of the model's embedding, blocks and head."""
    model = families.build(config)
    known = (encoder.EMBEDS, encoder.BLOCKS, encoder.HEADS)
    modules = (model.embed, model.blocks[0], model.head)
    if all(type(module) in table for module, table in zip(modules, known, strict=True)):
        return
    raise ValueError(
        f"ONNX export writes encoders ({', '.join(exportable_families())}); found {config.family} "
        f"with the head {config.head}. Save it as a HuggingFace folder instead: "
        "--config.stages.export.skip=\"('onnx',)\"."
    )


def can_export(config: Config) -> bool:
    """Whether a whole model of this family and head can be written."""
    try:
        check_encoder(config)
    except ValueError:
        return False
    return True


def exportable_families() -> list[str]:
    """Families of which some head can be written."""
    return [
        name
        for name, (kind, _) in families.FAMILIES.items()
        if set(kind.known_heads.values()) & set(encoder.HEADS)
    ]


def encoder_graph(config: Config, params: Params, weights: Weights = FLOAT32) -> Graph:
    """`input_ids`, `attention_mask` (and `token_type_ids`) [B, L] int64 -> the head's output.

    Early exits are no part of it: the file predicts with the head, as the whole model does.

    Raises:
      ValueError: for a family or head without an emitter, or parameters of another shape.
    """
    check_encoder(config)
    model = families.build(config)
    listed = params | {"blocks": listed_blocks(params["blocks"])}
    families.check_shapes(model, listed, "params")
    listed = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), listed)
    graph = Graph()
    e = Emitter(graph, weights)
    values = {name: graph.input(name, np.int64, ROW) for name in input_names(config)}
    ids, counts = values["input_ids"], values["attention_mask"]
    emit = encoder.EMBEDS[type(model.embed)]
    hidden = emit(e, config, listed, ids, counts, values.get("token_type_ids"))
    inputs_of = encoder.block_inputs(e, config, ids, counts)
    for i, block in enumerate(model.blocks):
        number = 0 if model.shared else i
        with graph.scope(f"block_{number:02d}"):
            own = listed["blocks"][number]
            inputs = inputs_of(block.config)
            hidden = encoder.BLOCKS[type(block)](e, block.config, own, hidden, inputs)
    head = encoder.HEADS[type(model.head)]
    logits = head(e, config, listed["head"], hidden, counts, listed["embed"]["token"])
    name, shape = output_of(config)
    graph.output(name, logits, np.float32, shape)
    return graph
