"""Let a teacher run over the training split once, and keep what it says on disk."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd.checkpoint import teacher_store as store
from jaxkd.checkpoint.teacher_store import Field, Store
from jaxkd.core.batch import Batch
from jaxkd.core.names import did_you_mean
from jaxkd.core.random import stream
from jaxkd.core.stored_targets import Draws, NBest, Scores, States, StoredTargets, TopK
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.pairs import Pairs
from jaxkd.data.rows.text import MaskedText, Rows
from jaxkd.decode.ctc import n_best_of
from jaxkd.models import families
from jaxkd.models.model import Params, forward, states
from jaxkd.runs.experiment import Workspace
from jaxkd.runtime import hosts
from jaxkd.stages.shards import raise_if_stopping, write_shards
from jaxkd.stages.training import check_head, check_tokenizer, depends_on, load_model

KINDS = ("states", "top_k", "draws", "scores", "hypotheses")


@dataclasses.dataclass
class Label:
    """Targets of every row of the training split, for any number of students.

    states: the last hidden states, in the teacher's compute type, from which its head gives the
    logits again: exact. top_k: the likeliest tokens, with the rest as one event: a lower bound of
    the KL. draws: tokens drawn from its distribution: unbiased, and smallest. scores: all logits,
    where there are few classes: exact. hypotheses: of a model that names a label or nothing at each
    place (CTC), the likeliest hypotheses of a row and their probabilities.
    """

    teacher: str = "teacher"
    kind: str = "states"  # one of KINDS
    k: int = 64  # top_k: tokens kept
    n: int = 12  # draws: tokens drawn; hypotheses: how many of a row
    width: int = 16  # hypotheses: of the beam that finds them
    masking: Masking = dataclasses.field(default_factory=lambda: Masking(smoothing=0.0))
    batch_size: int = 32
    shard_rows: int = 4096  # examples a file; what is finished of a cut-off stage is not made again
    chunk: int = 256  # positions whose logits exist at once

    reads_text: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.teacher,)

    def check(self) -> None:
        self.masking.check()
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}. {did_you_mean(self.kind, KINDS)}")
        for name in ("k", "n", "width", "batch_size", "shard_rows", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.kind == "hypotheses" and self.n > self.width:
            raise ValueError(
                f"n is {self.n}: a beam of width={self.width} finds no more than that."
            )

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        if isinstance(data, MaskedText) and not self.masking.fixed:
            raise ValueError(
                "masking.fixed is False: the text would be masked anew in every epoch, and what "
                "the teacher said of it would be of no use. Set it to True."
            )
        ctc = getattr(data, "ctc", False)
        if ctc != (self.kind == "hypotheses"):
            raise ValueError(
                f"kind={self.kind!r}, and data.ctc is {ctc}: hypotheses are of CTC data, which has "
                "only these."
            )
        if isinstance(data, Pairs) and not ctc and tuple(data.shares) != (1.0,):
            raise ValueError(
                f"data.shares is {data.shares}: a target stored of pairs has one width. Set it to "
                "(1.0,), or let the teacher run (labels='')."
            )

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.teacher), workspace.display.say)
        check_head(self.teacher, config, workspace.rows)
        check_tokenizer(workspace, self.teacher, config)
        few = config.head == "sequence_classification"
        if few != (self.kind == "scores"):
            raise ValueError(
                f"kind={self.kind!r}, and {self.teacher!r} has the head {config.head}: scores are "
                "of classifiers, and classifiers have only these."
            )
        count = len(workspace.rows.splits["train"])
        workspace.rows.repeated(np.arange(1), workspace.seed, self.masking)  # or an error, at once
        tokens = len(workspace.rows.tokenizer.fast.get_vocab())  # rows beyond them are padding
        tell = self.teller(config, params, workspace.rows, seed=workspace.seed, size=tokens)
        folder = workspace.folder / "store"
        fields = self.fields(config, tell(np.arange(1))[1])
        each = store.HASH + sum(field.size for field in fields.values())

        def shard(number: int, rows: np.ndarray) -> None:
            examples = self.examples(rows, tell, lambda: raise_if_stopping(workspace))
            store.write_shard(folder, number, fields, examples)

        shards = write_shards(
            workspace, folder, shard, examples=count, shard_rows=self.shard_rows, example_bytes=each
        )
        if not hosts.first():
            return {}
        made_from = origin(workspace, self.teacher, self.masking) | {"kind": self.kind}
        store.write_header(folder, fields, made_from, examples=count, shards=shards)
        asked = max(1, int(np.prod(next(iter(fields.values())).shape[:-1])))
        return {"examples": count, "megabytes": each * count / 1e6, "bytes_a_target": each / asked}

    def teller(
        self, config: families.Config, params: Params, rows: Rows, *, seed: int, size: int
    ) -> Any:
        """A function (row numbers) -> the batch as it was shown, and arrays of the targets.

        Args:
          size: tokens there are; what a wider vocabulary has more is padding.
        """
        model = families.build(config)
        arranged = model.arrange(params)

        @jax.jit
        def program(params: Params, batch: Batch, numbers: Any) -> dict[str, Any]:
            if self.kind == "states":
                hidden = states(model, params, batch).hidden[-1]
                if batch.target_positions is not None:
                    hidden = jnp.take_along_axis(hidden, batch.target_positions[..., None], axis=1)
                return {"hidden": hidden}
            outputs = forward(model, params, batch)
            if self.kind == "hypotheses":
                return {"places": jax.nn.log_softmax(outputs.logits)}
            if self.kind == "scores":
                return {"logits": outputs.logits}
            key = stream(seed, "label")
            asked = outputs.projection.features.shape[1]
            keys = jax.vmap(lambda row: jax.random.split(jax.random.fold_in(key, row), asked))
            return self._of_vocabulary(outputs.projection, keys(numbers), size)

        def tell(numbers: np.ndarray) -> tuple[Batch, dict[str, np.ndarray]]:
            # A last batch that is not full repeats its last row, so that one program serves all.
            filled = np.minimum(numbers[0] + np.arange(self.batch_size), numbers[-1])
            batch = rows.repeated(filled, seed, self.masking)
            found = jax.device_get(program(arranged, batch, filled))
            first = len(numbers)
            if self.kind == "hypotheses":
                how = dict(width=self.width, n=self.n, room=rows.columns)
                ids, _, log_p = n_best_of(found["places"], batch.mask, **how)
                found = {"ids": ids, "log_p": log_p}
            return jax.tree.map(lambda x: x[:first], batch), {
                k: v[:first] for k, v in found.items()
            }

        return tell

    def _of_vocabulary(self, projection: Any, keys: Any, size: int) -> dict[str, Any]:
        shape = projection.features.shape[:-1]
        features = projection.features.reshape(-1, projection.features.shape[-1])

        def one(given: Any) -> dict[str, Any]:
            feature, key = given
            made = dataclasses.replace(projection, features=feature[None])
            log_p = jax.nn.log_softmax(made.logits()[0, :size])
            if self.kind == "top_k":
                values, ids = jax.lax.top_k(log_p, min(self.k, size))
                rest = jax.nn.logsumexp(log_p.at[ids].set(-jnp.inf))
                rest = jnp.maximum(rest, jnp.finfo(jnp.float32).min)  # all tokens are known
                return {"ids": ids, "log_p": jnp.append(values, rest)}
            shares = jnp.cumsum(jnp.exp(log_p))
            at = jax.random.uniform(key, (self.n,)) * shares[-1]
            return {"ids": jnp.minimum(jnp.searchsorted(shares, at, side="right"), size - 1)}

        found = jax.lax.map(one, (features, keys.reshape(-1)), batch_size=self.chunk)
        return jax.tree.map(lambda x: x.reshape(*shape, x.shape[-1]), found)

    def fields(self, config: families.Config, example: dict[str, np.ndarray]) -> dict[str, Field]:
        """How the arrays of an example are written."""

        def field(name: str, array: np.ndarray) -> Field:
            if name == "ids":
                return store.ids_of(config.vocabulary, *array.shape[1:])
            kept = {"log_p": "float32", "hidden": config.compute, "logits": "float32"}
            return Field(array.shape[1:], kept[name])

        return {name: field(name, array) for name, array in example.items()}

    def examples(
        self, rows: np.ndarray, tell: Any, before: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """What a shard of these rows holds; `before` is called before each batch, and may raise."""
        for start in range(0, len(rows), self.batch_size):
            before()
            batch, arrays = tell(rows[start : start + self.batch_size])
            for i, content in enumerate(store.hashes(batch)):
                yield content, {name: array[i] for name, array in arrays.items()}


def origin(workspace: Workspace, teacher: str, masking: Masking) -> dict[str, Any]:
    """What a store's targets hang on: refused where any of it differs."""
    # Of the weights themselves: another machine trains other ones from the same configuration.
    files = sorted(workspace.stage_folder(teacher).glob("*/*.sha256.json"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    found = {
        "teacher": [depends_on(str(workspace.stage_folder(teacher))), digest],
        "data": workspace.rows.fingerprint,
        "seed": workspace.seed,
    }
    masked = dataclasses.asdict(masking) if workspace.rows.head == "masked_lm" else None
    return found | {"masking": json.loads(json.dumps(masked))}


def open_store(workspace: Workspace, stage: str, teacher: str, masking: Masking) -> Store:
    """The store a `Label` stage left; errors as `data.store.Store` says."""
    return Store(workspace.stage_folder(stage) / "store", origin(workspace, teacher, masking))


def recall_from(found: Store) -> Any:
    """What the training feed asks of every batch."""

    def recall(numbers: np.ndarray, batch: Batch) -> StoredTargets:
        arrays = found.read(numbers, batch)
        kind = found.made_from["kind"]
        if kind == "states":
            return States(arrays["hidden"])
        if kind == "scores":
            return Scores(arrays["logits"])
        if kind == "draws":
            return Draws(arrays["ids"])
        if kind == "hypotheses":
            return NBest(arrays["ids"][..., : batch.tokens.shape[1]], arrays["log_p"])
        return TopK(arrays["ids"], arrays["log_p"])

    return recall
