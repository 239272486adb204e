"""Convolutions in plain loops, for what the tile does not serve: few channels per group, and empty sizes.

A task computes planes of the result; the inner loop runs along a row (`plan_conv` has the formulas).  Column j of the
output meets column j*stride + shift of the input, so a tap covers the outputs low..high-1 with 0 <= that < width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_conv as words
from tracegrad.codegen.addresses import (
    NUMBA_TYPES,
    load_word,
    loader,
    maximum,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE
from tracegrad.codegen.native import kernel
from tracegrad.codegen.plan import ITEM_SIZES, SHORT_NAMES
from tracegrad.codegen.row_dot import row_dot_intrinsic, row_dot_part
from tracegrad.codegen.tile_shape import TileShape


@kernel
def first_inside(shift: int, stride: int) -> int:
    """Return the least j >= 0 with j*stride + shift >= 0."""
    return maximum(0, (stride - 1 - shift) // stride)


@kernel
def end_inside(shift: int, stride: int, size: int, count: int) -> int:
    """Return the end of the j < count with j*stride + shift < size."""
    return minimum(count, (size - 1 - shift) // stride + 1)


def row_clearing(dtype: str) -> Any:
    """Return the kernel clear(target, count)."""
    store = storer(dtype)
    zero = NUMBA_TYPES[dtype](0)

    @kernel
    def clear(target: int, count: int) -> None:
        for i in range(count):
            store(target, i, zero)

    return clear


def row_addition(dtype: str) -> Any:
    """Return the kernel add_scaled(target, target_stride, source, source_stride, factor, count)."""
    load = loader(dtype)
    store = storer(dtype)

    @kernel
    def add_scaled(target: int, target_stride: int, source: int, source_stride: int, factor, count: int) -> None:
        """Compute target[i] += factor * source[i]."""
        if target_stride == 1 and source_stride == 1:
            for i in range(count):
                store(target, i, load(target, i) + factor * load(source, i))
        else:
            for i in range(count):
                place = i * target_stride
                store(target, place, load(target, place) + factor * load(source, i * source_stride))

    return add_scaled


def row_product(dtype: str) -> Any:
    """Return the kernel dot(left, right, right_stride, count)."""
    load = loader(dtype)
    zero = NUMBA_TYPES[dtype](0)

    @kernel
    def dot(left: int, right: int, right_stride: int, count: int):
        """Return sum_i left[i] * right[i]."""
        total = zero
        for i in range(count):
            total += load(left, i) * load(right, i * right_stride)
        return total

    return dot


def forward_plane(dtype: str) -> Any:
    """Return the kernel forward(plan, x, weights, y, plane)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    clear = row_clearing(dtype)
    add_scaled = row_addition(dtype)

    @kernel
    def forward_row(plan: int, x: int, weights: int, y: int, i: int) -> None:
        """Compute row i of y[o] from all channels x[c] and weights[c, r, s]."""
        height = load_word(plan, words.D_HEIGHT)
        width = load_word(plan, words.D_WIDTH)
        out_w = load_word(plan, words.D_OUT_W)
        kernel_h = load_word(plan, words.D_KERNEL_H)
        kernel_w = load_word(plan, words.D_KERNEL_W)
        stride = load_word(plan, words.D_STRIDE_W)
        clear(y, out_w)
        for c in range(load_word(plan, words.D_CHANNELS)):
            for r in range(kernel_h):
                row = i * load_word(plan, words.D_STRIDE_H) + r * load_word(plan, words.D_DILATION_H)
                row -= load_word(plan, words.D_TOP)
                if row < 0 or row >= height:
                    continue
                source = x + (c * height + row) * width * size
                for s in range(kernel_w):
                    shift = s * load_word(plan, words.D_DILATION_W) - load_word(plan, words.D_LEFT)
                    low = first_inside(shift, stride)
                    high = end_inside(shift, stride, width, out_w)
                    factor = load(weights, (c * kernel_h + r) * kernel_w + s)
                    start = source + (low * stride + shift) * size
                    add_scaled(y + low * size, 1, start, stride, factor, high - low)

    @kernel
    def forward(plan: int, x: int, weights: int, y: int, plane: int) -> None:
        """Compute y[image, o]."""
        outputs = load_word(plan, words.D_OUTPUTS)
        out_h = load_word(plan, words.D_OUT_H)
        out_w = load_word(plan, words.D_OUT_W)
        image = plane // outputs
        map_ = image % load_word(plan, words.D_GROUPS) * outputs + plane % outputs
        channels = load_word(plan, words.D_CHANNELS)
        image_items = channels * load_word(plan, words.D_HEIGHT) * load_word(plan, words.D_WIDTH)
        map_items = channels * load_word(plan, words.D_KERNEL_H) * load_word(plan, words.D_KERNEL_W)
        for i in range(out_h):
            target = y + (plane * out_h + i) * out_w * size
            forward_row(plan, x + image * image_items * size, weights + map_ * map_items * size, target, i)

    return forward


