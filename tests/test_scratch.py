"""No plan takes more scratch than 1.5 times its arrays, beside what a thread keeps in its cache: random plans."""

from __future__ import annotations

import math
import os
import random
from typing import Any

import pytest

from tracegrad.codegen.conv_geometry import geometry
from tracegrad.codegen.plan import ITEM_SIZES, LibraryCall
from tracegrad.codegen.plan_conv import THREAD_CACHE, TOO_LARGE, plan_conv
from tracegrad.codegen.plan_gemm import plan_gemm

PLANS = int(os.environ.get("RANDOM_PLANS", "300"))
THREADS = [1, 2, 3, 4, 6, 8, 12, 16]
Rng = random.Random


def upto(rng: Rng, most: int) -> int:
    """Draw a number whose logarithm is uniform."""
    return int(2 ** rng.uniform(0, math.log2(most)))


def product(rng: Rng) -> tuple[LibraryCall, int]:
    """Return the plan of a random product, and the most bytes it may take."""
    m, n, k, batch = upto(rng, 5000), upto(rng, 5000), upto(rng, 200_000), upto(rng, 64)
    m, n = (1 if rng.random() < 0.3 else m), (1 if rng.random() < 0.3 else n)
    dtype, threads = rng.choice(["float32", "float64"]), rng.choice(THREADS)
    a = rng.choice([(m * k, 1, m), (m * k, k, 1)])
    b = rng.choice([(k * n, 1, k), (k * n, n, 1)])
    call = plan_gemm(dtype, m, n, k, a, b, (m * n, n, 1), batch, threads)
    arrays = batch * (m * k + k * n + m * n) * ITEM_SIZES[dtype]
    return call, arrays * 3 // 2 + threads * THREAD_CACHE


def convolution(rng: Rng) -> tuple[LibraryCall, int]:
    """Return the plan of a random convolution, with wide padding and dilation, and the most bytes it may take."""
    axes = rng.choice([1, 2, 2, 2, 3])
    groups = rng.choice([1, 1, 1, 2, 4, 8])
    c, o, n = upto(rng, 512), upto(rng, 512), upto(rng, 64)
    if groups > 1 and rng.random() < 0.5:
        c, o, groups = 1, 1, upto(rng, 512)
    kernel = [rng.choice([1, 2, 3, 3, 5, 7, 11]) for _ in range(axes)]
    stride = [rng.choice([1, 1, 1, 2, 3, 4]) for _ in range(axes)]
    dilation = [rng.choice([1, 1, 1, 2, 4, 16]) for _ in range(axes)]
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    longest = {1: 20_000, 2: 256, 3: 48}[axes]
    size = [max(upto(rng, longest), span + 1 if rng.random() < 0.8 else 1) for span in spans]
    pads = [[0, 0, 1, k // 2, span] for k, span in zip(kernel, spans, strict=True)]
    padding = [(rng.choice(p), rng.choice(p)) for p in pads]
    x, w = [n, c * groups, *size], [o * groups, c, *kernel]
    dtype, threads = rng.choice(["float32", "float64"]), rng.choice(THREADS)
    out = geometry(x, w, stride, padding, dilation, groups).out
    if min(out) <= 0 or max(math.prod(x), math.prod(w)) > 1 << 24:
        return convolution(rng)
    kind = rng.choice(["forward", "data", "weight"])
    call = plan_conv(kind, dtype, x, w, stride, padding, dilation, groups, threads)
    arrays = (math.prod(x) + math.prod(w) + n * o * groups * math.prod(out)) * ITEM_SIZES[dtype]
    return call, arrays * 3 // 2 + threads * THREAD_CACHE


@pytest.mark.parametrize("draw", [product, convolution])
def test_random_plans(draw: Any) -> None:
    rng = Rng(os.environ.get("RANDOM_PLANS_SEED", "0"))
    for _ in range(PLANS):
        call, most = draw(rng)
        assert call.scratch_bytes <= most, call


def test_too_large_chunks_are_cut_and_the_schedule_says_so() -> None:
    call = plan_conv("data", "float32", (2, 2, 9, 21, 9), (326, 1, 3, 11, 3), (1, 2, 1), ((0, 0), (0, 1), (1, 8)),
                     (4, 2, 4), 2, 2)  # fmt: skip
    assert call.symbol == "tg_conv_f32" and TOO_LARGE in call.why
    call = plan_conv("data", "float64", (1, 14, 34, 120), (422, 7, 3, 3), (2, 1), ((1, 0), (0, 32)), (16, 16), 2, 2)
    assert call.symbol == "tg_direct_data_f64" and call.why.startswith("plain loops" + TOO_LARGE)
