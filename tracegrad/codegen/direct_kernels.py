"""Convolutions in plain loops, for what the tile does not serve: empty sizes, too little scratch, NaN and inf.

A task computes planes of the result; the inner loop runs along a row (`plan_conv` has the formulas).  Column j of the
output meets column j*stride + shift of the input, so a tap covers the outputs low..high-1 with 0 <= that < width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import conv_layout as words
from tracegrad.codegen.addresses import (
    KERNEL_TYPES,
    load_word,
    loader,
    maximum,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import ITEM_SIZES, SHORT_NAMES
from tracegrad.codegen.row_dot import row_dot_intrinsic, row_dot_part
from tracegrad.codegen.row_loops import row_addition, row_clearing, row_probe, row_product
from tracegrad.codegen.tile_shape import TileShape


@kernel
def first_inside(shift: int, stride: int) -> int:
    """Return the least j >= 0 with j*stride + shift >= 0."""
    return maximum(0, (stride - 1 - shift) // stride)


@kernel
def end_inside(shift: int, stride: int, size: int, count: int) -> int:
    """Return the end of the j < count with j*stride + shift < size."""
    return minimum(count, (size - 1 - shift) // stride + 1)


@kernel
def input_row(plan: int, row: int, tap_row: int) -> int:
    """Return the row of x (counted through all slices) that a row of y meets under a row of taps, or -1 outside."""
    kernel_h = load_word(plan, words.D_KERNEL_H)
    out_h = load_word(plan, words.D_OUT_H)
    depth = load_word(plan, words.D_DEPTH)
    height = load_word(plan, words.D_HEIGHT)
    d = row // out_h * load_word(plan, words.D_STRIDE_D) - load_word(plan, words.D_FRONT)
    d += tap_row // kernel_h * load_word(plan, words.D_DILATION_D)
    p = row % out_h * load_word(plan, words.D_STRIDE_H) - load_word(plan, words.D_TOP)
    p += tap_row % kernel_h * load_word(plan, words.D_DILATION_H)
    if d < 0 or d >= depth or p < 0 or p >= height:
        return -1
    return d * height + p


def forward_plane(dtype: str) -> Any:
    """Return the kernel forward(plan, x, weights, y, plane)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    clear = row_clearing(dtype)
    add_scaled = row_addition(dtype)

    @kernel
    def add_row(plan: int, source: int, weights: int, y: int) -> None:
        """Add a row of x under one row of taps to a row of y."""
        out_w = load_word(plan, words.D_OUT_W)
        width = load_word(plan, words.D_WIDTH)
        stride = load_word(plan, words.D_STRIDE_W)
        for s in range(load_word(plan, words.D_KERNEL_W)):
            shift = s * load_word(plan, words.D_DILATION_W) - load_word(plan, words.D_LEFT)
            low = first_inside(shift, stride)
            high = end_inside(shift, stride, width, out_w)
            start = source + (low * stride + shift) * size
            add_scaled(y + low * size, 1, start, stride, load(weights, s), high - low)

    @kernel
    def forward(plan: int, x: int, weights: int, y: int, plane: int) -> None:
        """Compute y[image, o]."""
        outputs = load_word(plan, words.D_OUTPUTS)
        out_h = load_word(plan, words.D_OUT_H)
        out_w = load_word(plan, words.D_OUT_W)
        kernel_w = load_word(plan, words.D_KERNEL_W)
        width = load_word(plan, words.D_WIDTH)
        tap_rows = load_word(plan, words.D_KERNEL_D) * load_word(plan, words.D_KERNEL_H)
        channels = load_word(plan, words.D_CHANNELS)
        image = plane // outputs
        map_ = image % load_word(plan, words.D_GROUPS) * outputs + plane % outputs
        image_rows = load_word(plan, words.D_DEPTH) * load_word(plan, words.D_HEIGHT)
        for row in range(load_word(plan, words.D_OUT_D) * out_h):
            target = y + (plane * load_word(plan, words.D_OUT_D) * out_h + row) * out_w * size
            clear(target, out_w)
            for c in range(channels):
                for tap_row in range(tap_rows):
                    found = input_row(plan, row, tap_row)
                    if found >= 0:
                        source = x + ((image * channels + c) * image_rows + found) * width * size
                        taps = weights + ((map_ * channels + c) * tap_rows + tap_row) * kernel_w * size
                        add_row(plan, source, taps, target)

    return forward


