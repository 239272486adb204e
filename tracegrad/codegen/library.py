"""The library kernels by family: each is compiled apart, on first need, into one object that a cache may keep.

Every kernel is `void symbol(i64 plan, i64 operands, i64 scratch, i64 pool)` (`plan.LibraryCall`).  Objects of all
families but the pool need the symbol `tg_par_for`, which the pool's defines.

A user's first program pays for compiling the families that it needs, hence their number (`runtime.building`).

The number of threads that a plan was made for is the most that the pool may have: scratch is indexed by thread.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir

from tracegrad.codegen import (
    conv_group_kernels,
    conv_kernels,
    conv_patch_kernels,
    conv_pointwise_kernels,
    conv_tap_kernels,
    conv_weight_kernels,
    direct_kernels,
    gemm_int_kernels,
    gemm_kernels,
    gemv_kernels,
    plane_kernels,
    pool_kernels,
    scan_kernels,
    sort_kernels,
    winograd_kernels,
    winograd_weight_kernels,
)
from tracegrad.codegen.kernel_writer import write
from tracegrad.codegen.native import compile_library
from tracegrad.codegen.plan import SHORT_NAMES
from tracegrad.codegen.tile_shape import TileShape, tile_shape

INTEGER_DTYPES = ("int32", "int64")
SCAN_DTYPES = ("float32", "float64", "int32", "int64")
WINOGRAD_TILES = (2, 4)
WINOGRAD_KERNELS = tuple(itertools.product(WINOGRAD_TILES, (32, 64)))
DIRECT_KERNELS = tuple(itertools.product(("forward", "data", "weight"), ("float32", "float64")))

Entries = dict[str, tuple[Any, Any]]
Source = Callable[[TileShape], tuple[Entries, Iterable[ir.Module]]]


def _loops(*makers: Callable[[], Entries]) -> Source:
    """Return the source of a family of plain loops: it has no parts and no tile."""

    def source(shape: TileShape) -> tuple[Entries, Iterable[ir.Module]]:
        entries: Entries = {}
        for maker in makers:
            entries |= maker()
        return entries, ()

    return source


def _gemm(bits: int) -> Source:
    return lambda shape: (gemm_kernels.gemm_entries(bits, shape), gemm_kernels.gemm_parts(bits, shape))


def _gemv(bits: int) -> Source:
    return lambda shape: (gemv_kernels.gemv_entries(bits), gemv_kernels.gemv_parts(bits, shape))


def _conv(bits: int) -> Source:
    return lambda shape: (conv_kernels.conv_entries(bits, shape), conv_kernels.conv_parts(bits, shape))


def _convw(bits: int) -> Source:
    return lambda shape: (conv_weight_kernels.convw_entries(bits, shape), conv_weight_kernels.convw_parts(bits, shape))


def _convt(bits: int) -> Source:
    return lambda shape: (conv_tap_kernels.convt_entries(bits, shape), conv_tap_kernels.convt_parts(bits, shape))


def _convu(bits: int) -> Source:
    return lambda shape: (conv_patch_kernels.convu_entries(bits, shape), conv_patch_kernels.convu_parts(bits, shape))


def _convg(bits: int) -> Source:
    return lambda shape: (conv_group_kernels.convg_entries(bits, shape), conv_group_kernels.convg_parts(bits, shape))


def _convp(bits: int) -> Source:
    return lambda shape: (
        conv_pointwise_kernels.convp_entries(bits, shape), conv_pointwise_kernels.convp_parts(bits, shape)
    )  # fmt: skip


def _direct(kind: str, dtype: str) -> Source:
    return lambda shape: (direct_kernels.direct_entries(dtype, kind), direct_kernels.direct_parts(dtype, shape))


def _winograd(m: int, bits: int) -> Source:
    return lambda shape: (
        winograd_kernels.winograd_entries(bits, shape, m), winograd_kernels.winograd_parts(bits, shape, m)
    )  # fmt: skip


def _winogradw(m: int, bits: int) -> Source:
    return lambda shape: (
        winograd_weight_kernels.winograd_weight_entries(bits, shape, m),
        winograd_weight_kernels.winograd_weight_parts(bits, shape, m),
    )


def _planes(kind: str, dtype: str) -> Source:
    return lambda shape: (
        plane_kernels.plane_entries(dtype, kind, shape), plane_kernels.plane_parts(dtype, kind, shape)
    )  # fmt: skip


_SOURCES: dict[str, Source] = {
    "pool": _loops(pool_kernels.entries),
    "gemm_f32": _gemm(32),
    "gemm_f64": _gemm(64),
    "gemv_f32": _gemv(32),
    "gemv_f64": _gemv(64),
    "conv_f32": _conv(32),
    "conv_f64": _conv(64),
    "convt_f32": _convt(32),
    "convt_f64": _convt(64),
    "convu_f32": _convu(32),
    "convu_f64": _convu(64),
    "convw_f32": _convw(32),
    "convw_f64": _convw(64),
    "convg_f32": _convg(32),
    "convg_f64": _convg(64),
    "convp_f32": _convp(32),
    "convp_f64": _convp(64),
    **{f"direct_{kind}_{SHORT_NAMES[dtype]}": _direct(kind, dtype) for kind, dtype in DIRECT_KERNELS},
    **{f"planes_{kind}_{SHORT_NAMES[dtype]}": _planes(kind, dtype) for kind, dtype in DIRECT_KERNELS},
    **{f"winograd{m}_f{bits}": _winograd(m, bits) for m, bits in WINOGRAD_KERNELS},
    **{f"winogradw{m}_f{bits}": _winogradw(m, bits) for m, bits in WINOGRAD_KERNELS},
    "sort": _loops(sort_kernels.sort_entries),
    **{
        f"scan_{SHORT_NAMES[dtype]}": _loops(functools.partial(scan_kernels.cumsum_entries, dtype))
        for dtype in SCAN_DTYPES
    },
    **{
        f"gemm_{SHORT_NAMES[dtype]}": _loops(functools.partial(gemm_int_kernels.gemm_int_entries, dtype))
        for dtype in INTEGER_DTYPES
    },
}

FAMILIES: dict[str, tuple[str, ...]] = {
    "pool": ("tg_worker", "tg_par_for"),
    "gemm_f32": ("tg_gemm_f32",),
    "gemm_f64": ("tg_gemm_f64",),
    "gemv_f32": ("tg_gemv_f32",),
    "gemv_f64": ("tg_gemv_f64",),
    "conv_f32": ("tg_conv_f32",),
    "conv_f64": ("tg_conv_f64",),
    "convt_f32": ("tg_convt_f32",),
    "convt_f64": ("tg_convt_f64",),
    "convu_f32": ("tg_convu_f32",),
    "convu_f64": ("tg_convu_f64",),
    "convw_f32": ("tg_convw_f32",),
    "convw_f64": ("tg_convw_f64",),
    "convg_f32": ("tg_convg_f32",),
    "convg_f64": ("tg_convg_f64",),
    "convp_f32": ("tg_convp_f32",),
    "convp_f64": ("tg_convp_f64",),
    **{
        f"direct_{kind}_{SHORT_NAMES[dtype]}": (f"tg_direct_{kind}_{SHORT_NAMES[dtype]}",)
        for kind, dtype in DIRECT_KERNELS
    },
    **{
        f"planes_{kind}_{SHORT_NAMES[dtype]}": (f"tg_planes_{kind}_{SHORT_NAMES[dtype]}",)
        for kind, dtype in DIRECT_KERNELS
    },
    **{f"winograd{m}_f{bits}": (f"tg_winograd{m}_f{bits}",) for m, bits in WINOGRAD_KERNELS},
    **{f"winogradw{m}_f{bits}": (f"tg_winogradw{m}_f{bits}",) for m, bits in WINOGRAD_KERNELS},
    "sort": ("tg_argsort",),
    **{f"scan_{SHORT_NAMES[dtype]}": (f"tg_cumsum_{SHORT_NAMES[dtype]}",) for dtype in SCAN_DTYPES},
    **{f"gemm_{SHORT_NAMES[dtype]}": (f"tg_gemm_{SHORT_NAMES[dtype]}",) for dtype in INTEGER_DTYPES},
}


def build(family: str, isa: str | None = None) -> bytes:
    """Compile a family for this host and return its object code.

    isa: the tile's instruction set (`tile_shape`), this host's by default; planners must be given the same.
    """
    entries, parts = _SOURCES[family](tile_shape(isa))
    return compile_library(write(entries, f"tracegrad_{family}"), f"tracegrad_{family}", parts)
