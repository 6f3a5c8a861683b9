"""Decode a teacher's targets of the whole training split once, and store them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from jaxkd.checkpoint import teacher_store as store
from jaxkd.checkpoint.teacher_store import Field, Store
from jaxkd.core.ranges import field
from jaxkd.data.rows.base import Rows
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.pair_rows import PairRows
from jaxkd.data.rows.pairs import Instructions, Pairs
from jaxkd.decode.beam import Beam, in_compute_dtype, searcher
from jaxkd.decode.ctc_writer import ctc_decoder
from jaxkd.decode.rows import as_fields, decode_rows
from jaxkd.decode.suppressed import suppressed_tokens
from jaxkd.models import families
from jaxkd.runs.experiment import Workspace
from jaxkd.runtime import hosts
from jaxkd.stages.label import origin
from jaxkd.stages.models import check_stage_model, load_model
from jaxkd.stages.plans import check_head
from jaxkd.stages.shards import raise_if_stopping, write_shards
from jaxkd.train.placement import replicated


@dataclasses.dataclass
class Generate:
    """Beam-decoded targets of the training split, with their scores, n best of each.

    Source: Kim and Rush (2016), arXiv:1606.07947.
    """

    teacher: str = "teacher"
    beam: Beam = dataclasses.field(default_factory=lambda: Beam(width=5, n_best=5))
    # Fills batches up; a hypothesis depends on its own row alone, but for rounding.
    batch_size: int = field(64, at_least=1, result=False)  # sources at a time
    # Sources a file. In the fingerprint: finished files of an interrupted stage are kept.
    shard_rows: int = field(2048, at_least=1)

    reads_text: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.teacher,)

    def check(self) -> None:
        self.beam.check()
        check_rows(self.batch_size)

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        check_pairs(data)
        if data.ctc:
            raise ValueError(
                "data.ctc: targets of CTC models are made by a Label stage of kind 'hypotheses'."
            )
        if self.beam.max_tokens > data.write:
            raise ValueError(
                f"beam.max_tokens is {self.beam.max_tokens}, and a target has room for data.write="
                f"{data.write} tokens."
            )

    def check_config(self, configs: dict[str, Any], rows: Rows) -> None:
        """Raise ValueError unless the teacher predicts what the data has as targets."""
        if configs.get(self.teacher) is not None:
            check_head(self.teacher, configs[self.teacher], rows)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        rows = workspace.rows
        config, params = load_model(workspace.stage_folder(self.teacher), workspace.display.say)
        check_stage_model(workspace, self.teacher, config)
        write, arrange = make_writer(config, rows, self.beam)
        params = arrange(params)
        splits = rows.splits["train"]
        folder, fields = workspace.folder / "store", self.fields(config)
        each = store.HASH + sum(field.size for field in fields.values())

        def shard(number: int, chosen: np.ndarray) -> None:
            part = splits[chosen]
            decoded = decode_rows(
                write,
                params,
                lambda some: rows.sources(part[some]),
                rows.lengths(part)[:, 0],
                batch_size=self.batch_size,
                before=lambda: raise_if_stopping(workspace),
            )
            arrays = as_fields(decoded)
            hashes = store.hashes(rows.sources(part))
            examples = ((hashes[i], {k: v[i] for k, v in arrays.items()}) for i in range(len(part)))
            store.write_shard(folder, number, fields, examples)

        count = len(splits)
        shards = write_shards(
            workspace, folder, shard, examples=count, shard_rows=self.shard_rows, example_bytes=each
        )
        if not hosts.first():
            return {}
        store.write_header(
            folder, fields, made_from(workspace, self.teacher), examples=count, shards=shards
        )
        return {"examples": count, "hypotheses": self.beam.n_best, "megabytes": each * count / 1e6}

    def fields(self, config: families.Config) -> dict[str, Field]:
        """Shapes and dtypes of the arrays stored for each example."""
        n, most = self.beam.n_best, self.beam.max_tokens
        return {
            "tokens": store.ids_of(config.vocabulary, n, most),
            "lengths": Field((n,), "uint16"),
            "log_probability": Field((n,), "float32"),
            "scores": Field((n,), "float32"),
        }


def make_writer(
    config: families.Config, rows: PairRows, beam: Beam, devices: int = 0
) -> tuple[Any, Callable[[Any], Any]]:
    """A search for these rows, and a function from parameters to those that it takes.

    Args:
      devices: local devices it runs on; 0: all.
    """
    model = families.build(config)
    if rows.ctc:
        return ctc_decoder(model, beam, rows.source_columns), model.arrange
    tokenizer = rows.tokenizer
    search = searcher(
        model, config, beam, pad=tokenizer.pad, devices=devices or jax.local_device_count(),
        **ending(config, rows),
    )  # fmt: skip
    lowered = jax.jit(functools.partial(in_compute_dtype, config))

    def arrange(params: Any) -> Any:
        params = lowered(model.arrange(params))
        return jax.device_put(params) if devices == 1 else replicated(params)

    return search, arrange


def ending(config: families.Config, rows: PairRows) -> dict[str, Sequence[int]]:
    """Tokens that end a target of these rows, and those that are never written."""
    suppressed = suppressed_tokens(
        rows.tokenizer, config.vocabulary, beginning=rows.target_beginning
    )
    return {"eos_ids": [rows.tokenizer.sep], "suppress_tokens": suppressed}


def check_rows(batch_size: int) -> None:
    """Raise ValueError unless the rows of a batch divide evenly over the local devices."""
    if batch_size % jax.local_device_count():
        raise ValueError(
            f"batch_size is {batch_size}; it must be a multiple of the "
            f"{jax.local_device_count()} devices."
        )


def check_pairs(data: Any) -> None:
    """Raise ValueError unless the data has sources and targets."""
    if not isinstance(data, Pairs | Instructions):
        raise ValueError(
            f"data is {type(data).__name__}: only Pairs and Instructions have a source to read and "
            "a target to write."
        )


def made_from(workspace: Workspace, teacher: str) -> dict[str, Any]:
    """What generated targets depend on."""
    return origin(workspace, teacher, Masking())


def hypotheses(workspace: Workspace, stage: str) -> dict[str, np.ndarray]:
    """The arrays that a `Generate` stage stored, [rows, N, ...] by name.

    Raises:
      FileNotFoundError, ValueError: as `checkpoint.teacher_store.Store`.
    """
    stored = Store(
        workspace.stage_folder(stage) / "store",
        made_from(workspace, workspace.stages[stage].teacher),
    )
    rows, parts = workspace.rows.splits["train"], []
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        parts.append(stored.read(start + np.arange(len(part)), workspace.rows.sources(part)))
    return {name: np.concatenate([part[name] for part in parts]) for name in stored.fields}