def data_plane(dtype: str) -> Any:
    """Return the kernel data(plan, dy, weights, dx, plane)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    clear = row_clearing(dtype)
    add_scaled = row_addition(dtype)

    @kernel
    def add_row(plan: int, dy: int, weights: int, dx: int) -> None:
        """Add a row of dy under one row of taps to a row of dx."""
        width = load_word(plan, words.D_WIDTH)
        out_w = load_word(plan, words.D_OUT_W)
        stride = load_word(plan, words.D_STRIDE_W)
        for s in range(load_word(plan, words.D_KERNEL_W)):
            shift = s * load_word(plan, words.D_DILATION_W) - load_word(plan, words.D_LEFT)
            low = first_inside(shift, stride)
            high = end_inside(shift, stride, width, out_w)
            target = dx + (low * stride + shift) * size
            add_scaled(target, stride, dy + low * size, 1, load(weights, s), high - low)

    @kernel
    def is_lost(source: int, count: int) -> int:
        """Say whether all elements are NaN, which they stay."""
        for i in range(count):
            value = load(source, i)
            if value == value:
                return 0
        return 1

    @kernel
    def data(plan: int, dy: int, weights: int, dx: int, plane: int) -> None:
        """Compute dx[image, c]."""
        channels = load_word(plan, words.D_CHANNELS)
        outputs = load_word(plan, words.D_OUTPUTS)
        width = load_word(plan, words.D_WIDTH)
        out_w = load_word(plan, words.D_OUT_W)
        out_rows = load_word(plan, words.D_OUT_D) * load_word(plan, words.D_OUT_H)
        kernel_w = load_word(plan, words.D_KERNEL_W)
        tap_rows = load_word(plan, words.D_KERNEL_D) * load_word(plan, words.D_KERNEL_H)
        image = plane // channels
        c = plane % channels
        plane_items = load_word(plan, words.D_DEPTH) * load_word(plan, words.D_HEIGHT) * width
        result = dx + plane * plane_items * size
        clear(result, plane_items)
        for o in range(outputs):
            map_ = image % load_word(plan, words.D_GROUPS) * outputs + o
            for row in range(out_rows):
                source = dy + ((image * outputs + o) * out_rows + row) * out_w * size
                for tap_row in range(tap_rows):
                    found = input_row(plan, row, tap_row)
                    if found >= 0:
                        taps = weights + ((map_ * channels + c) * tap_rows + tap_row) * kernel_w * size
                        add_row(plan, source, taps, result + found * width * size)
            if is_lost(result, plane_items):
                break

    return data


def weight_plane(dtype: str) -> Any:
    """Return the kernel weight(plan, x, dy, dw, plane)."""
    size = ITEM_SIZES[dtype]
    store = storer(dtype)
    tap_gradient = plane_tap_gradient(dtype)
    exact_tap = exact_tap_gradient(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def weight(plan: int, x: int, dy: int, result: int, plane: int) -> None:
        """Compute dw[o, c] (all groups' maps o)."""
        groups = load_word(plan, words.D_GROUPS)
        channels = load_word(plan, words.D_CHANNELS)
        outputs = load_word(plan, words.D_OUTPUTS)
        x_items = load_word(plan, words.D_DEPTH) * load_word(plan, words.D_HEIGHT) * load_word(plan, words.D_WIDTH)
        y_items = load_word(plan, words.D_OUT_D) * load_word(plan, words.D_OUT_H) * load_word(plan, words.D_OUT_W)
        taps = load_word(plan, words.D_KERNEL_D) * load_word(plan, words.D_KERNEL_H) * load_word(plan, words.D_KERNEL_W)
        c = plane % channels
        map_ = plane // channels
        group = map_ // outputs
        probe = zero  # becomes NaN at the first sum that is NaN or inf
        for tap in range(taps):
            total = zero
            place = result + (plane * taps + tap) * size
            for image in range(group, load_word(plan, words.D_IMAGES), groups):
                source = x + (image * channels + c) * x_items * size
                gradient = dy + (image * outputs + map_ % outputs) * y_items * size
                total += tap_gradient(plan, source, gradient, tap, place)
            probe += total * zero
            store(place, 0, total)
        if probe != zero or load_word(plan, words.D_OUTSIDE):
            for tap in range(taps):
                store(result, plane * taps + tap, exact_tap(plan, x, dy, map_, c, tap))

    return weight


def plane_tap_gradient(dtype: str) -> Any:
    """Return the kernel tap_gradient(plan, x, dy, tap, result): one image's share of dw[tap] of a pair of planes."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    dot = row_product(dtype)
    row_dot = row_dot_intrinsic(8 * size)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def slice_gradient(plan: int, x: int, dy: int, r: int, s: int, result: int):
        """Return sum_{i, j} dy[i, j] * x[i*sh + .., j*sw + ..] of one slice; result: where it may leave the sum."""
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

    @kernel
    def tap_gradient(plan: int, x: int, dy: int, tap: int, result: int):
        kernel_h = load_word(plan, words.D_KERNEL_H)
        kernel_w = load_word(plan, words.D_KERNEL_W)
        x_items = load_word(plan, words.D_HEIGHT) * load_word(plan, words.D_WIDTH)
        y_items = load_word(plan, words.D_OUT_H) * load_word(plan, words.D_OUT_W)
        stride = load_word(plan, words.D_STRIDE_D)
        t = tap // (kernel_h * kernel_w)
        shift = t * load_word(plan, words.D_DILATION_D) - load_word(plan, words.D_FRONT)
        low = first_inside(shift, stride)
        high = end_inside(shift, stride, load_word(plan, words.D_DEPTH), load_word(plan, words.D_OUT_D))
        total = zero
        for e in range(low, high):
            source = x + (e * stride + shift) * x_items * size
            row, column = tap // kernel_w % kernel_h, tap % kernel_w
            total += slice_gradient(plan, source, dy + e * y_items * size, row, column, result)
        return total

    return tap_gradient


def exact_tap_gradient(dtype: str) -> Any:
    """Return the kernel exact_tap(plan, x, dy, map, c, tap): one element of dw, with the zeros around x multiplied.

    It is used where a sum is not finite; a sum that has become NaN stays so, which ends the loops.
    """
    size = ITEM_SIZES[dtype]
    dot = row_product(dtype)
    probe = row_probe(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def row_gradient(plan: int, x: int, dy: int, shift: int, is_inside: int):
        """Return sum_j dy[j] * x[j*sw + shift], where x is zero outside."""
        out_w = load_word(plan, words.D_OUT_W)
        stride = load_word(plan, words.D_STRIDE_W)
        low = minimum(out_w, first_inside(shift, stride))
        high = maximum(low, end_inside(shift, stride, load_word(plan, words.D_WIDTH), out_w))
        if is_inside == 0:
            high = low
        total = dot(dy + low * size, x + (low * stride + shift) * size, stride, high - low)
        return total + probe(dy, low) + probe(dy + high * size, out_w - high)

    @kernel
    def exact_tap(plan: int, x: int, dy: int, map_: int, c: int, tap: int):
        outputs = load_word(plan, words.D_OUTPUTS)
        channels = load_word(plan, words.D_CHANNELS)
        kernel_w = load_word(plan, words.D_KERNEL_W)
        width = load_word(plan, words.D_WIDTH)
        out_w = load_word(plan, words.D_OUT_W)
        x_rows = load_word(plan, words.D_DEPTH) * load_word(plan, words.D_HEIGHT)
        y_rows = load_word(plan, words.D_OUT_D) * load_word(plan, words.D_OUT_H)
        shift = tap % kernel_w * load_word(plan, words.D_DILATION_W) - load_word(plan, words.D_LEFT)
        groups = load_word(plan, words.D_GROUPS)
        total = zero
        for image in range(map_ // outputs, load_word(plan, words.D_IMAGES), groups):
            for row in range(y_rows):
                found = input_row(plan, row, tap // kernel_w)
                source = x + ((image * channels + c) * x_rows + maximum(found, 0)) * width * size
                gradient = dy + ((image * outputs + map_ % outputs) * y_rows + row) * out_w * size
                total += row_gradient(plan, source, gradient, shift, found >= 0)
                if total != total:
                    return total
        return total

    return exact_tap


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


def direct_entries(dtype: str, kind: str, symbol: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the entry of a kind, by default named after it, and its task."""
    plane_kernel, count_planes = PLANES[kind]
    return _entry(symbol or f"tg_direct_{kind}_{SHORT_NAMES[dtype]}", plane_kernel(dtype), count_planes)


def _entry(symbol: str, compute: Any, count_planes: Any) -> dict[str, tuple[Any, Any]]:
    """Return the entry that computes all planes, and its task."""
    address = task_address(f"{symbol}_task")

    @kernel
    def planes_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        planes = count_planes(plan)
        tasks = load_word(plan, words.D_TASKS)
        items = load_word(plan, words.D_ITEMS)
        first, second, result = load_word(operands, 0), load_word(operands, 1), load_word(operands, 2)
        for plane in range(planes * index // tasks, planes * (index + 1) // tasks):
            compute(plan, first, second, result, plane)
            finish(operands, plane * items, 1, items, items)

    @kernel
    def entry(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, address(), scratch, load_word(plan, words.D_TASKS))

    return {symbol: (entry, ENTRY_SIGNATURE), f"{symbol}_task": (planes_task, TASK_SIGNATURE)}


def direct_parts(dtype: str, shape: TileShape) -> list[ir.Module]:
    """Return the finished module that the weight gradient calls."""
    return [row_dot_part(8 * ITEM_SIZES[dtype], shape)]
