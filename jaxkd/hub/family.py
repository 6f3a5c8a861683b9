"""One family as HuggingFace writes it: the keys of its config.json and the names of its tensors."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.core.names import did_you_mean, matches
from jaxkd.hub.names import Table
from jaxkd.models.config import Config
from jaxkd.models.parts import exit_name

PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
# One label whose checkpoint does not say of what kind: transformers' pipeline applies a sigmoid.
UNNAMED = "unnamed"
EXITS = "exits"  # a key of config.json, and what the names of exits' tensors begin with
WRAPPERS = ("module.", "_orig_mod.")  # put before every name by DataParallel, torch.compile


@dataclasses.dataclass(frozen=True)
class Head:
    """A head under HuggingFace's names (with the prefix, where they have it)."""

    architecture: str  # the class of transformers
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: Sequence[str] = ()
    optional: Sequence[str] = ()  # our parameters that a checkpoint may leave out
    # Tensors that repeat another one where the head is tied: they are compared, then dropped.
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Family:
    """All that differs between families. Bare models are stored without `prefix`."""

    model_type: str
    config: type[Config]
    keys: Mapping[str, str]  # our field -> key of config.json
    fixed: Mapping[str, Sequence[Any]]  # key -> the values that are implemented
    prefix: str
    body: Mapping[str, str]  # our modules -> names in files, without the prefix
    heads: Mapping[str, Head]
    ignored: Sequence[str] = ()
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    also: Mapping[str, str] = dataclasses.field(default_factory=dict)  # architecture -> our head
    untransposed: Sequence[str] = ()  # patterns of our modules whose kernels are stored as ours
    # key -> what transformers takes for it if it is absent, where our config's default differs
    absent: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # What one key for one field cannot say: config.json -> our fields, our config -> keys.
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda stored: {}
    write: Callable[[Any], dict[str, Any]] = lambda config: {}

    def table(
        self,
        head: str,
        *,
        other_heads: bool = False,
        extra: Sequence[str] = (),
        exits: Sequence[int] = (),
    ) -> Table:
        """The names of a model with this head.

        Args:
          exits: blocks with an early exit. Their tensors have our names: exits.3.classify.weight.
          other_heads: ignore the tensors of other heads.
          extra: ignore these tensors too.
        """
        this = self.heads[head]
        modules = {path: f"{self.prefix}.{name}" for path, name in self.body.items()}
        ignored = [*self.ignored, *this.ignored, *this.copies, *extra]
        heads = [path for path in modules | dict(this.modules) if path.startswith("head/")]
        for i in exits:
            own = [path.removeprefix("head/") for path in heads]
            modules |= {f"{exit_name(i)}/{path}": f"{EXITS}.{i}.{path}" for path in own}
        if not exits:
            ignored.append(f"{EXITS}.*")
        if other_heads:
            for other in self.heads.values():
                ignored += [f"{name}.*" for name in other.modules.values()]
                ignored += [*other.arrays.values(), *other.ignored, *other.copies]
        return Table(
            modules | dict(this.modules), this.arrays, ignored, self.renamed, self.untransposed
        )

    def stored(self, name: str, head: str) -> str:
        """The name in the file of a model with this head."""
        return name.removeprefix(f"{self.prefix}.") if head == "bare" else name

    def full(self, names: Sequence[str]) -> dict[str, str]:
        """Names with the prefix, which a body stored alone leaves out -> names as stored.

        What wrappers put in front of every name is taken off first.
        """
        plain = {name: name for name in names}
        while plain and (wrapper := _wrapper(plain)):
            plain = {name.removeprefix(wrapper): old for name, old in plain.items()}
        if any(name.startswith(f"{self.prefix}.") for name in plain):
            return plain
        return {
            name if self._of_a_head(name) else f"{self.prefix}.{name}": old
            for name, old in plain.items()
        }

    def _of_a_head(self, name: str) -> bool:
        """Whether a tensor is a head's that stands beside the body, not in it."""
        patterns = [
            pattern
            for head in self.heads.values()
            for pattern in (
                *(f"{module}.*" for module in head.modules.values()),
                *head.arrays.values(),
                *head.ignored,
                *head.copies,
            )
            if not pattern.startswith(f"{self.prefix}.")
        ]
        patterns.append(f"{EXITS}.*")
        return matches(name, patterns)

    def other_copies(self, tensors: Mapping[str, np.ndarray], head: str) -> list[str]:
        """Tensors that are no copies, though a tied model of this head says that they are."""
        return [
            name
            for name, original in self.heads[head].copies.items()
            if name in tensors
            and original in tensors
            and not _equal(tensors[name], tensors[original])
        ]

    def head(self, stored: Mapping[str, Any], tensors: Sequence[str]) -> str:
        """Which of our heads a checkpoint has: by its `architectures`, else by its tensors.

        Raises:
          ValueError: for an architecture that is not implemented.
        """
        known = {head.architecture: name for name, head in self.heads.items()} | dict(self.also)
        architecture = (stored.get("architectures") or [None])[0]
        if architecture is None:
            full = self.full(tensors)
            for name, head in self.heads.items():
                needed = {f"{module}.weight" for module in head.modules.values()}
                if name != "bare" and needed and needed <= full.keys():
                    return name
            return "bare" if "bare" in self.heads else next(iter(self.heads))
        if architecture not in known:
            raise ValueError(
                f"config.json: architectures={architecture!r} is not implemented. "
                + did_you_mean(architecture, known)
            )
        return known[architecture]

    def from_hub(self, stored: Mapping[str, Any], **changes: Any) -> Config:
        """Our config of a config.json; absent keys mean what transformers takes them to mean.

        Raises:
          ValueError: names the key, the value found and those supported.
        """
        stored = dict(self.absent) | dict(stored)
        for key, supported in self.fixed.items():
            if key in stored and stored[key] not in supported:
                raise ValueError(
                    f"config.json: {key}={stored[key]!r} is not implemented; supported: "
                    f"{', '.join(map(repr, supported))}."
                )
        fields = {f: stored[key] for f, key in self.keys.items() if stored.get(key) is not None}
        # absent or null means: as everywhere else in the model
        if "classifier_dropout" not in fields and (
            self.keys.get("classifier_dropout") == "classifier_dropout"
        ):
            fields["classifier_dropout"] = fields.get("dropout", self.config.dropout)
        # Other models carry labels too, that mean nothing.
        if changes.get("head", "").endswith("classification"):
            fields |= _classes(stored)
        if changes.get("head") == "sequence_classification" and stored.get(EXITS):
            pooler = stored.get("exit_pooler", self.config.exit_pooler)
            reads = stored.get("exit_reads", self.config.exit_reads)
            fields |= {
                "exits": tuple(stored[EXITS]), "exit_pooler": pooler, "exit_reads": reads
            }  # fmt: skip
        return self.config(**(fields | self.read(stored) | changes))

    def to_hub(self, config: Config) -> dict[str, Any]:
        """The config.json of a model of ours."""
        if config.head_reads != "token":
            raise ValueError(
                f"the head of this {config.family} was an exit and reads the mean of all tokens; "
                "transformers' classifiers read one. Add exits with reads='token', or leave the "
                "folder out: --config.stages.export.skip=\"('huggingface',)\"."
            )
        described = {key: getattr(config, field) for field, key in self.keys.items()}
        labels = dict(enumerate(config.labels))
        if config.head.endswith("classification"):
            described["id2label"] = {str(i): name for i, name in labels.items()}
            described["label2id"] = {name: i for i, name in labels.items()}
            problem = config.problem_type or ("regression" if len(labels) == 1 else UNNAMED)
            described |= {"problem_type": problem} if problem != UNNAMED else {}
        if config.exits:  # keys of ours, which transformers keeps and does not read
            own = ("exit_pooler", "exit_reads")
            described |= {EXITS: list(config.exits)} | {name: getattr(config, name) for name in own}
        described["tie_word_embeddings"] = getattr(config, "tied", True)
        return (
            described
            | self.write(config)
            | {
                "model_type": self.model_type,
                "architectures": [self.heads[config.head].architecture],
            }
        )


