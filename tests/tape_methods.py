"""PyTorch's methods in use: each row runs on tensors of the tape, of PyTorch, and on traced values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MATRIX = [[0.5, -1.25, 2.0], [3.0, 0.75, -0.5]]
METHODS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: x.sum(dim=1), "sum_keepdim": lambda x: x.sum(dim=0, keepdim=True), "sum_all": lambda x: x.sum(),
    "mean": lambda x: x.mean(dim=0), "mean_axes": lambda x: x.mean(dim=(0, 1)), "prod": lambda x: x.prod(dim=1),
    "var": lambda x: x.var(dim=1), "std": lambda x: x.std(dim=1), "var_biased": lambda x: x.var(dim=1, unbiased=False),
    "max_dim": lambda x: x.max(dim=1).values, "min_dim": lambda x: x.min(dim=0)[0], "max_all": lambda x: x.max(),
    "amax": lambda x: x.max(dim=1, keepdim=True)[0], "norm": lambda x: x.norm(), "norm_1": lambda x: x.norm(p=1),
    "norm_dim": lambda x: x.norm(dim=1), "norm_3": lambda x: x.norm(p=3), "view": lambda x: x.view(3, 2),
    "view_minus": lambda x: x.view(-1), "reshape": lambda x: x.reshape(6), "t": lambda x: x.t(), "T": lambda x: x.T,
    "permute": lambda x: x.permute(1, 0), "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x.unsqueeze(0).squeeze(0), "squeeze_all": lambda x: x.unsqueeze(0).squeeze(),
    "expand": lambda x: x.unsqueeze(0).expand(4, -1, -1), "flatten": lambda x: x.unsqueeze(0).flatten(1),
    "transpose": lambda x: x.unsqueeze(0).transpose(1, 2), "exp": lambda x: x.exp(), "abs": lambda x: x.abs(),
    "pow": lambda x: x.pow(2), "pow_tensor": lambda x: x.abs().pow(x), "rpow": lambda x: 2.0**x,
    "clamp": lambda x: x.clamp(-1.0, 1.0), "clamp_min": lambda x: x.clamp(min=0.0), "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(), "softmax": lambda x: x.softmax(dim=1),
    "log_softmax": lambda x: x.log_softmax(dim=0), "logsumexp": lambda x: x.logsumexp(dim=1),
    "cumsum": lambda x: x.cumsum(dim=1), "cumprod": lambda x: x.cumprod(dim=1), "matmul": lambda x: x @ x.T,
    "mm": lambda x: x.mm(x.t()), "mv": lambda x: x.mv(x[0]), "outer": lambda x: x[0].outer(x[1]),
    "dot": lambda x: x[0].dot(x[1]), "add_alpha": lambda x: x.add(x, alpha=2.0), "sub": lambda x: x.sub(x * x),
    "mul": lambda x: x.mul(x), "div": lambda x: x.div(x * x + 1.0), "rdiv": lambda x: 1.0 / (x * x + 1.0),
    "rsub": lambda x: 1.0 - x, "neg": lambda x: -x, "mod": lambda x: x % 0.7, "sort": lambda x: x.sort(dim=1).values,
    "sort_down": lambda x: x.sort(descending=True)[0], "flip": lambda x: x.flip(1),
    "split": lambda x: x.split(2, dim=1)[1], "chunk": lambda x: x.chunk(2, dim=1)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "masked_fill": lambda x: x.masked_fill(x > 1.0, 0.0), "tril": lambda x: x.tril(), "triu": lambda x: x.triu(1),
    "roll": lambda x: x.roll(1), "tile": lambda x: x.tile(2), "maximum": lambda x: x.maximum(x * 0.5 + 0.1),
    "double": lambda x: x.double(), "rsqrt": lambda x: x.abs().rsqrt(), "log1p": lambda x: x.abs().log1p(),
}  # fmt: skip
