"""NumPy's functions for traced values, NumPy arrays and numbers: `import tracegrad.numpy as tnp`.

Names and meanings are NumPy's and the array-API standard's. On arrays the functions compute at once; on traced values,
and on arrays inside a traced function, they add to its graph. Plain `np.*` on a traced value leads to the same
functions.
"""

from __future__ import annotations

from numpy import bool_ as bool
from numpy import (
    bool_,
    e,
    euler_gamma,
    finfo,
    float16,
    float32,
    float64,
    iinfo,
    inf,
    int16,
    int32,
    int64,
    int8,
    nan,
    newaxis,
    pi,
    uint16,
    uint32,
    uint64,
    uint8,
)

from tracegrad.numpy import linalg, special
from tracegrad.numpy.arithmetic import (
    clip, copysign, divmod, float_power, fmax, fmin, fmod, heaviside, hypot, isclose, isneginf, isposinf,
    logaddexp, logaddexp2, nan_to_num, positive, power, reciprocal, round, signbit, where,
)  # fmt: skip
from tracegrad.numpy.arithmetic import power as pow
from tracegrad.numpy.arithmetic import round as around
from tracegrad.numpy.creation import (
    arange, asarray, astype, copy, empty, empty_like, eye, full, full_like, identity, linspace, logspace, meshgrid,
    ones, ones_like, tri, tril_indices, triu_indices, vander, zeros, zeros_like,
)  # fmt: skip
from tracegrad.numpy.creation import new_array as array
from tracegrad.numpy.curves import (
    convolve, correlate, cumulative_prod, cumulative_sum, ediff1d, gradient, interp, ldexp, modf, polyval, sinc,
    trapezoid, unwrap,
)  # fmt: skip
from tracegrad.numpy.einsum import einsum
from tracegrad.numpy.elementwise import (
    absolute, add, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, bitwise_and, bitwise_or, bitwise_xor,
    cbrt, ceil, cos, cosh, degrees, divide, equal, exp, exp2, expm1, fabs, fix, floor, floor_divide, greater,
    greater_equal, invert, isfinite, isinf, isnan, left_shift, less, less_equal, log, log10, log1p, log2,
    logical_and, logical_not, logical_or, logical_xor, maximum, minimum, multiply, negative, not_equal, radians,
    remainder, right_shift, rint, sign, sin, sinh, sqrt, square, subtract, tan, tanh, trunc,
)  # fmt: skip
from tracegrad.numpy.elementwise import absolute as abs
from tracegrad.numpy.elementwise import arccos as acos
from tracegrad.numpy.elementwise import arccosh as acosh
from tracegrad.numpy.elementwise import arcsin as asin
from tracegrad.numpy.elementwise import arcsinh as asinh
from tracegrad.numpy.elementwise import arctan as atan
from tracegrad.numpy.elementwise import arctan2 as atan2
from tracegrad.numpy.elementwise import arctanh as atanh
from tracegrad.numpy.elementwise import degrees as rad2deg
from tracegrad.numpy.elementwise import divide as true_divide
from tracegrad.numpy.elementwise import invert as bitwise_invert
from tracegrad.numpy.elementwise import invert as bitwise_not
from tracegrad.numpy.elementwise import left_shift as bitwise_left_shift
from tracegrad.numpy.elementwise import radians as deg2rad
from tracegrad.numpy.elementwise import remainder as mod
from tracegrad.numpy.elementwise import right_shift as bitwise_right_shift
from tracegrad.numpy.joining import (
    append, array_split, column_stack, concatenate, hstack, pad, repeat, roll, split, stack, tile, unstack, vstack,
)  # fmt: skip
from tracegrad.numpy.joining import concatenate as concat
from tracegrad.numpy.nan_order import (
    nanargmax, nanargmin, nancumprod, nancumsum, nanmedian, nanpercentile, nanprod, nanquantile,
)  # fmt: skip
from tracegrad.numpy.nan_reductions import nanmax, nanmean, nanmin, nansum
from tracegrad.numpy.pieces import (
    apply_along_axis, block, choose, conjugate, delete, dsplit, dstack, hsplit, imag, insert, matvec, piecewise,
    real, resize, select, vecmat, vsplit,
)  # fmt: skip
from tracegrad.numpy.pieces import conjugate as conj
from tracegrad.numpy.places import diagflat, geomspace, ix_, lexsort, ravel_multi_index, unravel_index
from tracegrad.numpy.polynomials import polyadd, polyder, polyfit, polyint, polymul, polysub
from tracegrad.numpy.products import cross, dot, inner, kron, matmul, outer, tensordot, trace, vdot, vecdot
from tracegrad.numpy.promote import promote_types, result_type
from tracegrad.numpy.reductions import (
    all, allclose, any, argmax, argmin, array_equal, average, count_nonzero, cumprod, cumsum, diff, logsumexp, max,
    mean, min, prod, ptp, std, sum, var,
)  # fmt: skip
from tracegrad.numpy.reductions import max as amax
from tracegrad.numpy.reductions import min as amin
from tracegrad.numpy.selecting import (
    argsort, diag, diagonal, median, searchsorted, sort, take, take_along_axis, tril, triu,
)  # fmt: skip
from tracegrad.numpy.shaping import (
    atleast_1d, atleast_2d, atleast_3d, broadcast_arrays, broadcast_shapes, broadcast_to, expand_dims, flip, fliplr,
    flipud, matrix_transpose, moveaxis, ndim, permute_dims, ravel, reshape, rollaxis, rot90, shape, size, squeeze,
    swapaxes, transpose,
)  # fmt: skip
from tracegrad.numpy.statistics import (
    argpartition, bincount, corrcoef, cov, digitize, histogram, isin, nanstd, nanvar, partition, percentile,
    quantile,
)  # fmt: skip
from tracegrad.numpy.updates import at
from tracegrad.numpy.methods import fill_functions, install

