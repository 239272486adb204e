"""Neural-network modules with the names, argument order and defaults of torch.nn.

A module is a pytree: its parameters are the leaves, its configuration is static. So a model is an argument of a
compiled step like any other value, and gradients, optimizer states and updated models have its structure.

    model = nn.Sequential(nn.Linear(784, 64, key=k0), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10, key=k1))
    y = model(x)                                # evaluation: dropout is the identity
    y = model(x, key=step_key, training=True)   # training: every layer that draws gets its own key from step_key

Running statistics are values, too. `split` takes them out of a model, and `functional_call` returns the new ones:

    params, buffers = nn.split(model)           # gradients and optimizers see the params alone
    y, buffers = nn.functional_call(params, buffers, x, key=step_key, training=True)
    model = nn.merge(params, buffers)
    nn.save_file(model, "model.safetensors")    # PyTorch's names: its files load here, and these load there
    model = model.load_state_dict(nn.load_file("model.safetensors"))
"""

from typing import TYPE_CHECKING

from tracegrad import lazy

if TYPE_CHECKING:
    from tracegrad.nn import functional, init
    from tracegrad.nn.activation import (
        CELU,
        ELU,
        GELU,
        GLU,
        SELU,
        Hardsigmoid,
        Hardswish,
        Hardtanh,
        LeakyReLU,
        LogSigmoid,
        LogSoftmax,
        Mish,
        PReLU,
        ReLU,
        ReLU6,
        Sigmoid,
        SiLU,
        Softmax,
        Softplus,
        Softsign,
        Tanh,
    )
    from tracegrad.nn.attention import MultiheadAttention
    from tracegrad.nn.buffers import functional_call, merge, split
    from tracegrad.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
    from tracegrad.nn.init import seed
    from tracegrad.nn.layers import Dropout, Embedding, Flatten, Identity, Linear
    from tracegrad.nn.loss import (
        BCELoss,
        BCEWithLogitsLoss,
        CrossEntropyLoss,
        HuberLoss,
        KLDivLoss,
        L1Loss,
        MSELoss,
        NLLLoss,
        SmoothL1Loss,
    )
    from tracegrad.nn.module import Module
    from tracegrad.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, GroupNorm, LayerNorm
    from tracegrad.nn.pool import AdaptiveAvgPool1d, AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
    from tracegrad.nn.recurrent import GRU, LSTM, RNN
    from tracegrad.nn.sequential import Sequential
    from tracegrad.nn.weights import load_file, save_file

PLACES = {
    "tracegrad.nn.activation": (
        "CELU", "ELU", "GELU", "GLU", "SELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid",
        "LogSoftmax", "Mish", "PReLU", "ReLU", "ReLU6", "Sigmoid", "SiLU", "Softmax", "Softplus", "Softsign", "Tanh",
    ),
    "tracegrad.nn.attention": ("MultiheadAttention",),
    "tracegrad.nn.buffers": ("functional_call", "merge", "split"),
    "tracegrad.nn.conv": ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
    "tracegrad.nn.init": ("seed",),
    "tracegrad.nn.layers": ("Dropout", "Embedding", "Flatten", "Identity", "Linear"),
    "tracegrad.nn.loss": (
        "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss",
        "SmoothL1Loss",
    ),
    "tracegrad.nn.module": ("Module",),
    "tracegrad.nn.norm": ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "LayerNorm"),
    "tracegrad.nn.pool": (
        "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AvgPool1d", "AvgPool2d", "MaxPool1d", "MaxPool2d",
    ),
    "tracegrad.nn.recurrent": ("GRU", "LSTM", "RNN"),
    "tracegrad.nn.sequential": ("Sequential",),
    "tracegrad.nn.weights": ("load_file", "save_file"),
}  # fmt: skip
MODULES = ("functional", "init")
__getattr__, __dir__ = lazy.names(__name__, PLACES, MODULES)

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AvgPool1d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d",
    "BCELoss", "BCEWithLogitsLoss", "CELU", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d",
    "ConvTranspose3d", "CrossEntropyLoss", "Dropout", "ELU", "Embedding", "Flatten", "functional", "functional_call",
    "GELU", "GLU", "GroupNorm", "GRU", "Hardsigmoid", "Hardswish", "Hardtanh", "HuberLoss", "Identity", "init",
    "KLDivLoss", "L1Loss", "LayerNorm", "LeakyReLU", "Linear", "load_file", "LogSigmoid", "LogSoftmax", "LSTM",
    "MaxPool1d", "MaxPool2d", "merge", "Mish", "Module", "MSELoss", "MultiheadAttention", "NLLLoss", "PReLU", "ReLU",
    "ReLU6", "RNN", "save_file", "seed", "SELU", "Sequential", "Sigmoid", "SiLU", "SmoothL1Loss", "Softmax",
    "Softplus", "Softsign", "split", "Tanh",
]  # fmt: skip
