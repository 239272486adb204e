"""Recurrent layers on `tg.scan`, with the parameters of PyTorch's.

The inputs of all steps meet their weights in one product before the loop; inside it there is the product with the state
alone. With x(t) the input, h(t) the state, and a weight's rows being those of its gates one after the other:

    RNN    h = tanh(Wx + b + Uh + c), or relu
    GRU    r, z = sigmoid(...);  n = tanh(W_n x + b_n + r (U_n h + c_n));  h = (1 - z) n + z h      (Cho et al., 2014)
    LSTM   i, f, o = sigmoid(...), g = tanh(...);  s = f s + i g;  h = o tanh(s), or P (o tanh(s))  (Hochreiter, 1997)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad import random
from tracegrad.api.control import scan
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import spelled
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.module import Module

State = tuple[Any, ...]


class Recurrent(Module):
    """What the recurrent layers share: parameters of every layer and direction, and the run over them."""

    gates = 1
    """Blocks of rows in a weight."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        name = type(self).__name__
        if min(input_size, hidden_size, num_layers) < 1:
            raise ArgumentError(
                f"{name}: input_size={input_size}, hidden_size={hidden_size}, num_layers={num_layers} must be positive",
                fix="use sizes of 1 or more",
            )
        if not 0 <= dropout <= 1:
            raise ArgumentError(f"{name}: dropout is {dropout}, not a probability", fix="use 0 <= dropout <= 1")
        if not 0 <= proj_size < hidden_size:
            raise ArgumentError(
                f"{name}: proj_size={proj_size} is not smaller than hidden_size={hidden_size}", fix="use proj_size=0"
            )
        if dropout and num_layers == 1:
            warnings.warn(f"{name}: dropout acts between layers, and num_layers is 1", stacklevel=4)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.draw(init.key_or_default(key), dtype)

    def draw(self, key: Any, dtype: Any) -> None:
        """Make the parameters, uniform on +-1/sqrt(hidden_size)."""
        rows, out = self.gates * self.hidden_size, self.proj_size or self.hidden_size
        bound = 1.0 / math.sqrt(self.hidden_size)
        count = 0
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else out * len(self.directions())
            for suffix in self.directions():
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, out)}
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {}
                shapes |= {"weight_hr": (self.proj_size, self.hidden_size)} if self.proj_size else {}
                for name, shape in shapes.items():
                    count += 1
                    value = init.uniform(random.fold_in(key, count), shape, -bound, bound, dtype)
                    setattr(self, f"{name}_l{layer}{suffix}", value)

    def directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def sizes(self) -> tuple[int, ...]:
        """Return the width of each part of the state."""
        return (self.hidden_size,)

    def advance(self, fixed: Any, gates: Any, state: State) -> State:
        """Return the state after one step; `gates` is the input's part of them, `fixed` what `constants` returned."""
        raise NotImplementedError

    def parameters_of(self, place: str) -> dict[str, Any]:
        """Return the parameters of one layer and direction, None for those that there are not."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return {name: self.__dict__.get(f"{name}_{place}") for name in names}

    def __call__(self, x: Any, hx: Any = None, *, key: Any = None, training: bool = False) -> tuple[Any, Any]:
        x = tnp.asarray(x)
        name = type(self).__name__
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "[N, T, input_size]" if self.batch_first else "[T, N, input_size]"
            raise ShapeError(
                f"{name}: {Aval(tuple(x.shape), x.dtype)} is not {axes} or [T, input_size] "
                f"with input_size = {self.input_size}",
                fix="check input_size and batch_first",
            )
        batched = x.ndim == 3
        rows = x[:, None] if not batched else tnp.swapaxes(x, 0, 1) if self.batch_first else x
        if rows.shape[0] == 0:
            raise ShapeError(f"{name}: the sequence has no steps", fix="pass at least one step")
        if training and self.dropout and self.num_layers > 1 and key is None:
            raise ArgumentError(f"{name}: training with dropout needs a key", fix="pass key=tg.random.key(seed)")
        states = self.initial(hx, batched, rows)
        rows, last = self.run_layers(rows, states, key, training)
        y = rows[:, 0] if not batched else tnp.swapaxes(rows, 0, 1) if self.batch_first else rows
        parts = [tnp.stack(part) for part in zip(*last, strict=True)]
        return y, self.packed([part if batched else part[:, 0] for part in parts])

    def packed(self, parts: Sequence[Any]) -> Any:
        """Return the last state as the user gets it."""
        return parts[0]

    def unpacked(self, hx: Any) -> Sequence[Any]:
        """Return the parts of an initial state that the user passed."""
        return (hx,)

    def initial(self, hx: Any, batched: bool, rows: Any) -> list[State]:
        """Return the initial state of each layer and direction; zeros when none is given."""
        count, n = self.num_layers * len(self.directions()), rows.shape[1]
        dtype = tnp.result_type(rows, self.parameters_of("l0")["weight_ih"])
        if hx is None:
            return [tuple(tnp.zeros((n, size), dtype=dtype) for size in self.sizes())] * count
        parts = [tnp.asarray(part) for part in self.unpacked(hx)]
        for part, size in zip(parts, self.sizes(), strict=True):
            expected = (count, n, size) if batched else (count, size)
            if tuple(part.shape) != expected:
                raise ShapeError(
                    f"{type(self).__name__}: the initial state {Aval(tuple(part.shape), part.dtype)} is not "
                    f"{list(expected)}, which is [layers * directions, N, width]",
                    fix="check num_layers, bidirectional and the batch size",
                )
            if part.dtype != dtype:
                raise DTypeError(
                    f"{type(self).__name__}: the initial state is {part.dtype}, but input and weights are {dtype}",
                    fix=f"convert it with .astype({spelled(dtype)})",
                )
        return [tuple(part[i] if batched else part[i][None] for part in parts) for i in range(count)]

    def run_layers(self, rows: Any, states: list[State], key: Any, training: bool) -> tuple[Any, list[State]]:
        """Run layer after layer over rows [T, N, width]; return the last outputs and the last state of each run."""
        last: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self.directions():
                ys, state = self.run_direction(rows, states[len(last)], f"l{layer}{suffix}")
                outputs.append(ys)
                last.append(state)
            rows = outputs[0] if len(outputs) == 1 else tnp.concatenate(outputs, axis=2)
            if training and self.dropout and layer < self.num_layers - 1:
                rows = F.dropout(rows, self.dropout, key=random.fold_in(key, layer))
        return rows, last

    def run_direction(self, rows: Any, state: State, place: str) -> tuple[Any, State]:
        """Run one layer in one direction over rows [T, N, width]."""
        held = self.parameters_of(place)
        gates = F.linear(rows, held["weight_ih"], held["bias_ih"])

        def step(state: State, gates: Any) -> tuple[State, Any]:
            state = self.advance(held, gates, state)
            return state, state[0]

        last, ys = scan(step, state, gates, reverse=place.endswith("_reverse"))
        return ys, last


def hidden_part(held: dict[str, Any], h: Any) -> Any:
    """Return the state's part of the gates."""
    return F.linear(h, held["weight_hh"], held["bias_hh"])


