"""Losses: arrays in, unreduced float32 values out. One concept a file; this is the contents."""

from jaxkd.losses.cross_entropy import hard_labels as hard_labels
from jaxkd.losses.hidden import cosine_distance as cosine_distance
from jaxkd.losses.soft_targets import soft_targets as soft_targets
from jaxkd.losses.vocabulary import shared as shared
