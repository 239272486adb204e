"""Functions of torch.nn.functional, with its names, argument order and defaults; pure, on arrays or traced values."""

from tracegrad.nn.functional.activation import (
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    logsigmoid,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from tracegrad.nn.functional.attention import scaled_dot_product_attention
from tracegrad.nn.functional.conv import conv1d, conv2d, pad
from tracegrad.nn.functional.entropy import cross_entropy, nll_loss
from tracegrad.nn.functional.layers import dropout, embedding, flatten, linear, one_hot
from tracegrad.nn.functional.loss import (
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from tracegrad.nn.functional.norm import batch_norm, batch_statistics, group_norm, layer_norm, normalize
from tracegrad.nn.functional.pool import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d

__all__ = [
    "avg_pool1d", "avg_pool2d", "batch_norm", "batch_statistics", "binary_cross_entropy_with_logits", "conv1d",
    "conv2d", "cross_entropy", "dropout", "elu", "embedding", "flatten", "gelu", "group_norm", "huber_loss",
    "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear", "log_softmax", "logsigmoid", "max_pool1d",
    "max_pool2d", "mse_loss", "nll_loss", "normalize", "one_hot", "pad", "relu", "scaled_dot_product_attention",
    "sigmoid", "silu", "smooth_l1_loss", "softmax", "softplus", "tanh",
]  # fmt: skip