class RNN(Recurrent):
    """h = tanh(W x + b + U h + c) over a sequence, in several layers and one or both directions (Elman, 1990).

    Arguments as torch.nn.RNN; nonlinearity is "tanh" or "relu". `y, h_n = rnn(x, h_0)`: x [T, N, input_size], [N, T,
    input_size] with batch_first, or [T, input_size]; y has [.., directions * hidden_size], h_0 and h_n are [layers *
    directions, N, hidden_size]; h_0 may be left out. Dropout between layers acts with `key=..., training=True`. Raises
    ShapeError when sizes do not fit.

    >>> y, h = RNN(3, 4)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"RNN: nonlinearity={nonlinearity!r} is not known", fix='use "tanh" or "relu"')
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype=dtype, key=key
        )

    def advance(self, fixed: Any, gates: Any, state: State) -> State:
        z = gates + hidden_part(fixed, state[0])
        return (tnp.tanh(z) if self.nonlinearity == "tanh" else F.relu(z),)


class GRU(Recurrent):
    """Gated recurrent units over a sequence; arguments as torch.nn.GRU, calls as RNN.

    >>> y, h = GRU(3, 4, num_layers=2, bidirectional=True)(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h.shape
    ((5, 2, 8), (4, 2, 4))
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype=dtype, key=key
        )

    def advance(self, fixed: Any, gates: Any, state: State) -> State:
        n = self.hidden_size
        (h,) = state
        inner = hidden_part(fixed, h)
        r = F.sigmoid(gates[:, :n] + inner[:, :n])
        z = F.sigmoid(gates[:, n : 2 * n] + inner[:, n : 2 * n])
        fresh = tnp.tanh(gates[:, 2 * n :] + r * inner[:, 2 * n :])
        return (fresh + z * (h - fresh),)


class LSTM(Recurrent):
    """Long short-term memory over a sequence; arguments as torch.nn.LSTM, calls as RNN with a state of two parts:
    `y, (h_n, c_n) = lstm(x, (h_0, c_0))`. With proj_size the outputs have that width.

    >>> y, (h, c) = LSTM(3, 4, batch_first=True)(np.ones((2, 5, 3), np.float32))
    >>> y.shape, h.shape, c.shape
    ((2, 5, 4), (1, 2, 4), (1, 2, 4))
    """

    gates = 4

    def sizes(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def packed(self, parts: Sequence[Any]) -> Any:
        return tuple(parts)

    def unpacked(self, hx: Any) -> Sequence[Any]:
        if not isinstance(hx, (tuple, list)) or len(hx) != 2:
            raise ArgumentError("LSTM: the initial state is not a pair", fix="pass (h_0, c_0)")
        return hx

    def advance(self, fixed: Any, gates: Any, state: State) -> State:
        n = self.hidden_size
        h, c = state
        z = gates + hidden_part(fixed, h)
        i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = F.sigmoid(f) * c + F.sigmoid(i) * tnp.tanh(g)
        h = F.sigmoid(o) * tnp.tanh(c)
        return (h if fixed["weight_hr"] is None else F.linear(h, fixed["weight_hr"])), c
