"""Terms that compare the internals of two models, layer by layer, as a layer map pairs them.

Each is a mean over unmasked positions and over the pairs. Hidden states of different widths are
compared through a learned matrix, which is part of the training state and not of the student.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxkd import losses
from jaxkd.core.batch import Batch
from jaxkd.core.mean import Mean
from jaxkd.core.outputs import Outputs
from jaxkd.core.ranges import field
from jaxkd.distil.layer_map import Pairs, pairs, parsed
from jaxkd.distil.schedule import Ramp, check_ramps, extremes
from jaxkd.models.products import affine


@dataclasses.dataclass
class LayerTerm:
    """The fields and methods that terms over layers share."""

    weight: float = field(1.0, at_least=0)
    ramps: dict[str, Ramp] = dataclasses.field(default_factory=dict)  # weight, temperature
    # A name of layer_map.MAPS, or pairs as text, "0:0,2:4", or as tuples.
    layer_map: str = field("top", types=(str, tuple, list))
    side: str = field("last", one_of=("last", "encoder"))  # encoder: of an encoder-decoder

    several: ClassVar[bool] = False  # whether it takes several teacher layers for one
    internals: ClassVar[bool] = False  # whether it compares attention, not hidden states
    needs_teacher: ClassVar[bool] = True

    def check(self, name: str) -> None:
        check_ramps(self, name)
        try:
            layer_map = parsed(self.layer_map)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
        several = layer_map in ("both", "learned") or (
            not isinstance(layer_map, str) and any(len(pair) > 2 for pair in layer_map)
        )
        if several and not self.several:
            raise ValueError(
                f"{name}.layer_map={self.layer_map!r} gives a student's layer several of the "
                "teacher's, which only HiddenStates can use."
            )

    def count(self, batch: Batch) -> Any:
        return jnp.sum(self._mask(batch), dtype=jnp.float32)

    def _mask(self, batch: Batch) -> Any:
        return batch.mask if self.side == "encoder" else batch.last_mask

    def _side(self, outputs: Outputs) -> Outputs:
        if self.side == "encoder" and outputs.encoder is None:
            raise ValueError(
                "side='encoder', and the model is no encoder-decoder: set it to 'last'."
            )
        return outputs.encoder if self.side == "encoder" else outputs

    def _pairs(self, student: Outputs, teacher: Outputs) -> Pairs:
        return pairs(self.layer_map, len(student.hidden) - 1, len(teacher.hidden) - 1)


@dataclasses.dataclass
class CosineHidden(LayerTerm):
    """Cosine distance of hidden states of one width, at every token that is not padding."""

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher = self._side(student), self._side(teacher)
        widths = [x.hidden[-1].shape[-1] for x in (student, teacher)]
        if widths[0] != widths[1]:
            raise ValueError(
                f"CosineHidden compares hidden states of width {widths[0]} (student) and "
                f"{widths[1]} (teacher) one to one. HiddenStates(kind='cosine') projects them."
            )
        mask = self._mask(batch)
        totals = [
            Mean.of(losses.cosine_distance(student.hidden[i], teacher.hidden[j]), mask).total
            for i, (j,) in self._pairs(student, teacher)
        ]
        return sum(totals) / len(totals)


DISTANCES = {"squared": losses.squared_distance, "cosine": losses.cosine_distance}


@dataclasses.dataclass
class HiddenStates(LayerTerm):
    """Distance of hidden states, the student's through a learned matrix (`project`).

    Two teacher layers to one (`both`) are concatenated, so that the matrix is twice as wide;
    `learned` takes a mixture of all, its weights a softmax that is learned with the matrix.
    Source: FitNets (Romero et al., 2014), arXiv:1412.6550; TinyBERT (Jiao et al., 2019).
    """

    kind: str = field("squared", one_of=DISTANCES)  # cosine compares directions, as PKD does
    project: bool = True  # False: both must be of one width
    solve: bool = False  # the matrix starts as the least squares of some batches, not drawn

    several: ClassVar[bool] = True

    def check(self, name: str) -> None:
        super().check(name)
        if self.solve and (
            self.kind != "squared" or not self.project or parsed(self.layer_map) == "learned"
        ):
            raise ValueError(
                f"{name}.solve=True is of kind='squared' with project=True and layers that are not "
                f"learned; kind is {self.kind!r}, project {self.project} and layer_map "
                f"{self.layer_map!r}."
            )

    def init(self, key: jax.Array, student: Outputs, teacher: Outputs) -> Any:
        """Parameters of the term, for outputs of these shapes."""
        student, teacher = self._side(student), self._side(teacher)
        params = []
        for n, (i, layers) in enumerate(self._pairs(student, teacher)):
            width, target_width = student.hidden[i].shape[-1], self._width(teacher, layers)
            own = {}
            if self.project:
                # The identity where widths are equal, once for each of the teacher's layers: a
                # pruned student begins close to its teacher.
                shape = (width, target_width)
                draw = jax.random.normal(jax.random.fold_in(key, n), shape) * width**-0.5
                equal = target_width % width == 0 and self._width(teacher, layers[:1]) == width
                own["kernel"] = jnp.tile(jnp.eye(width), target_width // width) if equal else draw
            elif width != target_width:
                raise ValueError(
                    f"hidden states of width {width} are compared with {target_width}: set "
                    "project=True."
                )
            if self.layer_map == "learned":
                own["mixture"] = jnp.zeros(len(layers))
            params.append(own)
        return params

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._side(student), self._side(teacher), self._mask(batch)
        totals = []
        for (i, layers), params in zip(self._pairs(student, teacher), own, strict=True):
            state, targets = student.hidden[i], [teacher.hidden[j] for j in layers]
            if self.project:
                state = affine(
                    state, params["kernel"].astype(state.dtype), jnp.zeros((), state.dtype)
                )
            if self.layer_map == "learned":
                weights = jax.nn.softmax(params["mixture"])
                target = sum(w * layer for w, layer in zip(weights, targets, strict=True))
            else:
                target = jnp.concatenate(targets, -1)
            totals.append(Mean.of(DISTANCES[self.kind](state, target), mask).total)
        return sum(totals) / len(totals)

    def normal_equations(self, student: Outputs, teacher: Outputs, batch: Batch) -> list[Any]:
        """X'X and X'Y of each pair over a batch: sums, from which `solved` makes the matrices."""
        student, teacher, mask = self._side(student), self._side(teacher), self._mask(batch)
        sums = []
        for i, layers in self._pairs(student, teacher):
            state = jnp.where(mask[..., None], student.hidden[i], 0).astype(jnp.float32)
            target = jnp.concatenate([teacher.hidden[j] for j in layers], -1).astype(jnp.float32)
            sums.append([jnp.einsum("bld,ble->de", state, other) for other in (state, target)])
        return sums

    def solved(self, sums: list[Any], ridge: float = 1e-4) -> list[Any]:
        """The parameters with the least squared distance, by ridge regression."""
        return [{"kernel": _ridge(squares, products, ridge)} for squares, products in sums]

    def _width(self, teacher: Outputs, layers: tuple[int, ...]) -> int:
        widths = [teacher.hidden[j].shape[-1] for j in layers]
        return widths[0] if self.layer_map == "learned" else sum(widths)


@jax.jit
def _ridge(squares: Any, products: Any, ridge: Any) -> Any:
    """(X'X + ridge mean(diag X'X) I)^-1 X'Y, [widths of X and Y]."""
    width = squares.shape[0]
    penalty = ridge * jnp.trace(squares) / width * jnp.eye(width)
    return jnp.linalg.solve(squares + penalty, products)


