"""Geometries that are refused: each message gives both shapes and the rule, and says what to change."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.errors import ArgumentError, DTypeError, ShapeError, TracegradError
from tracegrad.nn import functional as F

X = (1, 4, 8, 8)
W = (6, 4, 3, 3)

GEOMETRIES = [
    (F.conv2d, X, (6, 4, 9, 3), {}, ShapeError, "the kernel of w f64[6, 4, 9, 3] (dilation (1, 1)) is larger than"),
    (F.conv2d, X, W, {"dilation": 4}, ShapeError, "is larger than x f64[1, 4, 8, 8] padded by ((0, 0), (0, 0))"),
    (F.conv1d, (1, 2, 3), (2, 2, 4), {}, ShapeError, "conv1d: the kernel of w f64[2, 2, 4]"),
    (F.conv3d, (1, 2, 3, 3, 3), (2, 2, 4, 1, 1), {}, ShapeError, "conv3d: the kernel of w f64[2, 2, 4, 1, 1]"),
    (F.conv2d, X, W, {"stride": 0}, ShapeError, "stride (0, 0), dilation (1, 1) and the kernel's sizes must"),
    (F.conv2d, X, W, {"stride": (1, -2)}, ShapeError, "x f64[1, 4, 8, 8] by w f64[6, 4, 3, 3]: stride (1, -2)"),
    (F.conv2d, X, W, {"dilation": 0}, ShapeError, "dilation (0, 0) and the kernel's sizes must be positive"),
    (F.conv2d, X, W, {"padding": -1}, ShapeError, "padding ((-1, -1), (-1, -1)) not negative"),
    (F.conv2d, X, (6, 4, 0, 3), {}, ShapeError, "w f64[6, 4, 0, 3]: stride (1, 1)"),
    (F.conv2d, X, (6, 4, 3, 3), {"groups": 3}, ShapeError, "groups=3 does not divide the channels of x f64"),
    (F.conv2d, X, (7, 2, 3, 3), {"groups": 2}, ShapeError, "groups=2 does not divide the channels of x f64"),
    (F.conv2d, X, W, {"groups": 0}, ShapeError, "groups=0 does not divide"),
    (F.conv2d, X, (6, 3, 3, 3), {}, ShapeError, "x f64[1, 4, 8, 8] has 4 channels but w f64[6, 3, 3, 3] expects 3"),
    (F.conv2d, (4, 8), W, {}, ShapeError, "x f64[4, 8] is not [C, H, W] or [N, C, H, W]"),
    (F.conv2d, X, (6, 4, 3), {}, ShapeError, "or weight f64[6, 4, 3] does not have 4 axes"),
    (F.conv3d, X, W, {}, ShapeError, "weight f64[6, 4, 3, 3] does not have 5 axes"),
    (F.conv2d, X, W, {"stride": (1, 2, 3)}, ArgumentError, "stride=(1, 2, 3) is not an integer or 2 of them"),
    (F.conv2d, X, W, {"padding": ((1, 1),)}, ArgumentError, "padding=((1, 1),) does not have a pair for each"),
    (F.conv2d, X, W, {"padding": "half"}, ArgumentError, "padding='half' is not known"),
    (F.conv2d, X, W, {"padding": "same", "stride": 2}, ArgumentError, 'padding="same" needs stride 1, not (2, 2)'),
    (F.conv_transpose2d, X, W, {}, ShapeError, "x f64[1, 4, 8, 8] has 4 channels but weight f64[6, 4, 3, 3] expects 6"),
    (F.conv_transpose2d, X, (4, 2, 3, 3), {"groups": 3}, ShapeError, "groups=3 does not divide the 4 channels of x"),
    (F.conv_transpose2d, X, (4, 2, 3, 3), {"stride": 0}, ShapeError, "and weight f64[4, 2, 3, 3]: stride (0, 0)"),
    (F.conv_transpose2d, X, (4, 2, 3, 3), {"dilation": -1}, ShapeError, "dilation (-1, -1) and the kernel's sizes"),
    (F.conv_transpose2d, X, (4, 2, 3, 3), {"padding": -1}, ShapeError, "padding (-1, -1) not negative"),
    (
        F.conv_transpose2d, X, (4, 2, 3, 3), {"stride": 2, "output_padding": 2}, ShapeError,
        "output_padding (2, 2) must be at least 0 and less than stride (2, 2) or dilation (1, 1)",
    ),
    (F.conv_transpose2d, X, (4, 2, 3, 3), {"output_padding": -1}, ShapeError, "output_padding (-1, -1) must be"),
    (F.conv_transpose2d, X, (4, 2, 3, 3), {"padding": 5}, ShapeError, "the result would have the sizes (0, 0) = (size"),
    (F.conv_transpose1d, X, (4, 2, 3), {}, ShapeError, "x f64[1, 4, 8, 8] is not [C, L] or [N, C, L]"),
    (F.conv_transpose3d, X, (4, 2, 3), {}, ShapeError, "weight f64[4, 2, 3] does not have 5 axes"),
]  # fmt: skip


def check(error, message):
    """The message without the line of the test holds this text, and a fix."""
    text = re.sub(r" at \w+\.py:\d+", "", str(error))
    assert message in text
    assert "\n  fix: " in text


@pytest.mark.parametrize("mode", ["compiled", "gradient", "arrays"])
@pytest.mark.parametrize("row", GEOMETRIES, ids=lambda row: f"{row[0].__name__}-{row[1]}-{row[2]}-{row[3]}")
def test_bad_geometries(row, mode):
    function, x, w, more, kind, message = row
    arguments = np.ones(x), np.ones(w)

    def call(x, w):
        return function(x, w, **more)

    run = {"compiled": tg.jit(call), "gradient": tg.grad(lambda x, w: call(x, w).sum()), "arrays": call}[mode]
    with pytest.raises(kind) as caught:
        run(*arguments)
    check(caught.value, message)


DTYPES = [
    (F.conv2d, np.float64, np.float32, "x f64[1, 4, 8, 8] and w f32[6, 4, 3, 3] must have one floating-point dtype"),
    (F.conv2d, np.int64, np.int64, "x i64[1, 4, 8, 8] and w i64[6, 4, 3, 3] must have one floating-point dtype"),
    (F.conv2d, np.longdouble, np.longdouble, "dtype float128"),
    (F.conv_transpose2d, np.int32, np.int32, "must have one floating-point dtype"),
    (F.conv_transpose2d, np.float32, np.float64, "must have one floating-point dtype"),
]


@pytest.mark.parametrize(("function", "first", "second", "message"), DTYPES, ids=range(len(DTYPES)))
def test_dtypes_that_are_refused(function, first, second, message):
    shape = W if function is F.conv2d else (4, 6, 3, 3)
    with pytest.raises(DTypeError) as caught:
        tg.jit(function)(np.ones(X, first), np.ones(shape, second))
    check(caught.value, message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv3d(4, 6, 3, groups=3), "Conv3d: groups=3 does not divide in_channels=4 and out_channels=6"),
        (lambda: nn.ConvTranspose1d(4, 6, 3, groups=4), "groups=4 does not divide in_channels=4 and out_channels=6"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), "padding_mode='reflect' is not possible"),
        (lambda: nn.Conv2d(4, 6, (3, 3, 3)), "kernel_size=(3, 3, 3) is not an integer or 2 of them"),
        (
            lambda: nn.ConvTranspose2d(4, 6, 3, stride=2)(np.ones(X, np.float32), output_size=(19, 17)),
            "output_size=(19, 17) is not between (17, 17) and (18, 18)",
        ),
    ],
)
def test_modules_refuse(make, message):
    with pytest.raises(TracegradError) as caught:
        make()
    check(caught.value, message)
