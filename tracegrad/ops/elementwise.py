"""Element-wise primitives: every operand has the result's shape, or is a scalar literal.

A row is the whole declaration. `scalar` is the code of one element, in the subset of Python that `codegen.scalar`
compiles; the rule in `vjp` is written with operators, so that on tracers it writes the adjoint graph and on arrays it
computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import Aval, is_float, kind_of
from tracegrad.ir.primitive import Primitive, Sample, as_eager

Rule = Callable[..., Any]
BOOL_DTYPE = np.dtype(np.bool_)
ANY, FLOAT, NUMBER, INTEGER, BOOL = "biuf", "f", "iuf", "iub", "b"
WORDS = {
    ANY: "numeric",
    FLOAT: "float32 or float64",
    NUMBER: "numeric, not bool",
    INTEGER: "integer or bool",
    BOOL: "bool",
    "iu": "integer",
}


def joint_shape(name: str, operands: Sequence[Aval]) -> tuple[int, ...]:
    """Return the one shape of the operands that are not scalars."""
    shapes = {o.shape for o in operands if o.shape}
    if len(shapes) > 1:
        shown = " and ".join(str(o) for o in operands if o.shape != ())
        raise ShapeError(f"{name}: {shown} differ in shape", fix="broadcast them with np.broadcast_to")
    return shapes.pop() if shapes else ()


TYPED: set[type] = set()
"""Types whose objects have been seen to have a dtype: asking a type is faster."""


def settle(operands: Sequence[Any]) -> Sequence[Any]:
    """Give Python scalars the dtype of the array they stand beside."""
    for operand in operands:
        if type(operand) not in TYPED:
            if not hasattr(operand, "dtype"):
                break
            TYPED.add(type(operand))
    else:
        return operands
    dtypes = [o.dtype for o in operands if hasattr(o, "dtype")]
    beside = next((d for d in reversed(dtypes) if d.kind != "b"), None)
    if beside is None:
        beside = np.result_type(*[o for o in operands if not hasattr(o, "dtype")])
    return [o if hasattr(o, "dtype") else beside.type(o) for o in operands]


class Elementwise(Primitive):
    """A function of single elements."""

    kind = "elementwise"

    def __init__(
        self,
        name: str,
        *,
        eager: Rule,
        scalar: str,
        vjp: Rule | tuple[Rule | None, ...] | None = None,
        nargs: int = 1,
        accepts: str = FLOAT,
        result: str = "same",
        domain: tuple[float, float] = (-2.0, 2.0),
        linear: bool = False,
        cost: int = 1,
        costly: int = 0,
        code: Callable[..., str] | None = None,
    ):
        self.name = name
        self.code = code or (lambda *operands: scalar)
        self.scalar = scalar
        self.nargs = nargs
        self.accepts = accepts
        self.result = result
        self.domain = domain
        self.linear = linear
        self.cost = cost
        self.costly = costly
        self.constant = vjp is ZERO or vjp is None
        self._eager = eager
        self._vjp = vjp
        dtype = np.float64 if "f" in accepts else np.int64 if "i" in accepts else np.bool_
        self.samples: list[Sample] = [
            {"shapes": [shape] * nargs, "dtype": dtype} for shape in [(), (5,), (3, 4), (0, 2)]
        ]
        super().__init__()

    @property
    def differentiable(self) -> bool:
        return self._vjp is not None

    def aval(self, *operands: Aval, **params: Any) -> Aval:
        first = operands[0]
        shape = first.shape if len(operands) == 1 else joint_shape(self.name, operands)
        dtype = first.dtype
        for other in operands[1:]:
            if other.dtype is not dtype and other.dtype != dtype:
                shown = " and ".join(map(str, operands))
                raise DTypeError(f"{self.name}: {shown} differ in dtype", fix="convert one side with x.astype(...)")
        if kind_of(dtype) not in self.accepts:
            raise DTypeError(
                f"{self.name}: {operands[-1]} is not {WORDS[self.accepts]}", fix="convert it with x.astype(np.float32)"
            )
        if self.result == "bool":
            return Aval(shape, BOOL_DTYPE)
        return first if shape == first.shape and type(first) is Aval else Aval(shape, dtype)

    def __call__(self, *operands: Any, **params: Any) -> Any:
        return self.apply(settle(operands), params)

    def eager(self, *operands: Any, **params: Any) -> Any:
        found = self._eager(*operands, **params)
        dtype = BOOL_DTYPE if self.result == "bool" else operands[-1].dtype
        return found if type(found) is np.ndarray and found.dtype is dtype else as_eager(found, dtype)

    def vjp(self, ct: Any, y: Any, *operands: Any, **params: Any) -> Any:
        return self.vjp_of((True,) * self.nargs, ct, y, *operands, **params)

    def vjp_of(self, needed: Sequence[bool], ct: Any, y: Any, *operands: Any, **params: Any) -> Any:
        """Apply the rule; where it is one function per operand, those that are not needed are left out."""
        rules = self._vjp
        if rules is None:
            return (None,) * self.nargs
        if not isinstance(rules, tuple):
            return rules(ct, y, *operands, **params)
        found = [None] * self.nargs
        for place, rule in enumerate(rules):
            if needed[place] and rule is not None:
                found[place] = rule(ct, y, *operands)
        return tuple(found)


class Select(Elementwise):
    """where(condition, x, y) on one shape; the condition is bool."""

    moves = True

    def aval(self, *operands: Aval, **params: Any) -> Aval:
        condition, x, y = operands
        joint_shape(self.name, operands)
        if condition.dtype != np.bool_:
            raise DTypeError(f"where: the condition is {condition}, not bool", fix="compare it, for instance x != 0")
        if x.dtype != y.dtype:
            raise DTypeError(f"where: the branches {x} and {y} differ in dtype", fix="convert one with x.astype(...)")
        return Aval(joint_shape(self.name, operands), x.dtype)


class Convert(Primitive):
    """x.astype(dtype); the gradient is converted back when both dtypes are floating point."""

    name = "convert"
    kind = "elementwise"
    linear = True
    moves = True
    nargs = 1
    cost = 1
    scalar = "{0}"
    samples = [{"shapes": [(3, 4)], "dtype": np.float64, "params": {"dtype": np.dtype(np.float32)}, "order": 0}]

    def aval(self, x: Aval, *, dtype: np.dtype[Any]) -> Aval:  # type: ignore[override]
        return x.with_dtype(dtype)

    def eager(self, x: Any, *, dtype: np.dtype[Any]) -> Any:
        with np.errstate(invalid="ignore"):
            return np.asarray(x).astype(dtype)

    def jvp(self, ts: tuple[Any, ...], y: Any, x: Any, *, dtype: np.dtype[Any]) -> Any:
        return convert(ts[0], dtype=dtype)

    def vjp(self, ct: Any, y: Any, x: Any, *, dtype: np.dtype[Any]) -> Any:
        return convert(ct, dtype=x.dtype) if is_float(x.dtype) and is_float(dtype) else None


def ZERO(ct: Any, y: Any, *operands: Any) -> Any:
    """The rule of a piecewise constant function."""
    return (None,) * len(operands)


def unary(name: str, eager: Rule, scalar: str, vjp: Rule | None = None, **more: Any) -> Elementwise:
    return Elementwise(name, eager=eager, scalar=scalar, vjp=vjp, **more)


def binary(
    name: str, eager: Rule, scalar: str, vjp: Rule | tuple[Rule, Rule] | None = None, **more: Any
) -> Elementwise:
    return Elementwise(name, eager=eager, scalar=scalar, vjp=vjp, nargs=2, **{"accepts": NUMBER, **more})


def compare(name: str, eager: Rule, scalar: str) -> Elementwise:
    return Elementwise(name, eager=eager, scalar=scalar, nargs=2, accepts=ANY, result="bool")


def sigmoid_array(x: Any) -> Any:
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(np.asarray(x) >= 0, 1.0, e) / (1.0 + e)


def libm_array(name: str) -> Rule:
    """Apply a function of the math module to every element; NumPy has no erf of its own."""
    function = np.frompyfunc(getattr(math, name), 1, 1)
    return lambda x: np.asarray(function(np.asarray(x, np.float64)), np.float64)


def log_of_base(a: Any) -> Any:
    """Return log(a), 0 where a is not positive; of a number a number, which a graph takes as a literal."""
    if isinstance(a, np.generic):
        return np.log(a) if float(a) > 0.0 else a.dtype.type(0)
    return log(where(a > 0.0, a, 1.0))


def ct_of_larger(ct: Any, a: Any, b: Any) -> Any:
    """Return ct where a > b, half of it where they tie, else 0: the subgradient that treats both sides alike."""
    # a > b would not do: NumPy makes an array of a scalar on the left of a comparison.
    return where(greater(a, b), ct, where(equal(a, b), 0.5 * ct, 0.0))


# --- arithmetic -------------------------------------------------------------------------------------------------------
convert = Convert()
neg = unary("neg", np.negative, "-{0}", lambda ct, y, x: -ct, accepts=NUMBER, linear=True)
add = binary("add", np.add, "{0} + {1}", lambda ct, y, a, b: (ct, ct), linear=True)
sub = binary("sub", np.subtract, "{0} - {1}", lambda ct, y, a, b: (ct, -ct), linear=True)
mul = binary("mul", np.multiply, "{0} * {1}", (lambda ct, y, a, b: ct * b, lambda ct, y, a, b: ct * a))
div = binary(
    "div",
    np.divide,
    "{0} / {1}",
    (lambda ct, y, a, b: ct / b, lambda ct, y, a, b: -ct * (a / b) / b),  # a / b is y, which a tape need not keep
    accepts=FLOAT,
    cost=4,
)
floor_divide = binary("floor_divide", np.floor_divide, "{0} // {1}", cost=8)
mod = binary(
    "mod", np.remainder, "{0} % {1}", (lambda ct, y, a, b: ct, lambda ct, y, a, b: -ct * floor_divide(a, b)), cost=8
)
fmod = binary(
    "fmod",
    np.fmod,
    "math.fmod({0}, {1})",
    (lambda ct, y, a, b: ct, lambda ct, y, a, b: -ct * rint((a - y) / b)),
    accepts=FLOAT,
    cost=8,
)


def power_code(x: Any, exponent: Any) -> str:
    """Return the code of x ** y: products and a root for 0.5, 1.5, 2.5, -0.5, -1.5, within 2.5 units in the last place.

    A power of -0.0 or -inf is that of its absolute value, 0.0 or inf. x ** -1.5 is the power of 1 / x, which leaves no
    range where the result does not.
    """
    value = getattr(exponent, "value", math.nan)
    base = "(1.0 / {0})" if value == -1.5 else "{0}"
    root = f"math.sqrt(math.fabs({base}) if ({base} == 0.0) | ({base} == -math.inf) else {base})"
    size = f"math.fabs({base})"
    codes = {
        0.5: root, 1.5: f"{root} * {size}", 2.5: f"{root} * {size} * {size}", -0.5: f"1.0 / {root}",
        -1.5: f"{root} * {size}",
    }  # fmt: skip
    return codes.get(value, "math.pow({0}, {1})")


power: Elementwise = binary(
    "power",
    np.power,
    "math.pow({0}, {1})",
    (
        lambda ct, y, a, b: ct * where(b == 0.0, 0.0, b * power(a, b - 1.0)),
        lambda ct, y, a, b: ct * y * log_of_base(a),
    ),
    domain=(0.3, 2.0),
    cost=40,
    code=power_code,
)
sign = unary("sign", np.sign, "math.sign({0})", ZERO, accepts=NUMBER)
abs_ = unary("abs", np.abs, "math.fabs({0})", lambda ct, y, x: ct * sign(x), accepts=NUMBER)
square = unary("square", np.square, "{0} * {0}", lambda ct, y, x: ct * (2.0 * x), accepts=NUMBER)
reciprocal = unary("reciprocal", np.reciprocal, "1.0 / {0}", lambda ct, y, x: -ct * y * y, domain=(0.5, 2.0), cost=4)
sqrt = unary("sqrt", np.sqrt, "math.sqrt({0})", lambda ct, y, x: ct * 0.5 / y, domain=(0.2, 3.0), cost=6)
cbrt = unary("cbrt", np.cbrt, "math.cbrt({0})", lambda ct, y, x: ct / (3.0 * y * y), domain=(0.2, 3.0), cost=20)
rsqrt = unary(
    "rsqrt",
    lambda x: 1.0 / np.sqrt(x),
    "1.0 / math.sqrt({0})",
    lambda ct, y, x: ct * (-0.5) * y / x,
    domain=(0.2, 3.0),
    cost=10,
)
maximum = binary(
    "maximum",
    np.maximum,
    "maximum({0}, {1})",
    (lambda ct, y, a, b: ct_of_larger(ct, a, b), lambda ct, y, a, b: ct_of_larger(ct, b, a)),
)
minimum = binary(
    "minimum",
    np.minimum,
    "minimum({0}, {1})",
    (lambda ct, y, a, b: ct_of_larger(ct, b, a), lambda ct, y, a, b: ct_of_larger(ct, a, b)),
)
relu = unary(
    "relu", lambda x: np.maximum(x, 0), "maximum({0}, 0)", lambda ct, y, x: where(y > 0.0, ct, 0.0), accepts=NUMBER
)
relu.picks = True

# --- rounding ---------------------------------------------------------------------------------------------------------
floor: Elementwise = unary("floor", np.floor, "math.floor({0})", ZERO)
ceil = unary("ceil", np.ceil, "math.ceil({0})", ZERO)
trunc = unary("trunc", np.trunc, "math.trunc({0})", ZERO)
rint: Elementwise = unary("rint", np.rint, "math.rint({0})", ZERO)

# --- exponentials and logarithms --------------------------------------------------------------------------------------
exp = unary("exp", np.exp, "math.exp({0})", lambda ct, y, x: ct * y, cost=15)
exp2 = unary("exp2", np.exp2, "math.exp2({0})", lambda ct, y, x: ct * y * 0.6931471805599453, cost=15)
expm1 = unary("expm1", np.expm1, "math.expm1({0})", lambda ct, y, x: ct * (y + 1.0), cost=18, costly=1024)
log: Elementwise = unary("log", np.log, "math.log({0})", lambda ct, y, x: ct / x, domain=(0.1, 4.0), cost=18)
log2 = unary(
    "log2", np.log2, "math.log2({0})", lambda ct, y, x: ct / (x * 0.6931471805599453), domain=(0.1, 4.0), cost=18
)
log10 = unary(
    "log10", np.log10, "math.log10({0})", lambda ct, y, x: ct / (x * 2.302585092994046), domain=(0.1, 4.0), cost=18
)
log1p = unary(
    "log1p", np.log1p, "math.log1p({0})", lambda ct, y, x: ct / (1.0 + x), domain=(-0.8, 4.0), cost=20, costly=1024
)
sigmoid = unary(
    "sigmoid", sigmoid_array, "math.sigmoid({0})", lambda ct, y, x: ct * y * (1.0 - y), cost=18, costly=1024
)

# --- trigonometric and hyperbolic -------------------------------------------------------------------------------------
sin = unary("sin", np.sin, "math.sin({0})", lambda ct, y, x: ct * cos(x), cost=20)
cos: Elementwise = unary("cos", np.cos, "math.cos({0})", lambda ct, y, x: -ct * sin(x), cost=20)
tan = unary("tan", np.tan, "math.tan({0})", lambda ct, y, x: ct * (1.0 + y * y), domain=(-1.0, 1.0), cost=30)
arcsin = unary(
    "arcsin", np.arcsin, "math.asin({0})",
    lambda ct, y, x: ct / sqrt(1.0 - x * x), domain=(-0.9, 0.9), cost=25, costly=1024
)
arccos = unary(
    "arccos", np.arccos, "math.acos({0})",
    lambda ct, y, x: -ct / sqrt(1.0 - x * x), domain=(-0.9, 0.9), cost=25, costly=1024
)
arctan = unary("arctan", np.arctan, "math.atan({0})", lambda ct, y, x: ct / (1.0 + x * x), cost=25, costly=1024)
arctan2 = binary(
    "arctan2",
    np.arctan2,
    "math.atan2({0}, {1})",
    lambda ct, y, a, b: (ct * b / (a * a + b * b), -ct * a / (a * a + b * b)),
    accepts=FLOAT,
    domain=(0.3, 2.0),
    cost=35,
    costly=1024,
)
sinh = unary("sinh", np.sinh, "math.sinh({0})", lambda ct, y, x: ct * cosh(x), cost=20, costly=1024)
cosh: Elementwise = unary("cosh", np.cosh, "math.cosh({0})", lambda ct, y, x: ct * sinh(x), cost=20, costly=1024)
tanh = unary("tanh", np.tanh, "math.tanh({0})", lambda ct, y, x: ct * (1.0 - y * y), cost=20, costly=4096)
arcsinh = unary("arcsinh", np.arcsinh, "math.asinh({0})", lambda ct, y, x: ct / sqrt(x * x + 1.0), cost=25, costly=1024)
arccosh = unary(
    "arccosh", np.arccosh, "math.acosh({0})",
    lambda ct, y, x: ct / sqrt(x * x - 1.0), domain=(1.2, 3.0), cost=25, costly=1024
)
arctanh = unary(
    "arctanh", np.arctanh, "math.atanh({0})",
    lambda ct, y, x: ct / (1.0 - x * x), domain=(-0.8, 0.8), cost=25, costly=1024
)
erf = unary(
    "erf", libm_array("erf"), "math.erf({0})",
    lambda ct, y, x: ct * (1.1283791670955126 * exp(-(x * x))), cost=25, costly=64
)
erfc = unary(
    "erfc", libm_array("erfc"), "math.erfc({0})",
    lambda ct, y, x: ct * (-1.1283791670955126 * exp(-(x * x))), cost=25, costly=64
)

# --- comparisons and logic --------------------------------------------------------------------------------------------
equal: Elementwise = compare("equal", np.equal, "{0} == {1}")
not_equal = compare("not_equal", np.not_equal, "{0} != {1}")
less = compare("less", np.less, "{0} < {1}")
less_equal = compare("less_equal", np.less_equal, "{0} <= {1}")
greater: Elementwise = compare("greater", np.greater, "{0} > {1}")
greater_equal = compare("greater_equal", np.greater_equal, "{0} >= {1}")
isnan = unary("isnan", np.isnan, "{0} != {0}", result="bool")
isinf = unary("isinf", np.isinf, "math.isinf({0})", result="bool")
isfinite = unary("isfinite", np.isfinite, "math.isfinite({0})", result="bool")
logical_not = unary("logical_not", np.logical_not, "~{0}", accepts=BOOL, result="bool")
bitwise_not = unary("bitwise_not", np.bitwise_not, "~{0}", accepts=INTEGER)
bitwise_and = binary("bitwise_and", np.bitwise_and, "{0} & {1}", accepts=INTEGER)
bitwise_or = binary("bitwise_or", np.bitwise_or, "{0} | {1}", accepts=INTEGER)
bitwise_xor = binary("bitwise_xor", np.bitwise_xor, "{0} ^ {1}", accepts=INTEGER)
left_shift = binary("left_shift", np.left_shift, "{0} << {1}", accepts="iu")
right_shift = binary("right_shift", np.right_shift, "{0} >> {1}", accepts="iu")
where: Elementwise = Select(
    "where",
    eager=np.where,
    scalar="{1} if {0} else {2}",
    vjp=(None, lambda ct, y, c, a, b: where(c, ct, 0.0), lambda ct, y, c, a, b: where(c, 0.0, ct)),
    nargs=3,
    accepts=ANY,
    linear=True,
)

# --- gradients --------------------------------------------------------------------------------------------------------
stop_gradient = unary("stop_gradient", np.asarray, "{0}", accepts=ANY, linear=True)
stop_gradient.moves = True
