"""What runs import sooner or later; imported by the server of tests/processes.py."""

# ruff: noqa: F401
import matplotlib.pyplot
import onnxruntime
import optuna
import torch
import transformers
from transformers.models.bert import modeling_bert

import configs.own_data
import configs.sequence
import jaxkd.runs.launch
