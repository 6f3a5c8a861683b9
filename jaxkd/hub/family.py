"""One family as HuggingFace writes it: the keys of its config.json and the names of its tensors."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxkd.core.names import did_you_mean
from jaxkd.hub.names import Table
from jaxkd.models.config import Config


@dataclasses.dataclass(frozen=True)
class Head:
    """A head under their names (in full)."""

    architecture: str  # the class of transformers
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: Sequence[str] = ()
    optional: Sequence[str] = ()  # our parameters that a checkpoint may leave out


@dataclasses.dataclass(frozen=True)
class Family:
    """All that differs between families here. Bare models are stored without `prefix`."""

    model_type: str
    config: type[Config]
    keys: Mapping[str, str]  # our field -> their key
    fixed: Mapping[str, Sequence[Any]]  # their key -> the values that are implemented
    prefix: str
    body: Mapping[str, str]  # our modules -> theirs, without the prefix
    heads: Mapping[str, Head]
    ignored: Sequence[str] = ()
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    also: Mapping[str, str] = dataclasses.field(default_factory=dict)  # architecture -> our head
    untransposed: Sequence[str] = ()  # patterns of our modules whose kernels are stored as ours
    # What one key for one field cannot say: their config -> our fields, our config -> their keys.
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda found: {}
    write: Callable[[Any], dict[str, Any]] = lambda config: {}

    def table(self, head: str, *, other_heads: bool = False) -> Table:
        """The names of a model with this head; `other_heads`: what belongs to others is ignored."""
        at = self.heads[head]
        modules = {ours: f"{self.prefix}.{theirs}" for ours, theirs in self.body.items()}
        ignored = [*self.ignored, *at.ignored]
        if other_heads:
            for other in self.heads.values():
                ignored += [f"{name}.*" for name in other.modules.values()]
                ignored += [*other.arrays.values(), *other.ignored]
        return Table(
            modules | dict(at.modules), at.arrays, ignored, self.renamed, self.untransposed
        )

    def stored(self, name: str, head: str) -> str:
        """The name in the file of a model with this head."""
        return name.removeprefix(f"{self.prefix}.") if head == "bare" else name

    def full(self, names: Sequence[str]) -> dict[str, str]:
        """Names with the prefix, where the file of a bare model leaves it out, -> as stored."""
        bare = not any(name.startswith(f"{self.prefix}.") for name in names)
        return {f"{self.prefix}.{name}" if bare else name: name for name in names}

    def head(self, found: Mapping[str, Any], tensors: Sequence[str]) -> str:
        """Which of our heads a checkpoint has: by its `architectures`, else by its tensors.

        Raises:
          ValueError: for an architecture that is not implemented.
        """
        ours = {head.architecture: name for name, head in self.heads.items()} | dict(self.also)
        named = (found.get("architectures") or [None])[0]
        if named is None:
            full = self.full(tensors)
            for name, head in self.heads.items():
                needed = {f"{module}.weight" for module in head.modules.values()}
                if name != "bare" and needed and needed <= full.keys():
                    return name
            return "bare" if "bare" in self.heads else next(iter(self.heads))
        if named not in ours:
            raise ValueError(
                f"config.json: architectures={named!r} is not implemented. "
                + did_you_mean(named, ours)
            )
        return ours[named]

    def from_hub(self, found: Mapping[str, Any], **changes: Any) -> Config:
        """Our config out of a config.json; an absent key keeps our default.

        Raises:
          ValueError: names the key, the value found and those supported.
        """
        for key, supported in self.fixed.items():
            if key in found and found[key] not in supported:
                raise ValueError(
                    f"config.json: {key}={found[key]!r} is not implemented; supported: "
                    f"{', '.join(map(repr, supported))}."
                )
        ours = {f: found[key] for f, key in self.keys.items() if found.get(key) is not None}
        # absent or null means: as everywhere else in the model
        if "classifier_dropout" not in ours and (
            self.keys.get("classifier_dropout") == "classifier_dropout"
        ):
            ours["classifier_dropout"] = ours.get("dropout", self.config.dropout)
        # Other models carry labels too, that mean nothing.
        classifies = changes.get("head", "").endswith("classification")
        labels = found.get("id2label") if classifies else None
        if labels:
            ours["labels"] = tuple(labels[i] for i in sorted(labels, key=int))
        elif classifies and "num_labels" in found:
            ours["labels"] = tuple(f"LABEL_{i}" for i in range(found["num_labels"]))
        return self.config(**(ours | self.read(found) | changes))

    def to_hub(self, config: Config) -> dict[str, Any]:
        """The config.json of a model of ours."""
        ours = {theirs: getattr(config, field) for field, theirs in self.keys.items()}
        labels = dict(enumerate(config.labels))
        if config.head.endswith("classification"):
            ours["id2label"] = {str(i): name for i, name in labels.items()}
            ours["label2id"] = {name: i for i, name in labels.items()}
            if len(labels) == 1:
                ours["problem_type"] = "regression"
        tied = {"tie_word_embeddings": getattr(config, "tied", True)}
        return (
            ours
            | tied
            | self.write(config)
            | {
                "model_type": self.model_type,
                "architectures": [self.heads[config.head].architecture],
            }
        )
