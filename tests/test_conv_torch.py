"""Convolutions over 1 to 3 axes, transposed ones and padding modes against PyTorch: values and all gradients."""

from __future__ import annotations

import numpy as np
import pytest

from tracegrad import nn, random
from tracegrad.nn import functional as F

torch = pytest.importorskip("torch")
from torch_peer import check, compare_module, normal  # noqa: E402 (it needs PyTorch)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TF = torch.nn.functional
SIZES = {1: (9,), 2: (7, 8), 3: (5, 7, 6)}
OURS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
THEIRS = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
OURS_BACK = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
THEIRS_BACK = {1: torch.nn.ConvTranspose1d, 2: torch.nn.ConvTranspose2d, 3: torch.nn.ConvTranspose3d}

CONV3D = [
    ((2, 4, 3), {}),
    ((2, 4, (3, 2, 1), 2, 1), {}),
    ((2, 4, (2, 3, 2), (1, 2, 3), (0, 2, 1), (2, 1, 1)), {}),
    ((4, 4, 3), {"padding": 1, "groups": 4, "bias": False}),
    ((4, 6, 2), {"padding": "same", "groups": 2, "dilation": 2}),
    ((2, 3, 1), {"stride": 2}),
]


@pytest.mark.parametrize(("arguments", "more"), CONV3D, ids=range(len(CONV3D)))
def test_conv3d_options(arguments, more):
    module = nn.Conv3d(*arguments, **more, dtype=np.float64)
    compare_module(module, torch.nn.Conv3d(*arguments, **more), normal(0, 2, arguments[0], 5, 7, 6))


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_modes(axes, mode):
    more = {"padding": (2, 1, 1)[:axes], "padding_mode": mode, "groups": 2}
    module = OURS[axes](2, 4, 3, **more, dtype=np.float64)
    compare_module(module, THEIRS[axes](2, 4, 3, **more), normal(0, 2, 2, *SIZES[axes]))


TRANSPOSED = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "padding": 2, "output_padding": 2, "bias": False},
    {"dilation": 2, "padding": 1},
    {"dilation": 3, "output_padding": 2, "padding": 1},  # an output_padding over the stride
    {"dilation": 3, "output_padding": 2},  # the same, with nothing to take back
    {"groups": 2, "stride": 2},
    {"groups": 4, "stride": 1, "padding": 2},
]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("number", range(len(TRANSPOSED)))
def test_transposed_options(axes, number):
    more = TRANSPOSED[number]
    module = OURS_BACK[axes](4, 8, 3, **more, dtype=np.float64)
    compare_module(module, THEIRS_BACK[axes](4, 8, 3, **more), normal(0, 2, 4, *SIZES[axes]))


def test_transposed_sizes_that_differ_by_axis():
    arguments = (2, 4, (3, 2), (2, 3), (1, 0), (1, 2), 2, True, (1, 2))
    compare_module(
        nn.ConvTranspose2d(*arguments, dtype=np.float64), torch.nn.ConvTranspose2d(*arguments), normal(0, 2, 2, 5, 4)
    )


def test_output_size():
    for size in [(11, 13), (12, 14), (2, 4, 11, 14)]:
        compare_module(
            nn.ConvTranspose2d(2, 4, 3, stride=2, dtype=np.float64),
            torch.nn.ConvTranspose2d(2, 4, 3, stride=2),
            normal(0, 2, 2, 5, 6),
            call=lambda module, x, size=size: module(x, output_size=list(size)),
        )


def test_unbatched_inputs():
    for axes in (1, 2, 3):
        x = normal(0, 2, *SIZES[axes])
        compare_module(OURS_BACK[axes](2, 4, 3, dtype=np.float64), THEIRS_BACK[axes](2, 4, 3), x)
        compare_module(OURS[axes](2, 4, 3, dtype=np.float64), THEIRS[axes](2, 4, 3), x)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_compiled(axes):
    """Both in one program, in f32."""
    x = normal(0, 2, 2, *SIZES[axes], dtype=np.float32)
    keys = random.split(random.key(0))
    ours = nn.Sequential(
        OURS[axes](2, 4, 3, padding=1, key=keys[0]), OURS_BACK[axes](4, 2, 3, 2, 1, output_padding=1, key=keys[1])
    )
    theirs = torch.nn.Sequential(
        THEIRS[axes](2, 4, 3, padding=1), THEIRS_BACK[axes](4, 2, 3, 2, 1, output_padding=1)
    )  # fmt: skip
    compare_module(ours, theirs, x, compiled=True, tolerance=2e-5)


def test_compiled_by_winograd():
    """3 x 3 taps of enough channels, in f32, with all gradients."""
    x = normal(0, 2, 32, 30, 27, dtype=np.float32)
    ours, theirs = nn.Conv2d(32, 24, 3, padding=1), torch.nn.Conv2d(32, 24, 3, padding=1)
    compare_module(ours, theirs, x, compiled=True, tolerance=2e-5)


def test_asymmetric_padding():
    x, w = normal(0, 2, 3, 6, 5), normal(1, 4, 3, 3, 2)
    check(
        lambda x, w: F.conv2d(x, w, padding=((2, 0), (1, 3))),
        lambda x, w: TF.conv2d(TF.pad(x, (1, 3, 2, 0)), w),
        x, w,
    )  # fmt: skip


def test_initial_values_have_the_same_range():
    """PyTorch's fan_in of a transposed weight [in, out / groups, ...] is that of its second axis."""
    ours = nn.ConvTranspose2d(64, 16, 3, groups=2, key=random.key(0))
    theirs = torch.nn.ConvTranspose2d(64, 16, 3, groups=2)
    for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert a.shape == tuple(b.shape)
        assert np.abs(a).max() == pytest.approx(float(b.abs().max()), rel=0.2)
