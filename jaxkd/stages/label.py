"""Run a teacher over the training split once, and store its outputs on disk."""

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
from jaxkd.core.random import stream
from jaxkd.core.ranges import field
from jaxkd.core.stored_targets import Draws, NBest, Scores, States, StoredTargets, TopK
from jaxkd.data.rows.masking import Masking
from jaxkd.data.rows.pairs import Instructions, Pairs
from jaxkd.data.rows.text import MaskedText, Rows
from jaxkd.decode.ctc import n_best_of
from jaxkd.models import families
from jaxkd.models.model import Params, forward, states
from jaxkd.runs.experiment import Workspace
from jaxkd.runtime import hosts
from jaxkd.stages.models import check_labels, check_stage_model, depends_on, load_model
from jaxkd.stages.plans import check_head, check_masking
from jaxkd.stages.shards import raise_if_stopping, write_shards

KINDS = ("states", "top_k", "draws", "scores", "hypotheses")


@dataclasses.dataclass
class Label:
    """Targets of every row of the training split, for any number of students.

    states: the last hidden states, in the teacher's compute dtype, from which its head computes the
    logits again: exact. top_k: the likeliest tokens, with the rest as one event: a lower bound of
    the KL. draws: tokens sampled from its distribution: unbiased, and smallest. scores: the logits
    of a classifier: exact. hypotheses: the likeliest hypotheses of each row of a CTC model, and
    their probabilities.

    Fields marked result=False change the outputs by rounding at most.
    """

    teacher: str = "teacher"
    kind: str = field("states", one_of=KINDS)  # what is stored
    k: int = field(64, at_least=1)  # top_k: tokens kept
    n: int = field(12, at_least=1)  # draws: tokens sampled; hypotheses: number for each row
    width: int = field(16, at_least=1)  # hypotheses: of the beam that searches for them
    masking: Masking = dataclasses.field(default_factory=lambda: Masking(smoothing=0.0))
    batch_size: int = field(32, at_least=1, result=False)
    # Examples a file. In the fingerprint: finished files of an interrupted stage are kept.
    shard_rows: int = field(4096, at_least=1)
    chunk: int = field(256, at_least=1, result=False)  # positions whose logits exist at once

    reads_text: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True

    def inputs(self) -> tuple[str, ...]:
        return (self.teacher,)

    def check(self) -> None:
        self.masking.check()
        if self.kind == "hypotheses" and self.n > self.width:
            raise ValueError(
                f"n is {self.n}: a beam of width={self.width} finds no more than that."
            )

    def check_among(self, earlier: dict[str, Any], data: Any) -> None:
        if isinstance(data, MaskedText) and not self.masking.fixed:
            raise ValueError(
                "masking.fixed is False: the text would be masked anew in every epoch, and the "
                "stored outputs would be those of other masks. Set it to True."
            )
        ctc = getattr(data, "ctc", False)
        if ctc != (self.kind == "hypotheses"):
            raise ValueError(
                f"kind={self.kind!r}, and data.ctc is {ctc}: hypotheses are of CTC data, which has "
                "only these."
            )
        if isinstance(data, Pairs | Instructions) and not ctc and tuple(data.shares) != (1.0,):
            raise ValueError(
                f"data.shares is {data.shares}: stored targets of pairs have one width. Set it to "
                "(1.0,), or let the teacher run (labels='')."
            )

    def check_config(self, configs: dict[str, Any], rows: Rows) -> None:
        """Raise ValueError if the teacher's head, the data and `kind` do not fit."""
        check_masking(self.masking, rows, Masking(smoothing=0.0))
        config = configs.get(self.teacher)
        if config is not None:
            check_head(self.teacher, config, rows)
            check_labels(self.teacher, config, rows)
            self._check_kind(config)

    def _check_kind(self, config: families.Config) -> None:
        classifier = config.head == "sequence_classification"
        if classifier != (self.kind == "scores"):
            raise ValueError(
                f"kind={self.kind!r}, and {self.teacher!r} has the head {config.head}: scores are "
                "of classifiers, which have only these."
            )

    def run(self, workspace: Workspace) -> dict[str, Any]:
        config, params = load_model(workspace.stage_folder(self.teacher), workspace.display.say)
        check_stage_model(workspace, self.teacher, config)
        self._check_kind(config)
        count = len(workspace.rows.splits["train"])
        workspace.rows.repeated(np.arange(1), workspace.seed, self.masking)  # or an error, at once
        tokens = len(workspace.rows.tokenizer.fast.get_vocab())  # rows beyond them are padding
        rows = workspace.rows.for_model(config)
        label = self.make_labeller(config, params, rows, seed=workspace.seed, size=tokens)
        folder = workspace.folder / "store"
        fields = self.fields(config, label(np.arange(1))[1])
        each = store.HASH + sum(field.size for field in fields.values())

        def shard(number: int, rows: np.ndarray) -> None:
            examples = self.examples(rows, label, lambda: raise_if_stopping(workspace))
            store.write_shard(folder, number, fields, examples)

        shards = write_shards(
            workspace, folder, shard, examples=count, shard_rows=self.shard_rows, example_bytes=each
        )
        if not hosts.first():
            return {}
        made_from = origin(workspace, self.teacher, self.masking) | {"kind": self.kind}
        store.write_header(folder, fields, made_from, examples=count, shards=shards)
        targets = max(1, int(np.prod(next(iter(fields.values())).shape[:-1])))
        return {
            "examples": count,
            "megabytes": each * count / 1e6,
            "bytes_a_target": each / targets,
        }

    def make_labeller(
        self, config: families.Config, params: Params, rows: Rows, *, seed: int, size: int
    ) -> Any:
        """A function (row numbers) -> the batch the teacher read, and arrays of its targets.

        Args:
          size: number of tokens; further rows of the embedding are padding.
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
                return {"log_probs": jax.nn.log_softmax(outputs.logits)}
            if self.kind == "scores":
                return {"logits": outputs.logits}
            key = stream(seed, "label")
            targets = outputs.projection.features.shape[1]
            keys = jax.vmap(lambda row: jax.random.split(jax.random.fold_in(key, row), targets))
            return self._of_vocabulary(outputs.projection, keys(numbers), size)

        def label(numbers: np.ndarray) -> tuple[Batch, dict[str, np.ndarray]]:
            # The last batch is filled up with its last row, so that one compiled program is enough.
            filled = np.minimum(numbers[0] + np.arange(self.batch_size), numbers[-1])
            batch = rows.repeated(filled, seed, self.masking)
            arrays = jax.device_get(program(arranged, batch, filled))
            first = len(numbers)
            if self.kind == "hypotheses":
                how = dict(width=self.width, n=self.n, room=rows.source_columns)
                ids, _, log_p = n_best_of(arrays["log_probs"], batch.mask, **how)
                arrays = {"ids": ids, "log_p": log_p}
            return jax.tree.map(lambda x: x[:first], batch), {
                name: array[:first] for name, array in arrays.items()
            }

        return label

    def _of_vocabulary(self, projection: Any, keys: Any, size: int) -> dict[str, Any]:
        shape = projection.features.shape[:-1]
        features = projection.features.reshape(-1, projection.features.shape[-1])

        def one(feature_and_key: Any) -> dict[str, Any]:
            feature, key = feature_and_key
            single = dataclasses.replace(projection, features=feature[None])
            log_p = jax.nn.log_softmax(single.logits()[0, :size])
            if self.kind == "top_k":
                values, ids = jax.lax.top_k(log_p, min(self.k, size))
                rest = jax.nn.logsumexp(log_p.at[ids].set(-jnp.inf))
                rest = jnp.maximum(rest, jnp.finfo(jnp.float32).min)  # k is the vocabulary
                return {"ids": ids, "log_p": jnp.append(values, rest)}
            shares = jnp.cumsum(jnp.exp(log_p))
            at = jax.random.uniform(key, (self.n,)) * shares[-1]
            return {"ids": jnp.minimum(jnp.searchsorted(shares, at, side="right"), size - 1)}

        targets = jax.lax.map(one, (features, keys.reshape(-1)), batch_size=self.chunk)
        return jax.tree.map(lambda x: x.reshape(*shape, x.shape[-1]), targets)

    def fields(self, config: families.Config, example: dict[str, np.ndarray]) -> dict[str, Field]:
        """Shapes and dtypes of the arrays stored for each example."""

        def field_of(name: str, array: np.ndarray) -> Field:
            if name == "ids":
                return store.ids_of(config.vocabulary, *array.shape[1:])
            dtypes = {"log_p": "float32", "hidden": config.compute, "logits": "float32"}
            return Field(array.shape[1:], dtypes[name])

        return {name: field_of(name, array) for name, array in example.items()}

    def examples(
        self, rows: np.ndarray, label: Any, before: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """The examples of a shard of these rows; `before` is called before each batch."""
        for start in range(0, len(rows), self.batch_size):
            before()
            batch, arrays = label(rows[start : start + self.batch_size])
            for i, content in enumerate(store.hashes(batch)):
                yield content, {name: array[i] for name, array in arrays.items()}


def origin(workspace: Workspace, teacher: str, masking: Masking) -> dict[str, Any]:
    """What a store's targets depend on: it is refused where any of it differs."""
    # Of the weights themselves: another machine trains others from the same configuration.
    files = sorted(workspace.stage_folder(teacher).glob("*/*.sha256.json"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    made_from = {
        "teacher": [depends_on(str(workspace.stage_folder(teacher))), digest],
        "data": workspace.rows.fingerprint,
        "seed": workspace.seed,
    }
    masked = dataclasses.asdict(masking) if workspace.rows.head == "masked_lm" else None
    return made_from | {"masking": json.loads(json.dumps(masked))}


def open_store(workspace: Workspace, stage: str, teacher: str, masking: Masking) -> Store:
    """The store that a `Label` stage left; errors as `checkpoint.teacher_store.Store`."""
    return Store(workspace.stage_folder(stage) / "store", origin(workspace, teacher, masking))


def recall_from(stored: Store) -> Any:
    """A function (row numbers, batch) -> the stored targets of that batch."""

    def recall(numbers: np.ndarray, batch: Batch) -> StoredTargets:
        arrays = stored.read(numbers, batch)
        kind = stored.made_from["kind"]
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