def data_plane(dtype: str) -> Any:
    """Return the kernel data(plan, dy, weights, dx, plane)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    clear = row_clearing(dtype)
    add_scaled = row_addition(dtype)

    @kernel
    def data_row(plan: int, dy: int, weights: int, dx: int, i: int, r: int) -> None:
        """Add tap row r of weights[s] times row dy to a row of dx."""
        width = load_word(plan, words.D_WIDTH)
        out_w = load_word(plan, words.D_OUT_W)
        kernel_w = load_word(plan, words.D_KERNEL_W)
        stride = load_word(plan, words.D_STRIDE_W)
        for s in range(kernel_w):
            shift = s * load_word(plan, words.D_DILATION_W) - load_word(plan, words.D_LEFT)
            low = first_inside(shift, stride)
            high = end_inside(shift, stride, width, out_w)
            factor = load(weights, r * kernel_w + s)
            add_scaled(dx + (low * stride + shift) * size, stride, dy + low * size, 1, factor, high - low)

    @kernel
    def data(plan: int, dy: int, weights: int, dx: int, plane: int) -> None:
        """Compute dx[image, c]."""
        channels = load_word(plan, words.D_CHANNELS)
        outputs = load_word(plan, words.D_OUTPUTS)
        height = load_word(plan, words.D_HEIGHT)
        width = load_word(plan, words.D_WIDTH)
        out_h = load_word(plan, words.D_OUT_H)
        out_w = load_word(plan, words.D_OUT_W)
        kernel_h = load_word(plan, words.D_KERNEL_H)
        taps = kernel_h * load_word(plan, words.D_KERNEL_W)
        image = plane // channels
        c = plane % channels
        result = dx + plane * height * width * size
        clear(result, height * width)
        for o in range(outputs):
            map_ = image % load_word(plan, words.D_GROUPS) * outputs + o
            tap_weights = weights + (map_ * channels + c) * taps * size
            for i in range(out_h):
                source = dy + ((image * outputs + o) * out_h + i) * out_w * size
                for r in range(kernel_h):
                    row = i * load_word(plan, words.D_STRIDE_H) + r * load_word(plan, words.D_DILATION_H)
                    row -= load_word(plan, words.D_TOP)
                    if row >= 0 and row < height:
                        data_row(plan, source, tap_weights, result + row * width * size, i, r)

    return data


def weight_plane(dtype: str) -> Any:
    """Return the kernel weight(plan, x, dy, dw, plane)."""
    size = ITEM_SIZES[dtype]
    store = storer(dtype)
    weight_tap = tap_gradient(dtype)
    zero = NUMBA_TYPES[dtype](0)

    @kernel
    def weight(plan: int, x: int, dy: int, result: int, plane: int) -> None:
        """Compute dw[o, c] (all groups' maps o)."""
        groups = load_word(plan, words.D_GROUPS)
        channels = load_word(plan, words.D_CHANNELS)
        outputs = load_word(plan, words.D_OUTPUTS)
        x_items = load_word(plan, words.D_HEIGHT) * load_word(plan, words.D_WIDTH)
        y_items = load_word(plan, words.D_OUT_H) * load_word(plan, words.D_OUT_W)
        kernel_w = load_word(plan, words.D_KERNEL_W)
        taps = load_word(plan, words.D_KERNEL_H) * kernel_w
        c = plane % channels
        o = plane // channels % outputs
        group = plane // (channels * outputs)
        for tap in range(taps):
            total = zero
            place = result + (plane * taps + tap) * size
            for image in range(group, load_word(plan, words.D_IMAGES), groups):
                source = x + (image * channels + c) * x_items * size
                gradient = dy + (image * outputs + o) * y_items * size
                total += weight_tap(plan, source, gradient, tap // kernel_w, tap % kernel_w, place)
            store(place, 0, total)

    return weight


def tap_gradient(dtype: str) -> Any:
    """Return the kernel weight_tap(plan, x, dy, r, s, result): one image's share of dw[r, s] of a pair of planes."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    dot = row_product(dtype)
    row_dot = row_dot_intrinsic(8 * size)
    zero = NUMBA_TYPES[dtype](0)

    @kernel
    def weight_tap(plan: int, x: int, dy: int, r: int, s: int, result: int):
        """Return sum_{i, j} dy[i, j] * x[i*sh + .., j*sw + ..] of one image; result: where it may leave the sum."""
        height = load_word(plan, words.D_HEIGHT)
        width = load_word(plan, words.D_WIDTH)
        out_w = load_word(plan, words.D_OUT_W)
        stride_h = load_word(plan, words.D_STRIDE_H)
        stride_w = load_word(plan, words.D_STRIDE_W)
        row_shift = r * load_word(plan, words.D_DILATION_H) - load_word(plan, words.D_TOP)
        shift = s * load_word(plan, words.D_DILATION_W) - load_word(plan, words.D_LEFT)
        low = first_inside(shift, stride_w)
        high = end_inside(shift, stride_w, width, out_w)
        first = first_inside(row_shift, stride_h)
        last = end_inside(row_shift, stride_h, height, load_word(plan, words.D_OUT_H))
        if stride_w == 1:
            source = x + ((first * stride_h + row_shift) * width + low + shift) * size
            start = dy + (first * out_w + low) * size
            row_dot(start, out_w * size, source, stride_h * width * size, last - first, high - low, result)
            return load(result, 0)
        total = zero
        for i in range(first, last):
            source = x + ((i * stride_h + row_shift) * width + low * stride_w + shift) * size
            total += dot(dy + (i * out_w + low) * size, source, stride_w, high - low)
        return total

    return weight_tap


@kernel
def forward_planes(plan: int) -> int:
    """Count the planes of y."""
    return load_word(plan, words.D_IMAGES) * load_word(plan, words.D_OUTPUTS)


@kernel
def data_planes(plan: int) -> int:
    """Count the planes of dx."""
    return load_word(plan, words.D_IMAGES) * load_word(plan, words.D_CHANNELS)


@kernel
def weight_planes(plan: int) -> int:
    """Count the planes of dw."""
    return load_word(plan, words.D_GROUPS) * load_word(plan, words.D_OUTPUTS) * load_word(plan, words.D_CHANNELS)


PLANES = {
    "forward": (forward_plane, forward_planes),
    "data": (data_plane, data_planes),
    "weight": (weight_plane, weight_planes),
}


def direct_entries(dtype: str, kind: str) -> dict[str, tuple[Any, Any]]:
    """Return the entry of a kind, and its task."""
    plane_kernel, count_planes = PLANES[kind]
    return _entry(f"tg_direct_{kind}_{SHORT_NAMES[dtype]}", plane_kernel(dtype), count_planes)


def _entry(symbol: str, compute: Any, count_planes: Any) -> dict[str, tuple[Any, Any]]:
    """Return the entry that computes all planes, and its task."""
    address = task_address(f"{symbol}_task")

    @kernel
    def planes_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        planes = count_planes(plan)
        tasks = load_word(plan, words.D_TASKS)
        first, second, result = load_word(operands, 0), load_word(operands, 1), load_word(operands, 2)
        for plane in range(planes * index // tasks, planes * (index + 1) // tasks):
            compute(plan, first, second, result, plane)

    @kernel
    def entry(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, address(), scratch, load_word(plan, words.D_TASKS))

    return {symbol: (entry, ENTRY_SIGNATURE), f"{symbol}_task": (planes_task, TASK_SIGNATURE)}


def direct_parts(dtype: str, shape: TileShape) -> list[ir.Module]:
    """Return the finished module that the weight gradient calls."""
    return [row_dot_part(8 * ITEM_SIZES[dtype], shape)]
