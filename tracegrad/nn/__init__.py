"""Neural-network modules with the names, argument order and defaults of torch.nn.

A module is a pytree: its parameters are the leaves, its configuration is static. So a model is an argument of a
compiled step like any other value, and gradients, optimizer states and updated models have its structure.

    model = nn.Sequential(nn.Linear(784, 64, key=k0), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10, key=k1))
    y = model(x)                                # evaluation: dropout is the identity
    y = model(x, key=step_key, training=True)   # training: every layer that draws gets its own key from step_key
"""

from tracegrad.nn import functional, init
from tracegrad.nn.activation import GELU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from tracegrad.nn.conv import Conv1d, Conv2d
from tracegrad.nn.init import seed
from tracegrad.nn.layers import Dropout, Embedding, Flatten, Identity, LayerNorm, Linear
from tracegrad.nn.module import Module
from tracegrad.nn.pool import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from tracegrad.nn.sequential import Sequential

__all__ = [
    "AvgPool1d", "AvgPool2d", "Conv1d", "Conv2d", "Dropout", "Embedding", "Flatten", "GELU", "Identity", "LayerNorm",
    "Linear", "LogSoftmax", "MaxPool1d", "MaxPool2d", "Module", "ReLU", "Sequential", "SiLU", "Sigmoid", "Softmax",
    "Softplus", "Tanh", "functional", "init", "seed",
]  # fmt: skip
