"""BERT for masked language modelling in torch, with HuggingFace's names: the bridge to ONNX.

Written for inference and for the tracing ONNX exporter at opset 13: attention by hand (its fused
form needs opset 14), no dropout, nothing that depends on the traced batch or length.
Shapes stand in comments: checking them in tests would be recorded in the traced graph.
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

from jaxkd.hub.bert import FAMILY
from jaxkd.models import families
from jaxkd.models.bert import Config
from jaxkd.models.model import Params

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


class Embeddings(nn.Module):
    """Token + position + segment A, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.width)
        self.position_embeddings = nn.Embedding(config.max_length, config.width)
        self.token_type_embeddings = nn.Embedding(config.segments, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, config.norm_epsilon)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # [B, L] -> [B, L, D]
        hidden = self.word_embeddings(tokens) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(hidden + self.position_embeddings.weight[: tokens.shape[1]])


class Layer(nn.Module):
    """Self-attention and feed-forward, each added to its input and normalised after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, inner = config.width, config.feed_forward

        def dense_and_norm(inputs: int) -> nn.ModuleDict:
            norm = nn.LayerNorm(width, config.norm_epsilon)
            return nn.ModuleDict({"dense": nn.Linear(inputs, width), "LayerNorm": norm})

        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"self": nn.ModuleDict(projections), "output": dense_and_norm(width)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = dense_and_norm(inner)
        self.heads, self.key_width = config.heads, width // config.heads
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[B, L, D] and the bias [B, 1, 1, S] of the attention scores -> [B, L, D]."""
        after = self.attention["output"]
        hidden = after["LayerNorm"](hidden + after["dense"](self._mix(hidden, bias)))
        inner = self.activation(self.intermediate["dense"](hidden))
        return self.output["LayerNorm"](hidden + self.output["dense"](inner))

    def _mix(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        def project(name: str) -> torch.Tensor:
            flat = self.attention["self"][name](hidden)
            split = flat.reshape(flat.shape[0], -1, self.heads, self.key_width)
            return split.permute(0, 2, 1, 3)  # [B, H, L, K]

        query, key, value = project("query"), project("key"), project("value")
        scores = (query * self.key_width**-0.5) @ key.transpose(2, 3) + bias  # [B, H, L, S]
        mixed = torch.softmax(scores, dim=-1) @ value
        return mixed.permute(0, 2, 1, 3).reshape_as(hidden)


class Predictions(nn.Module):
    """Transform, norm, and the transposed token embedding plus a bias."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.transform = nn.ModuleDict(
            {"dense": nn.Linear(config.width, config.width), "LayerNorm": norm}
        )
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.activation, self.vocabulary = ACTIVATIONS[config.activation], config.vocabulary

    def forward(self, hidden: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.transform["dense"](hidden))
        hidden = self.transform["LayerNorm"](hidden)
        # On two axes this becomes Gemm(transB=1), which shares the embedding's tensor; on three
        # it would be a MatMul with a second, transposed copy of it in the file.
        logits = functional.linear(hidden.flatten(0, 1), token, self.bias)
        return logits.reshape(*hidden.shape[:2], self.vocabulary)


class BertMaskedLm(nn.Module):
    """The whole model: `forward(tokens, mask)` gives the logits at every position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        self.bert = nn.ModuleDict(
            {"embeddings": Embeddings(config), "encoder": nn.ModuleDict({"layer": layers})}
        )
        self.cls = nn.ModuleDict({"predictions": Predictions(config)})

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tokens [B, L] int64 and mask [B, L] (bool, or 1 = counts) -> logits [B, L, V].

        Segments are all A. Logits at padding mean nothing; in a row of padding alone they differ
        from the JAX model's.
        """
        bias = (1.0 - mask.to(torch.float32))[:, None, None, :] * PADDING_BIAS
        hidden = self.bert["embeddings"](tokens)
        for layer in self.bert["encoder"]["layer"]:
            hidden = layer(hidden, bias)
        return self.cls["predictions"](hidden, self.bert["embeddings"].word_embeddings.weight)


def to_torch(config: Config, params: Params) -> nn.Module:
    """The torch model of our parameters, copied, in float32 whatever `config.compute` says.

    Raises:
      ValueError: if the config cannot be built, the parameters are not of its shapes, or it is not
        BERT for masked language modelling.
    """
    if type(config) is not Config or config.head != "masked_lm":
        family = families.describe(config)["family"]
        raise ValueError(
            f"export writes BERT with the head masked_lm; found {family} "
            f"with the head {config.head}. Save it as a HuggingFace folder instead: "
            "--config.stages.export.formats=\"('huggingface',)\"."
        )
    families.check_shapes(families.build(config), params, "params")
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        model = BertMaskedLm(config)
    # A copy, because torch may write into its tensors and JAX's arrays must not change.
    tensors = {
        name: torch.from_numpy(np.array(array, np.float32))
        for name, array in FAMILY.table(config.head).export(params).items()
    }
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)
