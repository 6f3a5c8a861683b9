"""Dense layers, their products in the form that each machine is fast at."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxkd.models.products import affine


class Dense(nn.Module):
    """inputs @ kernel + bias, in `dtype`; parameters are float32 and named as those of nn.Dense."""

    width: int
    dtype: Any
    init_std: float  # of the truncated normal that the kernel is drawn from
    bias: bool = True

    @nn.compact
    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B {self.width}"]:
        init = nn.initializers.truncated_normal(self.init_std)
        kernel = self.param("kernel", init, (inputs.shape[-1], self.width)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,)) if self.bias else 0.0
        return affine(inputs.astype(self.dtype), kernel, jnp.asarray(bias, self.dtype))
