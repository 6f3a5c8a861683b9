"""The fields every family's config has, and what they must satisfy before a model can be built."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxkd.core.names import did_you_mean
from jaxkd.core.tree import map_named
from jaxkd.models import axes
from jaxkd.models.activations import activation
from jaxkd.models.attention import KINDS as ATTENTIONS

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

EXIT_POOLERS = ("own", "shared")
# What a classifier of sequences reads: the token its kind of head reads, or the mean of all tokens.
READS = ("token", "mean")
# Heads without a classifier, and so without dropout of their own.
NO_CLASSIFIER = ("bare", "masked_lm", "causal_lm", "seq2seq_lm")


@dataclasses.dataclass
class Config:
    """A model's shape. A family is a subclass that names itself; see families.register."""

    vocabulary: int = 30522  # rows of the token embedding
    layers: int = 12
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    feed_forwards: tuple[int, ...] = ()  # of each block, where they differ; else feed_forward
    activation: str = "gelu"  # see models/activations.py
    max_length: int = 512
    dropout: float = 0.1  # of the embeddings and of each sub-layer's output
    attention_dropout: float = 0.1  # of the attention weights
    activation_dropout: float = 0.0  # within the feed-forward
    norm_epsilon: float = 1e-12
    init_std: float = 0.02
    pad: int = 0  # id of the padding token; -1: there is none
    compute: str = "float32"  # or bfloat16; parameters, softmax and norms stay float32
    attention: str = "plain"  # how it is computed: see models/attention.py
    scan_layers: bool = False  # compile one block and loop over it, instead of each block
    head: str = "bare"  # one of known_heads
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")  # of a classifier; one label is regression
    classifier_dropout: float = 0.1  # before a classifier
    # Blocks after which one more classifier predicts (early exits); after the last the head does.
    exits: tuple[int, ...] = ()
    exit_pooler: str = "own"  # of an exit, or "shared": the head's layers before its classifier
    exit_reads: str = "token"  # one of READS
    head_reads: str = "token"  # "mean" where the head was such an exit, before pruning
    # What a HuggingFace folder says besides the shape, kept so that it can be written again.
    problem_type: str = ""  # of a classifier (see hub/family.py); empty: by its labels
    # Defaults of `generate` in transformers' words: token ids, beams (see hub/generation.py). No
    # part of the shape: configs that differ in it alone are equal.
    generation: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    pooling: str = dataclasses.field(default="", compare=False)  # see hub/sentence_transformers.py

    # Belong to the family; no checkpoint can change them.
    family: ClassVar[str] = ""  # its name in families.FAMILIES
    known_heads: ClassVar[Mapping[str, Any]] = {}  # name -> flax module
    shared_blocks: ClassVar[bool] = False  # one block, applied `layers` times
    one_list: ClassVar[bool] = True  # of blocks with one feed-forward each

    @property
    def dtype(self) -> Any:
        """What products are computed in."""
        return DTYPES[self.compute]

    @property
    def positions_for_tokens(self) -> int:
        """The longest sequence the model accepts."""
        return self.max_length

    @property
    def drops(self) -> bool:
        """Whether training needs a key for dropout: the rate of some part is above 0."""
        rates = [self.dropout, self.attention_dropout, self.activation_dropout]
        if self.head not in NO_CLASSIFIER:
            rates.append(self.classifier_dropout)
        return max(rates) > 0

    @property
    def key_width(self) -> int:
        """Width of one attention head's queries and keys."""
        return self.width // self.heads

    def block(self, i: int) -> "Config":
        """The shape of block `i`; blocks may differ."""
        if not self.feed_forwards:
            return self
        own = self.feed_forwards[i]
        return dataclasses.replace(self, feed_forward=own, feed_forwards=())

    def keep(self, blocks: Sequence[int]) -> "Config":
        """The shape of the model that has only these blocks, in this order."""
        before = list(range(len(blocks))) if self.shared_blocks else list(blocks)
        was_exit = before[-1] in self.exits
        return dataclasses.replace(
            self,
            layers=len(blocks),
            exits=self.kept_exits(blocks),
            head_reads=self.exit_reads if was_exit else self.head_reads,
            feed_forwards=tuple(self.feed_forwards[block] for block in before)
            if self.feed_forwards
            else (),
        )

    def kept_exits(self, blocks: Sequence[int]) -> tuple[int, ...]:
        """Exits of the model that has only these blocks: the last one's becomes the head."""
        # One block that is applied several times has an exit for each turn.
        before = range(len(blocks)) if self.shared_blocks else list(blocks)
        return tuple(i for i, block in enumerate(before[:-1]) if block in self.exits)

    def for_hub(self, params: Any) -> tuple["Config", Any]:
        """Config and parameters of the same model as a HuggingFace folder can hold it.

        transformers has one width of feed-forwards: narrower ones get channels of zeros, which add
        nothing.
        """
        if not self.feed_forwards:
            return self, params
        widest = max(self.feed_forwards)

        def padded(name: str, leaf: Any) -> Any:
            if not name.startswith("blocks/"):
                return leaf
            missing = widest - self.feed_forwards[int(name.split("/")[1])]
            letters = axes.axes(name, np.ndim(leaf))
            return np.pad(leaf, [(0, missing if letter == "F" else 0) for letter in letters])

        uniform = dataclasses.replace(self, feed_forward=widest, feed_forwards=())
        return uniform, map_named(padded, params)

    def check(self) -> None:
        """Raise ValueError for a shape that cannot be built."""
        activation(self.activation)
        for name in ("vocabulary", "layers", "width", "heads", "feed_forward", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{self.family}: {name} is {getattr(self, name)}; it must be at least 1."
                )
        self._check_feed_forwards()
        self.check_heads()
        self.one_of("compute", DTYPES)
        self.one_of("attention", ATTENTIONS)
        if self.attention == "cudnn" and self.compute != "bfloat16":
            raise ValueError(
                f"{self.family}: attention='cudnn' computes in bfloat16; compute is "
                f"{self.compute!r}. Set compute to 'bfloat16', or attention to 'chunked'."
            )
        if self.attention != "plain" and self.attention_dropout:
            raise ValueError(
                f"{self.family}: attention={self.attention!r} computes no single weights "
                f"and cannot drop any; attention_dropout is {self.attention_dropout}. Set it to 0, "
                "or attention to 'plain'."
            )
        self.one_of("head", self.known_heads)
        self._check_exits()
        if not self.labels:
            raise ValueError(
                f"{self.family}: labels is empty; a regression has one, a classifier one a class."
            )

    def _check_feed_forwards(self) -> None:
        widths = self.feed_forwards
        if not widths:
            return
        if self.shared_blocks or not self.one_list:
            raise ValueError(
                f"{self.family}: feed_forwards is of models with one list of blocks of their own. "
                "Set it to (), and feed_forward to one number."
            )
        if len(widths) != self.layers or min(widths) < 1:
            raise ValueError(
                f"{self.family}: feed_forwards is {widths}; it has a number from 1 for each of the "
                f"{self.layers} blocks."
            )
        if self.scan_layers:
            raise ValueError(
                f"{self.family}: scan_layers needs blocks of one shape, and feed_forwards is "
                f"{widths}. Set scan_layers to False."
            )

    def _check_exits(self) -> None:
        self.one_of("exit_pooler", EXIT_POOLERS)
        self.one_of("exit_reads", READS)
        self.one_of("head_reads", READS)
        if self.head_reads == "mean" and self.head != "sequence_classification":
            raise ValueError(
                f"{self.family}: head_reads='mean' is of classifiers of sequences, and the head is "
                f"{self.head}. Set it to 'token'."
            )
        if not self.exits:
            return
        if self.head != "sequence_classification":
            raise ValueError(
                f"{self.family}: exits are classifiers of sequences, and the head is {self.head}. "
                "Set head to 'sequence_classification', or exits to ()."
            )
        inside = all(0 <= i < self.layers - 1 for i in self.exits)
        if not inside or list(self.exits) != sorted(set(self.exits)):
            raise ValueError(
                f"{self.family}: exits is {self.exits}; allowed are ascending blocks from 0 to "
                f"{self.layers - 2}: block {self.layers - 1} is the last, and has the head."
            )

    def check_heads(self) -> None:
        """Raise ValueError if the width cannot be cut into the attention heads."""
        if self.width % self.heads:
            allowed = [h for h in range(1, self.width + 1) if self.width % h == 0 and h <= 64]
            raise ValueError(
                f"{self.family}: width {self.width} is not divisible by {self.heads} heads. "
                f"Set heads to one of {allowed}, or change the width."
            )

    def one_of(self, name: str, allowed: Any) -> None:
        """Raise ValueError if the value of the field `name` is not allowed."""
        value = getattr(self, name)
        if value not in allowed:
            raise ValueError(f"{self.family}: {name}={value!r}. {did_you_mean(value, allowed)}")

    def check_length(self, length: int) -> None:
        """Raise ValueError if a sequence is longer than the model has positions for."""
        if length > self.positions_for_tokens:
            raise ValueError(
                f"a sequence of {length} tokens is longer than the model's "
                f"{self.positions_for_tokens} positions. "
                "Shorten data.length or enlarge the model's max_length."
            )
