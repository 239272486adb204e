"""Reductions that leave NaN out."""

from __future__ import annotations

import numpy as np

from tracegrad.ir.aval import is_float
from tracegrad.numpy import arithmetic, elementwise as ew, reductions
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import Array, ArrayLike, Axis, DType, array, computed
from tracegrad.ops import elementwise as ops
from tracegrad.ops import reduce as reduce_ops


def without_nan(name: str, x: ArrayLike, fill: float) -> Array:
    """Replace NaN by `fill`."""
    x = array(name, x)
    return arithmetic.where(ew.isnan(x), fill, x) if is_float(x.dtype) else x


@computed
def nansum(x: ArrayLike, axis: Axis = None, dtype: DType = None, *, keepdims: bool = False) -> Array:
    """Sum of what is not NaN, as `numpy.nansum`."""
    return reductions.sum(without_nan("nansum", x, 0.0), axis, dtype=dtype, keepdims=keepdims)


@computed
@rounded_once
def nanmean(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Mean of what is not NaN, as `numpy.nanmean`."""
    x = array("nanmean", x)
    if not is_float(x.dtype):
        return reductions.mean(x, axis, keepdims=keepdims)
    count = reductions.sum(ops.convert(ops.logical_not(ops.isnan(x)), dtype=x.dtype), axis, keepdims=keepdims)
    return ew.divide(nansum(x, axis, keepdims=keepdims), count)


@computed
def nanmax(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Largest element that is not NaN, as `numpy.nanmax`; NaN where there is none."""
    return nan_extremum("nanmax", x, axis, keepdims, -np.inf)


@computed
def nanmin(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Smallest element that is not NaN, as `numpy.nanmin`; NaN where there is none."""
    return nan_extremum("nanmin", x, axis, keepdims, np.inf)


def nan_extremum(name: str, x: ArrayLike, axis: Axis, keepdims: bool, fill: float) -> Array:
    x = array(name, x)
    prim = reduce_ops.reduce_max if fill < 0 else reduce_ops.reduce_min
    if not is_float(x.dtype):
        return reductions.extremum(name, prim, x, axis, keepdims)
    found = reductions.extremum(name, prim, without_nan(name, x, fill), axis, keepdims)
    return arithmetic.where(reductions.all(ew.isnan(x), axis, keepdims=keepdims), np.nan, found)


__all__ = ["nanmax", "nanmean", "nanmin", "nansum"]