__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "all", "allclose", "amax", "amin", "any", "append",
    "apply_along_axis", "arange", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "argmax", "argmin", "argpartition", "argsort", "around", "array", "array_equal", "array_split", "asarray",
    "asin", "asinh", "astype", "at", "atan", "atan2", "atanh", "atleast_1d", "atleast_2d", "atleast_3d", "average",
    "bincount", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "block", "bool", "bool_", "broadcast_arrays", "broadcast_shapes",
    "broadcast_to", "cbrt", "ceil", "choose", "clip", "column_stack", "concat", "concatenate", "conj", "conjugate",
    "convolve", "copy", "copysign", "corrcoef", "correlate", "cos", "cosh", "count_nonzero", "cov", "cross",
    "cumprod", "cumsum", "cumulative_prod", "cumulative_sum", "deg2rad", "degrees", "delete", "diag", "diagflat",
    "diagonal", "diff", "digitize", "divide", "divmod", "dot", "dsplit", "dstack", "e", "ediff1d", "einsum",
    "empty", "empty_like", "equal", "euler_gamma", "exp", "exp2", "expand_dims", "expm1", "eye", "fabs", "finfo",
    "fix", "flip", "fliplr", "flipud", "float16", "float32", "float64", "float_power", "floor", "floor_divide",
    "fmax", "fmin", "fmod", "full", "full_like", "geomspace", "gradient", "greater", "greater_equal", "heaviside",
    "histogram", "hsplit", "hstack", "hypot", "identity", "iinfo", "imag", "inf", "inner", "insert", "int16",
    "int32", "int64", "int8", "interp", "invert", "isclose", "isfinite", "isin", "isinf", "isnan", "isneginf",
    "isposinf", "ix_", "kron", "ldexp", "left_shift", "less", "less_equal", "lexsort", "linalg", "linspace", "log",
    "log10", "log1p", "log2", "logaddexp", "logaddexp2", "logical_and", "logical_not", "logical_or", "logical_xor",
    "logspace", "logsumexp", "matmul", "matrix_transpose", "matvec", "max", "maximum", "mean", "median", "meshgrid",
    "min", "minimum", "mod", "modf", "moveaxis", "multiply", "nan", "nan_to_num", "nanargmax", "nanargmin",
    "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin", "nanpercentile", "nanprod",
    "nanquantile", "nanstd", "nansum", "nanvar", "ndim", "negative", "newaxis", "not_equal", "ones", "ones_like",
    "outer", "pad", "partition", "percentile", "permute_dims", "pi", "piecewise", "polyadd", "polyder", "polyfit",
    "polyint", "polymul", "polysub", "polyval", "positive", "pow", "power", "prod", "promote_types", "ptp",
    "quantile", "rad2deg", "radians", "ravel", "ravel_multi_index", "real", "reciprocal", "remainder", "repeat",
    "reshape", "resize", "result_type", "right_shift", "rint", "roll", "rollaxis", "rot90", "round", "searchsorted",
    "select", "shape", "sign", "signbit", "sin", "sinc", "sinh", "size", "sort", "special", "split", "sqrt",
    "square", "squeeze", "stack", "std", "subtract", "sum", "swapaxes", "take", "take_along_axis", "tan", "tanh",
    "tensordot", "tile", "trace", "transpose", "trapezoid", "tri", "tril", "tril_indices", "triu", "triu_indices",
    "true_divide", "trunc", "uint16", "uint32", "uint64", "uint8", "unravel_index", "unstack", "unwrap", "vander",
    "var", "vdot", "vecdot", "vecmat", "vsplit", "vstack", "where", "zeros", "zeros_like",
]  # fmt: skip

install()
fill_functions({name: globals()[name] for name in __all__}, {name: getattr(linalg, name) for name in linalg.__all__})
