"""Losses: arrays in, unreduced float32 values out. One concept a file; this is the contents."""

from jaxkd.losses.attention import attention_kl as attention_kl
from jaxkd.losses.attention import attention_squared as attention_squared
from jaxkd.losses.attention import relation_kl as relation_kl
from jaxkd.losses.cross_entropy import hard_labels as hard_labels
from jaxkd.losses.ctc import ctc as ctc
from jaxkd.losses.divergences import adaptive_kl as adaptive_kl
from jaxkd.losses.divergences import jensen_shannon as jensen_shannon
from jaxkd.losses.divergences import reverse_kl as reverse_kl
from jaxkd.losses.divergences import skewed_kl as skewed_kl
from jaxkd.losses.divergences import skewed_reverse_kl as skewed_reverse_kl
from jaxkd.losses.divergences import soft_cross_entropy as soft_cross_entropy
from jaxkd.losses.divergences import total_variation as total_variation
from jaxkd.losses.fused import fused as fused
from jaxkd.losses.hidden import cosine_distance as cosine_distance
from jaxkd.losses.hidden import squared_distance as squared_distance
from jaxkd.losses.similarity import cka_distance as cka_distance
from jaxkd.losses.similarity import contrastive as contrastive
from jaxkd.losses.soft_targets import soft_targets as soft_targets
from jaxkd.losses.sparse import sampled_cross_entropy as sampled_cross_entropy
from jaxkd.losses.sparse import top_k_kl as top_k_kl
from jaxkd.losses.vocabulary import shared as shared
