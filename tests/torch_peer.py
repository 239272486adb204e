"""Comparisons with PyTorch: values and gradients of functions, and of modules with the same parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import tree

torch = pytest.importorskip("torch")


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def check(ours, theirs, *arrays, compiled=False, tolerance=1e-9):
    """Compare value and gradients of sum(f(arrays) * c) for a fixed random c; results may be tuples."""
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    expected = tree.leaves(theirs(*tensors))
    cs = [normal(99 + i, *e.shape) for i, e in enumerate(expected)]
    sum((e * torch.tensor(c)).sum() for e, c in zip(expected, cs, strict=True)).backward()
    wrt = tuple(i for i, a in enumerate(arrays) if a.dtype.kind == "f")

    def loss(*values):
        ys = tree.leaves(ours(*values))
        return sum(tnp.sum(y * c) for y, c in zip(ys, cs, strict=True)), ys

    transformed = tg.value_and_grad(loss, argnums=wrt, has_aux=True)
    if compiled:
        (_, values), gradients = transformed(*arrays)
    else:
        with tg.eager():
            (_, values), gradients = transformed(*arrays)
    for value, e in zip(values, expected, strict=True):
        assert_close(value, e.detach().numpy(), tolerance)
    for i, gradient in zip(wrt, gradients, strict=True):
        assert_close(gradient, tensors[i].grad.numpy(), tolerance)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Compare up to rounding, relative to the largest element."""
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


def compare_module(ours, theirs, *inputs, call=None, **more):
    """Give PyTorch's module our parameters, and compare outputs and the gradients of parameters and inputs.

    `call(module, *inputs)` is what both do; it calls the module when not given.
    """
    call = call or (lambda module, *xs: module(*xs))
    names = list(ours.named_parameters())
    own = dict(theirs.named_parameters())
    assert sorted(names) == sorted(own)
    assert [w.shape for w in ours.named_parameters().values()] == [tuple(own[n].shape) for n in names]
    weights = [np.array(w) for w in ours.named_parameters().values()]
    theirs = theirs.to(torch.tensor(weights[0]).dtype) if weights else theirs

    def run(*values):
        given = dict(zip(names, values[len(inputs) :], strict=True))
        wrapped = Calling(theirs, call)
        return torch.func.functional_call(
            wrapped, {f"module.{n}": v for n, v in given.items()}, tuple(values[: len(inputs)])
        )

    def run_ours(*values):
        given = dict(zip(names, values[len(inputs) :], strict=True))
        return call(ours.load_state_dict(given, strict=False), *values[: len(inputs)])

    check(run_ours, run, *inputs, *weights, **more)


class Calling(torch.nn.Module):
    """A module whose forward is a function of another one."""

    def __init__(self, module, call):
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *xs):
        return self.call(self.module, *xs)
