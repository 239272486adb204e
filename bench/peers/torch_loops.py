"""The loops in eager PyTorch; the LSTM written as a cell, and as `torch.nn.LSTM` (the library `torch.nn`)."""

from __future__ import annotations

from typing import Any

import torch

from bench.loops_cases import GRAVITY, ORBIT, RATE, SPAN, X0, A, B, Maker, Program, Values, lstm_data, signal, stop


def version() -> str:
    """Return the library's version."""
    return str(torch.__version__)


def leaves(*numbers: float) -> tuple[Any, ...]:
    return tuple(torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers)


def gradient(value: Any, by: tuple[Any, ...]) -> Values:
    return value.item(), [g.numpy() for g in torch.autograd.grad(value, by)]


def logistic(rounds: int, r: Any, x: Any) -> Any:
    for _ in range(rounds):
        x = r * x * (1.0 - x)
    return x


def until(tolerance: float, r: Any, x: Any) -> tuple[Any, int]:
    change, rounds = 1.0, 0
    while change > tolerance:
        y = r * x * (1.0 - x)
        change, x, rounds = abs(y - x), y, rounds + 1
    return x, rounds


def slope(k: Any, y: Any) -> Any:
    px, py, vx, vy = y
    r2 = px * px + py * py
    pull = -k / (r2 * torch.sqrt(r2))
    return vx, vy, pull * px, pull * py


def ahead(y: Any, h: float, d: Any) -> Any:
    return tuple(a + h * b for a, b in zip(y, d, strict=True))


def rk4(steps: int, k: Any, y: Any) -> Any:
    h = SPAN / steps
    for _ in range(steps):
        k1 = slope(k, y)
        k2 = slope(k, ahead(y, 0.5 * h, k1))
        k3 = slope(k, ahead(y, 0.5 * h, k2))
        k4 = slope(k, ahead(y, h, k3))
        y = tuple(a + h / 6.0 * (b + 2.0 * c + 2.0 * d + e) for a, b, c, d, e in zip(y, k1, k2, k3, k4, strict=True))
    return y


def forward(kind: str, size: int) -> Program:
    def run() -> Values:
        with torch.no_grad():
            if kind == "rk4":
                return tuple(v.item() for v in rk4(size, leaves(GRAVITY)[0], leaves(*ORBIT)))
            if kind == "while":
                x, rounds = until(stop(size), *leaves(RATE, X0))
                return x.item(), rounds
            return (logistic(size, *leaves(RATE, X0)).item(),)

    return run


def backward(kind: str, size: int) -> Program:
    def run() -> Values:
        if kind == "rk4":
            k, *y = by = leaves(GRAVITY, *ORBIT)
            return gradient(rk4(size, k, tuple(y))[0], by)
        by = leaves(RATE, X0)
        return gradient(until(stop(size), *by)[0] if kind == "while" else logistic(size, *by), by)

    return run


def filtered(a: Any, b: Any, x: Any) -> Any:
    ys = list(x[:2])
    for now in x[2:]:
        ys.append(a * ys[-1] + b * ys[-2] + now)
    whole = torch.stack(ys)
    return (whole * whole).mean()


def filter_forward(length: int) -> Program:
    x, (a, b) = torch.from_numpy(signal(length)), leaves(A, B)

    def run() -> Values:
        with torch.no_grad():
            return (filtered(a, b, x).item(),)

    return run


def filter_gradient(length: int) -> Program:
    by = (*leaves(A, B), torch.from_numpy(signal(length)).requires_grad_())
    return lambda: gradient(filtered(*by), by)


def lstm(wx: Any, wh: Any, b: Any, x: Any) -> Any:
    h = c = torch.zeros(x.shape[1:])
    hs = []
    for row in x:
        i, f, g, o = (row @ wx + h @ wh + b).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        hs.append(h)
    whole = torch.stack(hs)
    return (whole * whole).mean()


def lstm_cell(length: int) -> Program:
    x, *weights = (torch.from_numpy(a) for a in lstm_data(length))
    by = tuple(w.requires_grad_() for w in weights)
    return lambda: gradient(lstm(*by, x), by)


def lstm_layer(length: int) -> Program:
    """`torch.nn.LSTM` has a second bias, which stays zero, and transposed weights."""
    x, wx, wh, b = (torch.from_numpy(a) for a in lstm_data(length))
    layer = torch.nn.LSTM(x.shape[2], x.shape[2])
    with torch.no_grad():
        layer.weight_ih_l0.copy_(wx.T)
        layer.weight_hh_l0.copy_(wh.T)
        layer.bias_ih_l0.copy_(b)
        layer.bias_hh_l0.zero_()
    by = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0)

    def run() -> Values:
        hs = layer(x)[0]
        value, (gx, gh, gb) = gradient((hs * hs).mean(), by)
        return value, [gx.T, gh.T, gb]

    return run


PROGRAMS: dict[str, Maker] = {
    "logistic-forward": lambda n: forward("logistic", n),
    "logistic-gradient": lambda n: backward("logistic", n),
    "while-forward": lambda n: forward("while", n),
    "while-gradient": lambda n: backward("while", n),
    "rk4-forward": lambda n: forward("rk4", n),
    "rk4-gradient": lambda n: backward("rk4", n),
    "filter-forward": filter_forward,
    "filter-gradient": filter_gradient,
    "lstm-gradient": lstm_cell,
}
NN_PROGRAMS: dict[str, Maker] = {"lstm-gradient": lstm_layer}
