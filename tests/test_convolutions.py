"""Convolutions as users meet them: transposed ones, gradients of gradients, loops, memory, schedules, messages."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.codegen.plan_conv import plan_conv
from tracegrad.config import config
from tracegrad.nn import functional as F
from tracegrad.testing import check_grads

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
BACK = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
SIZES = {1: (7,), 2: (5, 6), 3: (3, 4, 3)}


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("more", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 1, "groups": 2}], ids=str)
def test_transposed_convolution_is_the_adjoint(axes, more):
    """<conv(x, w), y> = <x, conv_transpose(y, w)>, with the output_padding that gives the size of x."""
    x, w = normal(0, 2, 4, *SIZES[axes]), normal(1, 6, 4 // more.get("groups", 1), *(2,) * axes)
    result = CONV[axes](x, w, **more)
    y = normal(2, *result.shape)
    least = BACK[axes](y, w, **more)
    extra = tuple(n - m for n, m in zip(x.shape[2:], least.shape[2:], strict=True))
    back = BACK[axes](y, w, output_padding=extra, **more)
    assert np.sum(result * y) == pytest.approx(np.sum(x * back), rel=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("function", [CONV, BACK], ids=["conv", "conv_transpose"])
def test_gradients_to_second_order(axes, function):
    x, w, b = normal(0, 1, 2, *SIZES[axes]), normal(1, 2, 2, *(2,) * axes), normal(2, 2)
    check_grads(lambda *a: function[axes](*a, stride=2, padding=1), [x, w, b], order=2)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_compiled_gradients_of_gradients(axes):
    x, w, v = normal(0, 2, 2, *SIZES[axes]), normal(1, 2, 4, *(3,) * axes), normal(2, 4, 2, *(2,) * axes)

    def loss(x, w, v):
        y = BACK[axes](tnp.tanh(x), w, stride=2, padding=1)
        return tnp.sum(tnp.sin(CONV[axes](y, v.swapaxes(0, 1), dilation=2, padding=1)))

    def penalty(x, w, v):
        return sum(tnp.sum(g**2) for g in tg.grad(loss, argnums=(0, 1, 2))(x, w, v))

    second = tg.grad(penalty, argnums=(0, 1, 2))
    found = second(x, w, v)
    with tg.eager():
        expected = second(x, w, v)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * np.abs(b).max())


def test_a_convolution_in_a_loop_calls_the_library_kernel():
    x, w = normal(0, 1, 4, 8, 8), 0.3 * normal(1, 4, 4, 3, 3)

    def unrolled(x, w):
        for _ in range(3):
            x = tnp.tanh(F.conv2d(x, w, padding=1))
        return tnp.sum(x)

    def scanned(x, w):
        return tnp.sum(tg.scan(lambda c, _: (tnp.tanh(F.conv2d(c, w, padding=1)), None), x, None, length=3)[0])

    def looped(x, w):
        def step(state):
            return state[0] + 1, tnp.tanh(F.conv2d(state[1], w, padding=1))

        return tnp.sum(tg.while_loop(lambda state: state[0] < 3, step, (0, x))[1])

    expected = tg.value_and_grad(unrolled, argnums=(0, 1))(x, w)
    for function in (scanned, looped):
        program = tg.compile(tg.value_and_grad(function, argnums=(0, 1)), x, w)
        inner = [line for line in program.schedule.splitlines() if line.startswith("     ")]
        for kernel in ("conv f64[1, 4, 8, 8]: tg_conv_f64", "conv_dx f64[1, 4, 8, 8]: tg_conv_f64", "tg_convw_f64"):
            assert any(kernel in line for line in inner), kernel
        value, gradients = program(x, w)
        assert value == pytest.approx(expected[0], rel=1e-12)
        for a, b in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize(
    ("x", "w", "more", "why"),
    [
        ((2, 8, 9, 9), (4, 8, 3, 3), {}, "tile over a padded copy: 4 maps from 8 planes by 9 taps"),
        ((1, 3, 224, 224), (32, 3, 3, 3), {"stride": 2, "padding": 1}, "tile over a padded copy: 32 maps"),
        ((2, 64, 56, 56), (128, 64, 1, 1), {"stride": 2}, "tile over a padded copy: 128 maps from 64 planes by 1 taps"),
        ((2, 8, 9, 9), (4, 8, 1, 1), {}, "matrix product: one tap, stride 1, no padding; tile "),
        ((2, 8, 4, 5), (4, 8, 4, 5), {}, "matrix product: one window, all of the input; "),
        ((2, 8, 9, 9), (8, 2, 3, 3), {"groups": 4}, "dot products: 2 channels and 2 maps in a group, by 9 taps"),
        ((4, 64, 14, 14), (72, 64, 3, 3), {"padding": 6, "dilation": 6}, "tap by tap: 51% of the products are"),
        ((32, 64, 9, 9), (96, 64, 3, 3), {"stride": 2}, "product with patches: 96 maps by 576 columns; "),
        ((4, 32, 30, 30), (32, 32, 3, 3), {"padding": 1}, "winograd 4x4: 36 products per tile instead of 144; "),
        ((8, 64, 14, 14), (64, 16, 3, 3), {"padding": 1, "groups": 4}, "32 strips of 16 tiles, a group at a time"),
        ((2, 8, 9, 9), (8, 1, 3, 3), {"groups": 8}, "plane by plane: groups of one channel by 9 taps"),
    ],
)
def test_the_schedule_says_which_path_runs_and_why(x, w, more, why):
    gradient = tg.grad(lambda x, w: tnp.sum(F.conv2d(x, w, **more) ** 2), argnums=(0, 1))
    program = tg.compile(gradient, np.ones(x), np.ones(w))
    assert why in program.schedule


@pytest.mark.parametrize("kind", ["forward", "data", "weight"])
@pytest.mark.parametrize(("largest", "path"), [(0, "tile over"), (2, "winograd 2x2"), (4, "winograd 4x4")])
def test_a_setting_bounds_the_tiles(kind, largest, path, monkeypatch):
    monkeypatch.setattr(config, "winograd", largest)
    axes = ((1, 1), ((1, 1), (1, 1)), (1, 1))
    assert plan_conv(kind, "float32", (8, 64, 28, 28), (64, 64, 3, 3), *axes, 1, threads=2).why.startswith(path)


@pytest.mark.parametrize("kind", ["forward", "data", "weight"])
@pytest.mark.parametrize(
    ("x", "w", "stride", "groups"),
    [
        ((32, 64, 56, 56), (64, 64, 3, 3), 1, 1),
        ((32, 3, 224, 224), (64, 3, 7, 7), 2, 1),
        ((8, 128, 28, 28), (256, 128, 3, 3), 2, 1),
        ((16, 96, 56, 56), (96, 1, 3, 3), 1, 96),
        ((8, 64, 64, 64), (64, 64, 1, 1), 1, 1),
        ((4, 32, 16, 56, 56), (32, 32, 3, 3, 3), 1, 1),
        ((2, 16, 20_000), (32, 16, 9), 1, 1),
        ((1, 512, 7, 7), (512, 512, 3, 3), 1, 1),
        ((1, 512, 2, 7, 7), (512, 512, 3, 3, 3), 1, 1),
        ((1, 960, 14, 14), (960, 1, 3, 3), 1, 960),
    ],
)
def test_scratch_stays_small(kind, x, w, stride, groups):
    """At most 1.5 times the arrays, beside what a thread keeps in its cache."""
    n = len(x) - 2
    call = plan_conv(kind, "float32", x, w, (stride,) * n, ((1, 1),) * n, (1,) * n, groups, threads=2)
    out = [(s + 2 - k) // stride + 1 for s, k in zip(x[2:], w[2:], strict=True)]
    arrays = 4 * (np.prod(x) + np.prod(w) + x[0] * w[0] * np.prod(out))
    assert call.scratch_bytes <= 1.5 * arrays + 2 * (1 << 20)
