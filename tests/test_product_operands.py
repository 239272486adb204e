"""Matrix products read their operands where they lie: nothing is copied before the kernel packs it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.codegen.plan_gemm import plan_gemm
from tracegrad.codegen.tile_shape import SHAPES


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


PRODUCTS = {
    "transposed": (lambda a, b: a.T @ b.T, (70, 60), (50, 70)),
    "every other column": (lambda a, b: a[:, ::2] @ b, (60, 140), (70, 50)),
    "a block": (lambda a, b: a[3:63, 5:75] @ b[:70], (80, 90), (80, 50)),
    "backwards": (lambda a, b: a[::-1] @ b[:, ::-1], (60, 70), (70, 50)),
    "attention": (lambda q, k: q @ k.swapaxes(-1, -2), (2, 4, 33, 16), (2, 4, 35, 16)),
    "heads": (
        lambda q, k: q.reshape(2, 33, 4, 16).swapaxes(1, 2) @ k.reshape(2, 35, 4, 16).transpose(0, 2, 3, 1),
        (2, 33, 64), (2, 35, 64),
    ),
    "shared heads": (lambda q, k: q @ k[:, None].swapaxes(-1, -2), (3, 4, 33, 40), (3, 35, 40)),
    "one matrix by a batch": (lambda a, b: a @ b, (40, 50), (8, 50, 60)),
    "one matrix by a batch of two axes": (lambda a, b: a @ b, (40, 50), (2, 4, 50, 60)),
    "a batch by vectors": (lambda a, b: (a @ b[..., None])[..., 0], (20, 40, 50), (20, 50)),
    "a batch by one matrix": (lambda a, b: a @ b, (8, 40, 50), (50, 60)),
    "matrix by vector": (lambda a, b: a @ b, (300, 200), (200,)),
    "vector by matrix": (lambda a, b: a @ b.T, (200,), (300, 200)),
    "tall and skinny": (lambda a, b: a @ b, (3000, 40), (40, 17)),
    "short and wide": (lambda a, b: a @ b, (17, 40), (40, 3000)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_operands_are_not_copied(name):
    product, *shapes = PRODUCTS[name]
    a, b = (normal(*shape) for shape in shapes)
    program = tg.compile(product, a, b)
    steps = [line for line in program.schedule.splitlines() if line.startswith("  ")]
    assert len(steps) == 1 and "tg_gem" in steps[0], program.schedule
    np.testing.assert_allclose(program(a, b), product(a, b))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_, np.int64])
@pytest.mark.parametrize("shape", [(301, 517), (3, 130, 261), (2, 3, 200, 201), (1, 200_001), (200_001, 1)], ids=str)
def test_large_arguments_that_are_stored_transposed(shape, dtype):
    x = (100 * normal(*shape)).astype(dtype)
    stored = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    np.testing.assert_array_equal(tg.jit(lambda x: np.where(True, x, x))(stored), x)


@pytest.mark.parametrize("isa", SHAPES)
def test_every_empty_product_has_a_plan(isa):
    """Strides of operands without elements are 0 as well."""
    for m, n, k, batch, dtype in itertools.product(*[(0, 1, 3, 9, 40, 700)] * 3, (0, 1, 5), ("float32", "float64")):
        if m * n * k * batch == 0:
            strides = (m * k, k, 1), (k * n, n, 1), (m * n, n, 1)
            turned = (m * k, 1, m), (k * n, 1, k), (m * n, n, 1)
            for steps in (strides, turned):
                call = plan_gemm(dtype, m, n, k, *steps, batch, 2, isa=isa)
                assert call.flops == 0 and call.scratch_bytes % 64 == 0


def test_nothing_is_the_product_of_few_rows_and_no_columns():
    assert tg.jit(lambda a, b: a @ b)(np.ones((9, 300)), np.ones((300, 0))).shape == (9, 0)
