"""Let a teacher write a target for every source of the training split, once, and keep them all."""

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np

from jaxkd.checkpoint import teacher_store as store
from jaxkd.checkpoint.teacher_store import Field, Store
from jaxkd.core.batch import Batch
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.pairs import PairRows, Pairs
from jaxkd.decode.beam import Beam, Decoded, searcher
from jaxkd.decode.ctc import n_best_of
from jaxkd.decode.rows import as_fields, decode_rows
from jaxkd.models import families
from jaxkd.models.model import forward
from jaxkd.runs.experiment import Workspace
from jaxkd.runtime import hosts
from jaxkd.stages.label import origin
from jaxkd.stages.shards import raise_if_stopping, write_shards
from jaxkd.stages.training import check_head, check_tokenizer, load_model, suppressed_tokens
from jaxkd.train.placement import replicated


@dataclasses.dataclass
class Generate:
    """Beam-decoded targets of the training split, with their scores, n best of each.

    Source: Kim and Rush (2016), arXiv:1606.07947.
    """

    teacher: str = "teacher"
    beam: Beam = dataclasses.field(default_factory=lambda: Beam(width=5, n_best=5))
    batch_size: int = 64  # sources at a time
    shard_rows: int = 2048  # sources a file; what is finished of a cut-off stage stays

    reads_text: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.teacher,)

    def check(self) -> None:
        self.beam.check()
        for name in ("batch_size", "shard_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        check_rows(self.batch_size)

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        check_pairs(data)
        if data.ctc:
            raise ValueError(
                "data.ctc: targets of models that name labels at places are made by a Label "
                "stage of kind 'hypotheses'."
            )
        if self.beam.max_tokens > data.write:
            raise ValueError(
                f"beam.max_tokens is {self.beam.max_tokens}, and a target has room for data.write="
                f"{data.write} tokens."
            )

    def run(self, workspace: Workspace) -> dict[str, Any]:
        rows = workspace.rows
        config, params = load_model(workspace.stage_folder(self.teacher), workspace.display.say)
        check_head(self.teacher, config, rows)
        check_tokenizer(workspace, self.teacher, config)
        write, params = writer(config, params, rows, self.beam)
        splits = rows.splits["train"]
        folder, fields = workspace.folder / "store", self.fields(config)
        each = store.HASH + sum(field.size for field in fields.values())

        def shard(number: int, chosen: np.ndarray) -> None:
            part = splits[chosen]
            made = decode_rows(
                write,
                params,
                lambda some: rows.sources(part[some]),
                rows.lengths(part)[:, 0],
                batch_size=self.batch_size,
                before=lambda: raise_if_stopping(workspace),
            )
            arrays = as_fields(made)
            told = store.hashes(rows.sources(part))
            examples = ((told[i], {k: v[i] for k, v in arrays.items()}) for i in range(len(part)))
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
        """How the arrays of an example are written."""
        n, most = self.beam.n_best, self.beam.max_tokens
        return {
            "tokens": store.ids_of(config.vocabulary, n, most),
            "lengths": Field((n,), "uint16"),
            "log_probability": Field((n,), "float32"),
            "scores": Field((n,), "float32"),
        }


def writer(
    config: families.Config, params: Any, rows: PairRows, beam: Beam, devices: int = 0
) -> tuple[Any, Any]:
    """A search for these rows over so many local devices (0: all), and the parameters it takes."""
    if rows.ctc:
        return ctc_decoder(config, params, beam, rows.columns)
    model = families.build(config)
    known, suppress_tokens = rows.tokenizer, suppressed_tokens(rows, config)
    search = searcher(
        model, config, beam, eos_ids=[known.sep], pad=known.pad, suppress_tokens=suppress_tokens,
        devices=devices or jax.local_device_count(),
    )  # fmt: skip
    arranged = model.arrange(params)
    return search, jax.device_put(arranged) if devices == 1 else replicated(arranged)


def ctc_decoder(config: families.Config, params: Any, beam: Beam, room: int) -> tuple[Any, Any]:
    """The same of a model that names a label or nothing at each place; a beam of one is greedy.

    Args:
      room: labels a text has room for, whatever places a batch has.
    """
    model = families.build(config)

    @jax.jit
    def places(params: Any, batch: Batch) -> Any:
        return jax.nn.log_softmax(forward(model, params, batch).logits)

    def write(params: Any, batch: Batch) -> Decoded:
        told = jax.device_get(places(params, batch))
        mask, how = np.asarray(batch.mask), dict(width=beam.width, n=beam.n_best, room=room)
        tokens, lengths, scores = n_best_of(told, mask, **how)
        return Decoded(tokens, lengths, scores, scores)

    return write, model.arrange(params)


def check_rows(batch_size: int) -> None:
    """Raise ValueError unless so many rows divide over the devices here."""
    if batch_size % jax.local_device_count():
        raise ValueError(
            f"batch_size is {batch_size}; it must be a multiple of the "
            f"{jax.local_device_count()} devices."
        )


def check_pairs(data: Any) -> None:
    """Raise ValueError unless there is something to read and something to write."""
    if not isinstance(data, Pairs):
        raise ValueError(
            f"data is {type(data).__name__}: only Pairs have a source to read and a target to "
            "write."
        )


def made_from(workspace: Workspace, teacher: str) -> dict[str, Any]:
    """What generated targets hang on."""
    return origin(workspace, teacher, Masking())


def hypotheses(workspace: Workspace, stage: str) -> dict[str, np.ndarray]:
    """All that a `Generate` stage wrote, [rows, N, ...] by name.

    Raises:
      FileNotFoundError, ValueError: as `data.store.Store` says.
    """
    found = Store(
        workspace.stage_folder(stage) / "store",
        made_from(workspace, workspace.stages[stage].teacher),
    )
    rows, parts = workspace.rows.splits["train"], []
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        parts.append(found.read(start + np.arange(len(part)), workspace.rows.sources(part)))
    return {name: np.concatenate([part[name] for part in parts]) for name in found.fields}