@dataclasses.dataclass
class AttentionMaps(LayerTerm):
    """Distance of attention maps, a mean over heads; with unequal heads, of the mean maps.

    Both models need `attention="plain"`, which alone computes maps, and the student no LayerDrop.
    """

    kind: str = field("kl", one_of=("kl", "squared"))  # distance of two maps

    internals: ClassVar[bool] = True

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._side(student), self._side(teacher), self._mask(batch)
        totals = []
        for i, (j,) in self._pairs(student, teacher):
            maps = [_layer(x.attention, n, "maps") for x, n in ((student, i), (teacher, j))]
            if maps[0].shape[1] != maps[1].shape[1]:
                maps = [jnp.mean(x, axis=1, keepdims=True) for x in maps]
            if self.kind == "kl":
                values = losses.attention_kl(*maps)
            else:
                values = losses.attention_squared(*maps, mask)
            totals.append(Mean.of(jnp.mean(values, axis=1), mask).total)
        return sum(totals) / len(totals)


VECTORS = ("query", "key", "value")


def concatenated_heads(qkv: tuple[Any, ...], which: int) -> Any:
    """Vectors of all heads concatenated, [B, L, H K]; shared keys and values are repeated."""
    chosen, heads = qkv[which], qkv[0].shape[1]
    chosen = jnp.repeat(chosen, heads // chosen.shape[1], axis=1)
    return chosen.swapaxes(1, 2).reshape(chosen.shape[0], chosen.shape[2], -1)


@dataclasses.dataclass
class Relations(LayerTerm):
    """MiniLM: relations among queries and keys, and among values, of models of any width.

    Source: Wang et al. (2020), arXiv:2002.10957; by relation heads, (2021), arXiv:2012.15828.
    """

    heads: int = field(12, at_least=1)  # relation heads; both query widths must divide by it
    kinds: tuple[str, ...] = field(
        ("query key", "value value"), one_of=[f"{a} {b}" for a in VECTORS for b in VECTORS]
    )  # pairs of vectors whose relations are compared
    causal: bool = False  # decoders: no position is related to a later one

    internals: ClassVar[bool] = True

    def check(self, name: str) -> None:
        super().check(name)
        if not self.kinds:
            raise ValueError(f"{name}.kinds is empty: there is nothing to compare.")

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._side(student), self._side(teacher), self._mask(batch)
        totals = []
        for i, (j,) in self._pairs(student, teacher):
            each_qkv = [_layer(x.qkv, n, "qkv") for x, n in ((student, i), (teacher, j))]
            for kind in self.kinds:
                a, b = (VECTORS.index(name) for name in kind.split())
                both = [(concatenated_heads(x, a), concatenated_heads(x, b)) for x in each_qkv]
                values = losses.relation_kl(*both, mask, heads=self.heads, causal=self.causal)
                totals.append(Mean.of(jnp.mean(values, axis=1), mask).total)
        return sum(totals) / len(totals)


@dataclasses.dataclass
class Similarity(LayerTerm):
    """Similarity of a batch in two spaces: CKA of its tokens, or contrastive over its rows.

    Neither is a sum over rows: each micro-batch and each device compares its own rows.
    """

    kind: str = field("cka", one_of=("cka", "contrastive"))  # contrastive: of the rows' mean states
    temperature: float = field(0.1, above=0)  # contrastive

    def check(self, name: str) -> None:
        super().check(name)
        if extremes(self, "temperature")[0] <= 0:
            raise ValueError(f"{name}.temperature is {self.temperature}; it is above 0.")

    def count(self, batch: Batch) -> Any:
        mask = self._mask(batch)
        return jnp.sum(mask if self.kind == "cka" else mask.any(1), dtype=jnp.float32)

    def total(self, student: Outputs, teacher: Outputs | None, batch: Batch, own: Any = ()) -> Any:
        student, teacher, mask = self._side(student), self._side(teacher), self._mask(batch)
        totals = []
        for i, (j,) in self._pairs(student, teacher):
            states = (student.hidden[i], teacher.hidden[j])
            if self.kind == "cka":
                flat = (x.reshape(-1, x.shape[-1]) for x in states)
                distance = losses.cka_distance(*flat, mask.ravel())
                totals.append(distance * jnp.sum(mask))
            else:
                means = (_row_means(x, mask) for x in states)
                rows = mask.any(1)
                values = losses.contrastive(*means, rows, temperature=self.temperature)
                totals.append(Mean.of(values, rows).total)
        return sum(totals) / len(totals)


def _row_means(hidden: Any, mask: Any) -> Any:
    counted = mask[..., None]
    return jnp.where(counted, hidden, 0).sum(1) / jnp.maximum(counted.sum(1), 1)


def _layer(outputs: tuple[Any, ...], layer: int, what: str) -> Any:
    """The attention maps or vectors of a layer, counted from 1."""
    if not outputs or layer < 1:
        raise ValueError(
            f"a layer map names the attention {what} of layer {layer}, and {len(outputs)} layers "
            "have them. The embedding (0) has none; models with another attention than 'plain', or "
            "with blocks that LayerDrop may skip, have none at all."
        )
    return outputs[layer - 1]
