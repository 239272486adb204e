"""Plans of convolutions over 1 to 3 axes, NC... by OI...: the output, the gradient of the data and of the weights.

    forward   y[n, o, e, i, j]   = sum_{c, t, r, s}  w[o, c, t, r, s] * x[n, c, d, p, q]
    data      dx[n, c, d, p, q]  = sum_{o, t, r, s}  w[o, c, t, r, s] * dy[n, o, e, i, j]
    weight    dw[o, c, t, r, s]  = sum_{n, e, i, j}  dy[n, o, e, i, j] * x[n, c, d, p, q]

    with d = e*sd + t*dd - front,  p = i*sh + r*dh - top,  q = j*sw + s*dw - left

The zeros around x take part in the products: a NaN or inf that meets one gives NaN, as if x had been padded before.

Groups are more images: [N, G*C, H, W] is [N*G, C, H, W], with other weights for each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from tracegrad.codegen.conv_geometry import Geometry, Padding, geometry
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall
from tracegrad.codegen.plan_conv_groups import are_groups_small, plan_groups
from tracegrad.codegen.plan_conv_patches import patches_cost, plan_patches
from tracegrad.codegen.plan_conv_planes import plan_planes, serves
from tracegrad.codegen.plan_conv_pointwise import plan_pointwise_gradient
from tracegrad.codegen.plan_conv_runs import data_sweep, forward_sweep, plan_runs, tile_cost
from tracegrad.codegen.plan_conv_taps import plan_taps, share_inside, taps_cost
from tracegrad.codegen.plan_conv_weight import gradient_cost, plan_gradient
from tracegrad.codegen.plan_gemm import plan_gemm
from tracegrad.codegen.plan_winograd import plan_winograd, tile_sizes
from tracegrad.codegen.plan_winograd_weight import plan_winograd_weight
from tracegrad.codegen.tile_shape import tile_shape

THREAD_CACHE = 1 << 20
SMALLER = (4, 16)  # into how many parts the tile's chunks are cut where they take too much scratch
WORTH = 1.1  # how much faster a path is to be for a family of kernels more to compile and to load
WORTH_FLOPS = 1 << 25  # and the least work: the layers of LeNet with 64 images have less
LEAST_CHANNELS = 64  # and maps, of products tap by tap: with 1 to 3 they take 4 to 10 times as long as the tile
MOST_INSIDE = 0.85  # of their products; 3 x 1 x 1 taps on 8 x 28 x 28 (0.92) took 1.5 times as long as on the tile
SWEEPS = {"forward": forward_sweep, "data": data_sweep}
TOO_LARGE = ": larger chunks would copy more than 1.5 times the arrays"


def plan_conv(
    kind: str,
    dtype: str,
    x: Sequence[int],
    w: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int,
    threads: int,
    *,
    isa: str | None = None,
    path: str = "",
) -> LibraryCall:
    """Plan a convolution of kind "forward", "data" or "weight" over 1 to 3 axes.

    x, w: the shapes [n, c, *size] and [o, c / groups, *kernel].  padding: (low, high) of each axis, not negative.
    isa: the tile's instruction set, this host's by default.  path: the one to take, by default the fastest.
    Operands: forward (x, w, y); data (dy, w, dx); weight (x, dy, dw).
    """
    g = geometry(x, w, stride, padding, dilation, groups)
    *choices, last = [(path, 1, "as asked for")] if path else choose_paths(kind, dtype, g, threads, isa)
    limit = most_scratch(g, ITEM_SIZES[dtype], threads)
    for choice, cut, why in choices:
        call = _plan_path(choice, cut, kind, dtype, g, threads, isa)
        if call.scratch_bytes <= limit:
            return _with_reason(call, why)
    return _with_reason(_plan_path(*last[:2], kind, dtype, g, threads, isa), last[2])


def _with_reason(call: LibraryCall, why: str) -> LibraryCall:
    """Put why a path was taken before what its plan says."""
    return replace(call, why=f"{why}; {call.why}" if call.why else why)


def choose_paths(kind: str, dtype: str, g: Geometry, threads: int, isa: str | None) -> list[tuple[str, int, str]]:
    """Return paths, into how many parts their chunks are cut, and why; the first that takes little scratch is taken."""
    path, why = choose_path(kind, g, threads)
    found = [(path, 1, why)]
    if path == "tile":
        sizes = tile_sizes(kind, g, tile_shape(isa).lanes(ITEM_SIZES[dtype]), threads)
        if not sizes:
            found = _instead_of_tile(kind, dtype, g, threads, isa) + found
        found = [
            (f"winograd {m}x{m}", cut, f"winograd {m}x{m}: {(m + 2) ** 2} products per tile instead of {9 * m * m}")
            for m, cut in itertools.product(sizes, (1, 4))
        ] + found  # fmt: skip
    found += [("tile", cut, f"{why}{TOO_LARGE}") for cut in SMALLER]
    return [*found, ("direct", 1, f"plain loops{TOO_LARGE}")]


def _instead_of_tile(
    kind: str, dtype: str, g: Geometry, threads: int, isa: str | None
) -> list[tuple[str, int, str]]:
    """Return the path that takes less time than the tile over a padded copy, by their costs, if there is one."""
    shape, size = tile_shape(isa), ITEM_SIZES[dtype]
    if g.groups > 1 or g.flops < WORTH_FLOPS:
        return []
    inside = share_inside(g)
    if kind != "weight" and (inside > MOST_INSIDE or min(g.channels, g.outputs) < LEAST_CHANNELS):
        return []
    if kind == "weight":
        cost, on_tile = patches_cost(g, shape, size), gradient_cost(g, threads, shape, size)
        found = "patches", 1, f"product with patches: {g.outputs} maps by {g.channels * g.taps} columns"
    else:
        cost, on_tile = taps_cost(kind, g, shape, size), tile_cost(g, SWEEPS[kind], threads, shape, size)
        found = "taps", 1, f"tap by tap: {inside:.0%} of the products are not with zeros around the input"
    return [found] if WORTH * cost < on_tile else []


def _plan_path(path: str, cut: int, kind: str, dtype: str, g: Geometry, threads: int, isa: str | None) -> LibraryCall:
    """Plan a convolution on one path; the tile works on chunks of 1 / cut of their usual size."""
    match path:
        case "direct":
            return _plan_direct(kind, dtype, g, threads)
        case "whole":
            return _plan_whole(kind, dtype, g, threads, isa)
        case "product":
            return _plan_product(kind, dtype, g, threads, isa)
        case "patches":
            return plan_patches(dtype, g, threads, tile_shape(isa))
        case "taps":
            return plan_taps(kind, dtype, g, threads, tile_shape(isa))
        case "planes":
            return plan_planes(kind, dtype, g, threads, tile_shape(isa), direct_words(kind, g, 1))
        case "dots":
            return plan_groups(dtype, g, threads, tile_shape(isa), direct_words(kind, g, 1), cut)
        case "winograd 2x2" | "winograd 4x4" if kind == "weight":
            m, exact = int(path[-1]), direct_words(kind, g, 1)
            return plan_winograd_weight(dtype, g, m, threads, tile_shape(isa), exact, cut)
        case "winograd 2x2" | "winograd 4x4":
            return plan_winograd(kind, dtype, g, int(path[-1]), threads, tile_shape(isa), cut)
        case _ if kind == "weight":
            return plan_gradient(dtype, g, threads, tile_shape(isa), direct_words(kind, g, 1), cut)
        case _:
            exact = direct_words(kind, g, threads) if kind == "data" else ()
            return plan_runs(dtype, g, SWEEPS[kind], threads, tile_shape(isa), exact, cut)


def most_scratch(g: Geometry, item: int, threads: int) -> int:
    """Return the most bytes of scratch: 1.5 times the arrays, and what each thread keeps in its cache."""
    x = g.images * g.channels * math.prod(g.size)
    y = g.images * g.outputs * math.prod(g.out)
    return (x + y + g.groups * g.outputs * g.channels * g.taps) * item * 3 // 2 + threads * THREAD_CACHE


def choose_path(kind: str, g: Geometry, threads: int) -> tuple[str, str]:
    """Return the path of a convolution, and why it is taken: the first row that applies.

    | path     | when                                        | why                                                     |
    | direct   | a size is 0                                 | the result is zero, or nothing                          |
    | planes   | groups of one channel, two axes, in cache   | no sum over channels: a tile would have one row of      |
    |          |                                             | many; small planes are copied several at a time, which  |
    |          |                                             | takes half the time for 7 x 7                           |
    | dots     | weight, groups of few channels              | a tile would be mostly empty, and both operands be      |
    |          | (`are_groups_small`)                        | transposed for it: 1.4 to 8 times as fast               |
    | whole    | a window is all of x, no padding, 1 group   | y = x @ w^T, images are rows: 9 to 18 times as fast     |
    |          |                                             | as the tile (512 x 4 x 4 to 100 maps, 8 and 64 images)  |
    | product  | one tap, stride 1, no padding, 1 group      | y[n] = w @ x[n]: the operands are read where they lie;  |
    |          |                                             | weight: 1.4 to 1.7 times as fast as the tile, which     |
    |          |                                             | transposes both operands and moves dw for every image   |
    | winograd | 3 x 3 taps, stride 1, where `tile_sizes`    | 2.25 or 4 times fewer products, paid for with           |
    |          | finds its costs to be lower                 | transforms of the channels and of the weights           |
    | taps     | forward and data, no groups, where costs    | no products with the zeros around x, all weights are    |
    |          | say so (`_instead_of_tile`): wide dilation, | read once: 2048 channels of 28 x 28 with dilation 12    |
    |          | small maps, many weights                    | 2.4 times as fast as the tile                           |
    | patches  | weight, no groups, where costs say so: few  | every tap's elements are transposed, but sums are added |
    |          | positions, more maps than a few, dilation   | to dw in place: 512 maps and channels of 14 x 14 with   |
    |          |                                             | stride 2 4 times as fast as the tile                    |
    | tile     | else                                        | product over a padded copy that stays in cache; where a |
    |          |                                             | chunk's positions are those of the result it is written |
    |          |                                             | in place: a third less time for 1 x 1 with stride 2 and |
    |          |                                             | for one axis                                            |
    """
    if g.is_empty or (kind != "forward" and min(g.size) <= 0):
        return "direct", "plain loops: a size is 0"
    if serves(kind, g):
        return "planes", f"plane by plane: groups of one channel by {g.taps} taps"
    if kind == "weight" and are_groups_small(g, threads):
        return "dots", f"dot products: {g.channels} channels and {g.outputs} maps in a group, by {g.taps} taps"
    if g.is_whole and g.groups == 1:
        return "whole", "matrix product: one window, all of the input"
    if g.is_pointwise and g.groups == 1:
        return "product", "matrix product: one tap, stride 1, no padding"
    maps, planes = (g.channels, g.outputs) if kind == "data" else (g.outputs, g.channels)
    return "tile", f"tile over a padded copy: {maps} maps from {planes} planes by {g.taps} taps"


def _plan_product(kind: str, dtype: str, g: Geometry, threads: int, isa: str | None) -> LibraryCall:
    """Plan a convolution by one tap; planes are rows: y[n] = w @ x[n], dx[n] = w^T @ dy[n], dw = sum dy[n] @ x[n]^T."""
    if kind == "weight":
        return plan_pointwise_gradient(dtype, g, threads, tile_shape(isa))
    plane = math.prod(g.size)
    rows, depth = (g.outputs, g.channels) if kind == "forward" else (g.channels, g.outputs)
    weights = (0, g.channels, 1) if kind == "forward" else (0, 1, g.channels)
    data = (depth * plane, plane, 1)
    result = (rows * plane, plane, 1)
    return plan_gemm(
        dtype, rows, plane, depth, weights, data, result, g.images, threads, operands=(1, 0, 2), isa=isa
    )  # fmt: skip


def _plan_whole(kind: str, dtype: str, g: Geometry, threads: int, isa: str | None) -> LibraryCall:
    """Plan a convolution whose one window is all of x, k elements: y[n] = w @ x[n], dx = dy @ w, dw = dy^T @ x."""
    n, o, k = g.images, g.outputs, g.channels * g.taps
    rows, columns, terms, first, second, operands = {
        "forward": (n, o, k, (0, k, 1), (0, 1, k), (0, 1, 2)),
        "data": (n, k, o, (0, o, 1), (0, k, 1), (0, 1, 2)),
        "weight": (o, k, n, (0, 1, o), (0, k, 1), (1, 0, 2)),
    }[kind]
    result = (0, columns, 1)
    return plan_gemm(dtype, rows, columns, terms, first, second, result, 1, threads, operands=operands, isa=isa)


def direct_words(kind: str, g: Geometry, threads: int) -> tuple[int, ...]:
    """Return the plan of plain loops; a task is a range of planes of the result."""
    out = [max(0, n) for n in g.out]
    planes, items = {
        "forward": (g.images * g.outputs, math.prod(out)),
        "data": (g.images * g.channels, math.prod(g.size)),
        "weight": (g.groups * g.outputs * g.channels, g.taps),
    }[kind]
    tasks = max(0, min(planes, 16 * threads if g.flops > 1 << 17 else 1))
    return (
        (g.images, g.groups, g.channels, *g.size, g.outputs, *out, *g.kernel, *g.stride, *g.low, *g.dilation)
        + (tasks, int(g.is_window_outside), items)
    )  # fmt: skip


def _plan_direct(kind: str, dtype: str, g: Geometry, threads: int) -> LibraryCall:
    name = SHORT_NAMES[dtype]
    plan = direct_words(kind, g, threads)
    symbol = f"direct_{kind}_{name}"
    flops = max(0, g.flops)
    return LibraryCall(f"tg_{symbol}", symbol, plan, HEADER_BYTES, flops, takes_epilogue=True, grain=plan[-1])
