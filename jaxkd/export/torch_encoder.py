"""BERT, DistilBERT, RoBERTa and ALBERT in torch, with our parameters' names.

For inference in torch, and to check exported files against: attention by hand, no dropout.
"""

from collections.abc import Callable, Mapping

import numpy as np

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the torch bridge needs torch ({error}). Install it with: pip install 'jaxkd[export]'"
    ) from error
from torch import nn
from torch.nn import functional

from jaxkd.core.tree import named
from jaxkd.models import families
from jaxkd.models.bert import Config
from jaxkd.models.model import Params
from jaxkd.models.parts import exit_blocks

FAMILIES = ("bert", "distilbert", "roberta", "albert")
# Added to the scores of padding: exp(-1e4) is 0 in float32, and -1e4 is finite in float16 too.
PADDING_BIAS = -1e4


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "swish": functional.silu,
    "mish": functional.mish,
    "tanh": torch.tanh,
}


class Embed(nn.Module):
    """Token + position + segment, normalised; projected where the model is wider."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.embedding
        self.token = nn.Embedding(config.vocabulary, width)
        self.position = nn.Embedding(config.max_length, width)
        if config.segments:
            self.segment = nn.Embedding(config.segments, width)
        self.norm = nn.LayerNorm(width, config.norm_epsilon)
        if config.factorised:
            self.widen = nn.Linear(width, config.width)
        self.config = config

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor | None
    ) -> torch.Tensor:  # -> [B, L, D]
        hidden = self.token(tokens)
        if self.config.segments:
            first = self.segment.weight[0]
            hidden = hidden + (first if segments is None else self.segment(segments))
        if self.config.position_offset:
            counted = mask.to(torch.int64)
            hidden = hidden + self.position(
                counted.cumsum(1) * counted + self.config.position_offset - 1
            )
        else:
            hidden = hidden + self.position.weight[: tokens.shape[1]]
        hidden = self.norm(hidden)
        return self.widen(hidden) if self.config.factorised else hidden


class Block(nn.Module):
    """Self-attention and feed-forward, each added to its input and normalised after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, inner = config.width, config.feed_forward
        names = ("query", "key", "value", "output")
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.attention_norm = nn.LayerNorm(width, config.norm_epsilon)
        self.feed_forward = nn.ModuleDict(
            {"expand": nn.Linear(width, inner), "contract": nn.Linear(inner, width)}
        )
        self.norm = nn.LayerNorm(width, config.norm_epsilon)
        self.heads, self.key_width = config.heads, width // config.heads
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[B, L, D] and the bias [B, 1, 1, S] of the attention scores -> [B, L, D]."""
        output = self.attention["output"](self._context(hidden, bias))
        hidden = self.attention_norm(hidden + output)
        inner = self.activation(self.feed_forward["expand"](hidden))
        return self.norm(hidden + self.feed_forward["contract"](inner))

    def _context(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        def project(name: str) -> torch.Tensor:
            flat = self.attention[name](hidden)
            split = flat.reshape(flat.shape[0], -1, self.heads, self.key_width)
            return split.permute(0, 2, 1, 3)  # [B, H, L, K]

        query, key, value = project("query"), project("key"), project("value")
        scores = (query * self.key_width**-0.5) @ key.transpose(2, 3) + bias  # [B, H, L, S]
        context = torch.softmax(scores, dim=-1) @ value
        return context.permute(0, 2, 1, 3).reshape_as(hidden)


class MaskedLmHead(nn.Module):
    """Transform, norm, and the transposed token embedding plus a bias: [B, L, V]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.transform = nn.Linear(config.width, config.embedding)
        self.norm = nn.LayerNorm(config.embedding, config.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.activation = ACTIVATIONS[config.head_activation or config.activation]

    def forward(self, hidden: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.activation(self.transform(hidden)))
        return functional.linear(hidden, token, self.bias)


class SequenceHead(nn.Module):
    """Scores of the whole sequence from its first token: [B, C]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pool = nn.Linear(config.width, config.width)
        self.classify = nn.Linear(config.width, len(config.labels))
        self.activation = ACTIVATIONS[config.pool_activation]

    def forward(self, hidden: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        return self.classify(self.activation(self.pool(hidden[:, 0])))


class TokenHead(nn.Module):
    """Scores of every token: [B, L, C]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.classify = nn.Linear(config.width, len(config.labels))

    def forward(self, hidden: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        return self.classify(hidden)


HEADS = {
    "masked_lm": MaskedLmHead,
    "sequence_classification": SequenceHead,
    "token_classification": TokenHead,
}


class Encoder(nn.Module):
    """The whole model: `forward(tokens, mask, segments)` gives the logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = Embed(config)
        distinct = 1 if config.shared_blocks else config.layers
        self.blocks = nn.ModuleList([Block(config.block(i)) for i in range(distinct)])
        self.repeats = config.layers // distinct  # how often the list is applied
        self.head = HEADS[config.head](config)

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens [B, L] int64, mask [B, L] (bool, or 1 = counts), segments (None: all 0) -> logits.

        Logits at padding mean nothing; in a row of padding alone they differ from the JAX model's.
        """
        bias = (1.0 - mask.to(torch.float32))[:, None, None, :] * PADDING_BIAS
        hidden = self.embed(tokens, mask, segments)
        for _ in range(self.repeats):
            for block in self.blocks:
                hidden = block(hidden, bias)
        return self.head(hidden, self.embed.token.weight)


def check_torch(config: families.Config) -> None:
    """Raise ValueError unless the bridge has that family and that head of it."""
    known = families.describe(config)["family"] in FAMILIES and config.head in HEADS
    if not known or config.head_reads != "token":
        raise ValueError(
            f"the torch bridge has encoders ({', '.join(FAMILIES)}) with one of the heads "
            f"{', '.join(HEADS)}; found {config.family} with the head {config.head}. Save it as a "
            "HuggingFace folder instead, and open that with transformers."
        )


def to_torch(config: families.Config, params: Params) -> Encoder:
    """The torch model of our parameters, copied, in float32 whatever `config.compute` says.

    Raises:
      ValueError: if the config cannot be built, the parameters are not of its shapes, or it is
        none of FAMILIES with one of HEADS.
    """
    check_torch(config)
    families.check_shapes(families.build(config), params, "params")
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        model = Encoder(config)
    # Early exits are no part of it: the file predicts with the head, as the whole model does.
    exits = exit_blocks(params)
    whole = {name: part for name, part in params.items() if name not in exits}
    tensors = dict(_tensor(name, np.asarray(leaf)) for name, leaf in named(whole).items())
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _tensor(name: str, array: np.ndarray) -> tuple[str, torch.Tensor]:
    """The name and the tensor as torch's modules have them."""
    path, _, last = name.replace("/", ".").rpartition(".")
    if last == "kernel":
        path, array = f"{path}.weight", array.T
    elif last == "scale":
        path = f"{path}.weight"
    elif path == "embed":
        path = f"{path}.{last}.weight"
    else:
        path = f"{path}.{last}"
    # A copy, because torch may write into its tensors and JAX's arrays must not change.
    return path, torch.from_numpy(np.array(array, np.float32, order="C"))
