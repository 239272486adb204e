"""Functions of torch.nn.functional, with its names, argument order and defaults; pure, on arrays or traced values."""

from typing import TYPE_CHECKING

from tracegrad import lazy

if TYPE_CHECKING:
    from tracegrad.nn.functional.activation import (
        celu,
        elu,
        gelu,
        glu,
        hardsigmoid,
        hardswish,
        hardtanh,
        leaky_relu,
        log_softmax,
        logsigmoid,
        mish,
        prelu,
        relu,
        relu6,
        selu,
        sigmoid,
        silu,
        softmax,
        softplus,
        softsign,
        tanh,
    )
    from tracegrad.nn.functional.attention import scaled_dot_product_attention
    from tracegrad.nn.functional.conv import conv1d, conv2d, conv3d
    from tracegrad.nn.functional.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
    from tracegrad.nn.functional.entropy import cross_entropy, nll_loss
    from tracegrad.nn.functional.layers import dropout, embedding, flatten, linear, one_hot
    from tracegrad.nn.functional.loss import (
        binary_cross_entropy,
        binary_cross_entropy_with_logits,
        huber_loss,
        kl_div,
        l1_loss,
        mse_loss,
        smooth_l1_loss,
    )
    from tracegrad.nn.functional.norm import batch_norm, batch_statistics, group_norm, layer_norm, normalize
    from tracegrad.nn.functional.padding import pad
    from tracegrad.nn.functional.pool import (
        adaptive_avg_pool1d,
        adaptive_avg_pool2d,
        avg_pool1d,
        avg_pool2d,
        max_pool1d,
        max_pool2d,
    )

PLACES = {
    "tracegrad.nn.functional.activation": (
        "celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax",
        "logsigmoid", "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign",
        "tanh",
    ),
    "tracegrad.nn.functional.attention": ("scaled_dot_product_attention",),
    "tracegrad.nn.functional.conv": ("conv1d", "conv2d", "conv3d"),
    "tracegrad.nn.functional.conv_transpose": ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    "tracegrad.nn.functional.entropy": ("cross_entropy", "nll_loss"),
    "tracegrad.nn.functional.layers": ("dropout", "embedding", "flatten", "linear", "one_hot"),
    "tracegrad.nn.functional.loss": (
        "binary_cross_entropy", "binary_cross_entropy_with_logits", "huber_loss", "kl_div", "l1_loss", "mse_loss",
        "smooth_l1_loss",
    ),
    "tracegrad.nn.functional.norm": ("batch_norm", "batch_statistics", "group_norm", "layer_norm", "normalize"),
    "tracegrad.nn.functional.padding": ("pad",),
    "tracegrad.nn.functional.pool": (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d",
    ),
}  # fmt: skip
__getattr__, __dir__ = lazy.names(__name__, PLACES)

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm", "batch_statistics",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cross_entropy", "dropout", "elu", "embedding",
    "flatten", "gelu", "glu", "group_norm", "hardsigmoid", "hardswish", "hardtanh", "huber_loss", "kl_div", "l1_loss",
    "layer_norm", "leaky_relu", "linear", "log_softmax", "logsigmoid", "max_pool1d", "max_pool2d", "mish", "mse_loss",
    "nll_loss", "normalize", "one_hot", "pad", "prelu", "relu", "relu6", "scaled_dot_product_attention", "selu",
    "sigmoid", "silu", "smooth_l1_loss", "softmax", "softplus", "softsign", "tanh",
]  # fmt: skip