def _classes(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Labels and kind of a classifier."""
    fields: dict[str, Any] = {}
    problem = stored.get("problem_type") or ""
    if problem and problem not in PROBLEMS:
        raise ValueError(
            f"config.json: problem_type={problem!r} is not implemented; supported: "
            f"{', '.join(PROBLEMS)}."
        )
    fields["problem_type"] = problem
    labels = stored.get("id2label")
    if labels:
        try:
            fields["labels"] = tuple(str(labels[i]) for i in sorted(labels, key=int))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"config.json: id2label={labels!r} is no object of class numbers and names."
            ) from error
    elif stored.get("num_labels") is not None:
        fields["labels"] = tuple(f"LABEL_{i}" for i in range(stored["num_labels"]))
    if len(fields.get("labels", ())) == 1:
        # regression is what one label means to us anyway
        fields["problem_type"] = "" if problem == "regression" else problem or UNNAMED
    return fields


def _wrapper(names: Iterable[str]) -> str:
    """What a wrapper put before every name; empty if there is no such thing."""
    return next((w for w in WRAPPERS if all(name.startswith(w) for name in names)), "")


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are equal, a few rows at a time: they may be larger than memory is."""
    if one.size != other.size or one.shape[-1:] != other.shape[-1:]:
        return False
    one, other = (x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1) for x in (one, other))
    rows = range(0, len(one), 4096)
    return all(np.array_equal(one[i : i + 4096], other[i : i + 4096]) for i in rows)
