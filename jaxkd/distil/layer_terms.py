"""Terms that compare what happens inside two models, layer by layer, as a layer map pairs them.

Each is a mean over what counts and over the pairs. Sides of another width meet through a learned
matrix of the student's, trained with it and left behind with the training state.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.names import did_you_mean
from jaxkd.core.outputs import Outputs
from jaxkd.distil.layer_map import MAPS, Pairs, pairs
from jaxkd.distil.schedule import Ramp, check_ramps, extremes

LayerMap = str | tuple[tuple[int, ...], ...]


@dataclasses.dataclass
class LayerTerm:
    """What terms over layers share; `side` is "encoder" for what an encoder-decoder reads with."""

    weight: float = 1.0
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight, temperature
    layer_map: LayerMap = "top"  # a name of layer_map.MAPS, or pairs written out
    side: str = "last"

    several: ClassVar[bool] = False  # whether it takes several teacher layers for one

    def check(self, name: str) -> None:
        check_ramps(self, name)
        if isinstance(self.layer_map, str) and self.layer_map not in MAPS:
            raise ValueError(
                f"{name}.layer_map={self.layer_map!r}. {did_you_mean(self.layer_map, MAPS)}"
            )
        elif len(self.layer_map) == 0:
            raise ValueError(f"{name}.layer_map is empty: there is nothing to compare.")
        several = self.layer_map in ("both", "learned") or (
            not isinstance(self.layer_map, str) and any(len(pair) > 2 for pair in self.layer_map)
        )
        if several and not self.several:
            raise ValueError(
                f"{name}.layer_map={self.layer_map!r} gives a student's layer several of the "
                "teacher's, which only HiddenStates can use."
            )
        if self.side not in ("last", "encoder"):
            raise ValueError(f"{name}.side={self.side!r}; it is 'last' or 'encoder'.")

    def count(self, batch: Batch) -> Any:
        return jnp.sum(self._mask(batch), dtype=jnp.float32)

    def _mask(self, batch: Batch) -> Any:
        return batch.mask if self.side == "encoder" else batch.last_mask

    def _of(self, outputs: Outputs) -> Outputs:
        if self.side == "encoder" and outputs.encoder is None:
            raise ValueError("side='encoder', and the model is no encoder-decoder: leave it out.")
        return outputs.encoder if self.side == "encoder" else outputs

    def _pairs(self, student: Outputs, teacher: Outputs) -> Pairs:
        return pairs(self.layer_map, len(student.hidden) - 1, len(teacher.hidden) - 1)


@dataclasses.dataclass
class CosineHidden(LayerTerm):
    """Cosine distance of hidden states of one width, at every token that is not padding."""

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        mine, its = self._of(student), self._of(teacher)
        widths = [x.hidden[-1].shape[-1] for x in (mine, its)]
        if widths[0] != widths[1]:
            raise ValueError(
                f"CosineHidden compares hidden states of width {widths[0]} (student) and "
                f"{widths[1]} (teacher) one to one. HiddenStates(kind='cosine') projects them."
            )
        found = [
            Mean.of(losses.cosine_distance(mine.hidden[i], its.hidden[j]), self._mask(batch)).total
            for i, (j,) in self._pairs(mine, its)
        ]
        return sum(found) / len(found)


DISTANCES = {"squared": losses.squared_distance, "cosine": losses.cosine_distance}


@dataclasses.dataclass
class HiddenStates(LayerTerm):
    """Distance of hidden states, the student's through a learned matrix (`project`).

    Two teacher layers to one (`both`) are set side by side, so that the matrix is twice as wide;
    `learned` takes a mixture of all, its shares softmax-normalised and learnt with the matrix.
    Source: FitNets (Romero et al., 2014), arXiv:1412.6550; TinyBERT (Jiao et al., 2019).
    """

    kind: str = "squared"  # or cosine, which compares directions as PKD does
    project: bool = True  # False: both must be of one width

    several: ClassVar[bool] = True

    def check(self, name: str) -> None:
        super().check(name)
        if self.kind not in DISTANCES:
            raise ValueError(f"{name}.kind={self.kind!r}. {did_you_mean(self.kind, DISTANCES)}")

    def init(self, key: jax.Array, student: Outputs, teacher: Outputs) -> Any:
        """Parameters of its own, for outputs of these shapes."""
        student, teacher = self._of(student), self._of(teacher)
        found = []
        for n, (i, of) in enumerate(self._pairs(student, teacher)):
            here, there = student.hidden[i].shape[-1], self._width(teacher, of)
            own = {}
            if self.project:
                # Student and teacher of one width begin alike where the student is a pruned one.
                draw = jax.random.normal(jax.random.fold_in(key, n), (here, there)) * here**-0.5
                own["kernel"] = jnp.eye(here) if here == there else draw
            elif here != there:
                raise ValueError(
                    f"hidden states of width {here} are compared with {there}: set project=True."
                )
            if self.layer_map == "learned":
                own["mixture"] = jnp.zeros(len(of))
            found.append(own)
        return found

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._of(student), self._of(teacher), self._mask(batch)
        found = []
        for (i, of), mine in zip(self._pairs(student, teacher), own, strict=True):
            state, taught = student.hidden[i], [teacher.hidden[j] for j in of]
            if self.project:
                state = state @ mine["kernel"].astype(state.dtype)
            if self.layer_map == "learned":
                shares = jax.nn.softmax(mine["mixture"])
                target = sum(share * layer for share, layer in zip(shares, taught, strict=True))
            else:
                target = jnp.concatenate(taught, -1)
            found.append(Mean.of(DISTANCES[self.kind](state, target), mask).total)
        return sum(found) / len(found)

    def _width(self, teacher: Outputs, of: tuple[int, ...]) -> int:
        widths = [teacher.hidden[j].shape[-1] for j in of]
        return widths[0] if self.layer_map == "learned" else sum(widths)


@dataclasses.dataclass
class AttentionMaps(LayerTerm):
    """Distance of attention maps, a mean over heads; models with unlike heads meet in their mean.

    Both models need `attention="plain"`, which alone has maps, and the student no LayerDrop.
    """

    kind: str = "kl"  # or squared

    def check(self, name: str) -> None:
        super().check(name)
        if self.kind not in ("kl", "squared"):
            raise ValueError(f"{name}.kind={self.kind!r}; it is 'kl' or 'squared'.")

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._of(student), self._of(teacher), self._mask(batch)
        found = []
        for i, (j,) in self._pairs(student, teacher):
            mine, its = (_inside(x.attention, n, "maps") for x, n in ((student, i), (teacher, j)))
            if mine.shape[1] != its.shape[1]:
                mine, its = (jnp.mean(x, axis=1, keepdims=True) for x in (mine, its))
            if self.kind == "kl":
                values = losses.attention_kl(mine, its)
            else:
                values = losses.attention_squared(mine, its, mask)
            found.append(Mean.of(jnp.mean(values, axis=1), mask).total)
        return sum(found) / len(found)


VECTORS = ("query", "key", "value")


def side_by_side(vectors: tuple[Any, ...], which: int) -> Any:
    """All heads' vectors of a position in one, [B, L, H K]; shared keys and values as often as
    they are used."""
    found, heads = vectors[which], vectors[0].shape[1]
    found = jnp.repeat(found, heads // found.shape[1], axis=1)
    return found.swapaxes(1, 2).reshape(found.shape[0], found.shape[2], -1)


@dataclasses.dataclass
class Relations(LayerTerm):
    """MiniLM: relations among queries and keys, and among values, whatever widths and heads.

    Source: Wang et al. (2020), arXiv:2002.10957; by relation heads, (2021), arXiv:2012.15828.
    """

    heads: int = 12  # relation heads; both models' query widths must divide by it
    kinds: tuple[str, ...] = ("query key", "value value")
    causal: bool = False  # decoders: no position is related to a later one

    def check(self, name: str) -> None:
        super().check(name)
        if self.heads < 1 or not self.kinds:
            raise ValueError(f"{name}: heads={self.heads}, kinds={self.kinds}; at least one each.")
        known = [f"{a} {b}" for a in VECTORS for b in VECTORS]
        for kind in self.kinds:
            if kind not in known:
                raise ValueError(f"{name}.kinds has {kind!r}. {did_you_mean(kind, known)}")

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._of(student), self._of(teacher), self._mask(batch)
        found = []
        for i, (j,) in self._pairs(student, teacher):
            mine, its = (_inside(x.qkv, n, "qkv") for x, n in ((student, i), (teacher, j)))
            for kind in self.kinds:
                a, b = (VECTORS.index(name) for name in kind.split())
                both = [(side_by_side(x, a), side_by_side(x, b)) for x in (mine, its)]
                values = losses.relation_kl(*both, mask, heads=self.heads, causal=self.causal)
                found.append(Mean.of(jnp.mean(values, axis=1), mask).total)
        return sum(found) / len(found)


@dataclasses.dataclass
class Similarity(LayerTerm):
    """How a batch lies in two spaces: CKA of its tokens, or its rows told apart (contrastive).

    Neither is a sum over rows: micro-batches and devices each compare among their own.
    """

    kind: str = "cka"  # or contrastive, on the means of each row's tokens
    temperature: float = 0.1  # contrastive

    def check(self, name: str) -> None:
        super().check(name)
        if self.kind not in ("cka", "contrastive"):
            raise ValueError(f"{name}.kind={self.kind!r}; it is 'cka' or 'contrastive'.")
        if extremes(self, "temperature")[0] <= 0:
            raise ValueError(f"{name}.temperature is {self.temperature}; it is above 0.")

    def count(self, batch: Batch) -> Any:
        mask = self._mask(batch)
        return jnp.sum(mask if self.kind == "cka" else mask.any(1), dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._of(student), self._of(teacher), self._mask(batch)
        found = []
        for i, (j,) in self._pairs(student, teacher):
            mine, its = student.hidden[i], teacher.hidden[j]
            if self.kind == "cka":
                mine, its = (x.reshape(-1, x.shape[-1]) for x in (mine, its))
                distance = losses.cka_distance(mine, its, mask.ravel())
                found.append(distance * jnp.sum(mask))
            else:
                mine, its = (_row_means(x, mask) for x in (mine, its))
                rows = mask.any(1)
                values = losses.contrastive(mine, its, rows, temperature=self.temperature)
                found.append(Mean.of(values, rows).total)
        return sum(found) / len(found)


def _row_means(hidden: Any, mask: Any) -> Any:
    counted = mask[..., None]
    return jnp.where(counted, hidden, 0).sum(1) / jnp.maximum(counted.sum(1), 1)


def _inside(found: tuple[Any, ...], layer: int, what: str) -> Any:
    if not found or layer < 1:
        raise ValueError(
            f"a layer map asks for the attention {what} of layer {layer}, and there are those of "
            f"{len(found)} layers. The embedding (0) has none, nor have models with another "
            "attention than 'plain' or blocks that LayerDrop may skip."
        )
    return found[layer - 1]
