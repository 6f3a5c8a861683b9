"""Layer normalisation, its variance computed as torch and onnxruntime compute it."""

from typing import Any

from flax import linen as nn


def layer_norm(epsilon: float, dtype: Any, name: str, *, bias: bool = True) -> nn.LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias; statistics in float32.

    The variance is the mean of (x - mean)^2. flax's default, mean(x^2) - mean(x)^2, loses it where
    the mean is large: a BERT's logits were 0.5 off transformers' at a mean of 1,000 times the
    spread.
    """
    return nn.LayerNorm(epsilon, dtype=dtype, use_bias=bias, use_fast_variance=False, name=name)
