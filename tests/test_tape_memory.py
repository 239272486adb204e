"""Results that are no views have memory of their own, also where there was nothing to compute."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.tape.views import VIEWING

VIEWS = {
    *VIEWING, "T", "mT", "array_split", "asarray", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "ix_",
    "broadcast_to", "chunk", "contiguous", "detach", "diagonal", "dsplit", "expand_dims", "flatten", "hsplit",
    "matrix_transpose", "meshgrid", "moveaxis", "permute_dims", "real", "rollaxis", "split", "unbind", "unstack",
    "view", "vsplit",
}  # fmt: skip
"""Functions and methods that show the memory of their operand, as in NumPy or PyTorch."""
OWN = {"apart", "in_order", "requires_grad_"}
"""Methods that return the tensor itself."""
EXTRA: list[tuple[Any, ...]] = [(), (0,), (-1,), (1,), (None,), ([],)]


def names() -> list[str]:
    public = [n for n in dir(tnp) if inspect.isfunction(getattr(tnp, n))]
    methods = [n for n in dir(tg.Tensor) if callable(getattr(tg.Tensor, n)) and not n.endswith("_")]
    operators = ["__abs__", "__pos__", "__neg__", "__pow__", "__round__"]
    return sorted({*public, *methods, *operators} - VIEWS - OWN - {"backward", "register_hook"})


def results(found: Any) -> Iterator[tg.Tensor]:
    if isinstance(found, tg.Tensor):
        yield found
    elif isinstance(found, (list, tuple)):
        for part in found:
            yield from results(part)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_])
def test_results_share_no_memory_with_operands(dtype: Any) -> None:
    checked = set()
    for name in names():
        for shape in [(), (1,), (2, 3)]:
            for extra in EXTRA:
                for function in {getattr(tnp, name, None), getattr(tg.Tensor, name, None)} - {None}:
                    x = tg.tensor(np.ones(shape, dtype))
                    try:
                        found = list(results(function(x, *extra)))
                    except Exception:  # arguments that do not fit this function
                        continue
                    assert not any(y is x or np.shares_memory(y._data, x._data) for y in found), (name, shape, extra)
                    checked.add(name)
    assert len(checked) > 100


def test_operands_by_name_and_in_lists() -> None:
    x = tg.tensor(np.ones(1))
    for found in [tnp.sum(x=x, axis=()), tnp.concatenate([x]), tnp.stack([x]), np.stack([[x]])]:
        found += 1.0
        assert x.item() == 1.0
