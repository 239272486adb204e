"""Scalar code, compiled through LLVM: against higher precision, against NumPy, and against its own text run as
plain Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import mpmath
import numba
import numpy as np
import pytest
import scipy.special

from tracegrad.codegen import maths_random
from tracegrad.codegen.instructions import LLVM_TYPE, NUMPY_NAME
from tracegrad.codegen.native import compile_ir
from tracegrad.codegen.scalar import Emitter, numba_namespace, reference_namespace
from tracegrad.runtime.objects import load_object

FLOATS, INTS = ("f32", "f64"), ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
Case = tuple[str, tuple[str, ...], str]  # expression, dtypes of the operands, dtype of the result


def loop(emitter: Emitter, symbol: str, case: Case) -> str:
    """LLVM text of `out[i] = expression(x[i], ...)`."""
    text, dtypes, result = case
    block: list[str] = []
    operands: list[tuple[str, str]] = []
    memory = {name: "i8" if name == "bool" else kind for name, kind in LLVM_TYPE.items()}
    for i, dtype in enumerate(dtypes):
        block += [f"  %p{i} = getelementptr {memory[dtype]}, ptr %x{i}, i64 %i"]
        block += [f"  %v{i} = load {memory[dtype]}, ptr %p{i}"]
        operands.append((f"%v{i}", dtype))
        if dtype == "bool":
            block += [f"  %b{i} = trunc i8 %v{i} to i1"]
            operands[-1] = (f"%b{i}", dtype)
    value = emitter.expression(block, text, operands, result)
    if result == "bool":
        block += [f"  %byte = zext i1 {value} to i8"]
        value = "%byte"
    pointers = "".join(f"ptr noalias %x{i}, " for i in range(len(dtypes)))
    lines = [
        f"define void @{symbol}({pointers}ptr noalias %out, i64 %n) {{",
        "entry:\n  br label %loop\nloop:\n  %i = phi i64 [0, %entry], [%next, %loop]",
        *block,
        f"  %q = getelementptr {memory[result]}, ptr %out, i64 %i\n  store {memory[result]} {value}, ptr %q",
        "  %next = add nuw nsw i64 %i, 1\n  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %exit\nexit:\n  ret void\n}\n",
    ]
    return "\n".join(lines)


def module(cases: dict[str, Case]) -> str:
    emitter = Emitter()
    return "".join([loop(emitter, symbol, case) for symbol, case in cases.items()]) + emitter.definitions()


def compile_cases(cases: dict[str, Case]) -> dict[str, Callable[..., Any]]:
    """Callables on arrays, one per case."""
    addresses = load_object(compile_ir(module(cases), "scalar_maths"), list(cases))

    def caller(symbol: str) -> Callable[..., Any]:
        _, dtypes, result = cases[symbol]
        native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(dtypes) + 1), ctypes.c_int64)(addresses[symbol])

        def call(*arrays: Any) -> Any:
            xs = [np.ascontiguousarray(x, NUMPY_NAME[d]) for x, d in zip(arrays, dtypes, strict=True)]
            out = np.empty(xs[0].shape, NUMPY_NAME[result])
            native(*[x.ctypes.data for x in xs], out.ctypes.data, out.size)
            return out

        return call

    return {symbol: caller(symbol) for symbol in cases}


def spread(low: float, high: float, count: int = 1500) -> Any:
    """Numbers of both signs, uniform in their logarithm."""
    sizes = np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(high), count))
    return np.concatenate([sizes, -sizes])


def uniform(low: float, high: float, count: int = 3000) -> Any:
    return np.random.default_rng(1).uniform(low, high, count)


def real(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: mpmath.re(function(x))


# name: (exact function, arguments for f32, arguments for f64, units in the last place for f32, for f64)
FUNCTIONS: dict[str, tuple[Any, Any, Any, float, float]] = {
    "exp": (mpmath.exp, uniform(-104, 89), uniform(-745, 710), 1.1, 1.1),
    "exp2": (lambda x: mpmath.mpf(2) ** x, uniform(-149, 128), uniform(-1074, 1024), 1.1, 1.2),
    "expm1": (mpmath.expm1, spread(1e-20, 80), spread(1e-20, 700), 1.7, 2.0),
    "log": (mpmath.log, abs(spread(1e-44, 1e38)), abs(spread(1e-320, 1e308)), 1.0, 1.0),
    "log2": (lambda x: mpmath.log(x, 2), abs(spread(1e-44, 1e38)), abs(spread(1e-320, 1e308)), 1.2, 1.0),
    "log10": (mpmath.log10, abs(spread(1e-44, 1e38)), abs(spread(1e-320, 1e308)), 1.2, 1.0),
    "log1p": (mpmath.log1p, uniform(-0.999, 3), np.r_[uniform(-0.999, 3), abs(spread(1e-20, 1e300))], 1.5, 1.3),
    "sin": (mpmath.sin, np.r_[uniform(-9, 9), spread(1, 1e14)], np.r_[uniform(-9, 9), spread(1, 1e14)], 1.7, 1.0),
    "cos": (mpmath.cos, np.r_[uniform(-9, 9), spread(1, 1e14)], np.r_[uniform(-9, 9), spread(1, 1e14)], 1.7, 1.0),
    "tan": (mpmath.tan, np.r_[uniform(-9, 9), spread(1, 1e14)], np.r_[uniform(-9, 9), spread(1, 1e14)], 0.6, 2.2),
    "asin": (real(mpmath.asin), uniform(-1, 1), uniform(-1, 1), 2.3, 2.3),
    "acos": (real(mpmath.acos), uniform(-1, 1), uniform(-1, 1), 1.5, 1.5),
    "atan": (mpmath.atan, spread(1e-10, 1e10), spread(1e-10, 1e10), 2.2, 2.4),
    "sinh": (mpmath.sinh, spread(1e-10, 89), spread(1e-10, 710), 1.7, 1.7),
    "cosh": (mpmath.cosh, uniform(-89, 89), uniform(-710, 710), 1.7, 1.7),
    "tanh": (mpmath.tanh, spread(1e-10, 20), spread(1e-10, 20), 2.5, 2.5),
    "asinh": (mpmath.asinh, spread(1e-10, 1e30), spread(1e-10, 1e300), 2.0, 2.0),
    "acosh": (real(mpmath.acosh), 1 + abs(spread(1e-6, 1e30)), 1 + abs(spread(1e-6, 1e300)), 2.5, 2.5),
    "atanh": (real(mpmath.atanh), uniform(-1, 1), uniform(-1, 1), 2.2, 2.2),
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), uniform(-87, 87), uniform(-700, 700), 2.4, 2.4),
    "cbrt": (lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), spread(1e-40, 1e38), spread(1e-310, 1e300), 2.0, 1.0),
    "erf": (mpmath.erf, spread(1e-10, 5), spread(1e-10, 7), 1.2, 1.2),
    "erfc": (mpmath.erfc, uniform(-5, 9), uniform(-6, 26), 2.5, 3.2),
    "erfinv": (mpmath.erfinv, uniform(-1, 1, 300), uniform(-1, 1, 300), 0.6, 2.4),
    "lgamma": (real(mpmath.loggamma), abs(spread(1e-5, 1e5, 400)), abs(spread(1e-5, 1e5, 400)), 0.6, 3.0),
    "digamma": (mpmath.digamma, uniform(2, 90, 400), uniform(2, 90, 400), 0.6, 16.0),
}
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 5e-324, 1e-310, 3e38, 1e4])
NUMPY_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh"}
SPECIAL_NAMES = {"sigmoid": "expit", "erf": "erf", "erfc": "erfc", "lgamma": "gammaln", "digamma": "digamma"}
PAIRS = ("pow", "atan2", "fmod", "mod", "floor_divide", "hypot", "logaddexp")
UNARY_CASES = {f"{name}_{d}": (f"math.{name}({{0}})", (d,), d) for name in FUNCTIONS for d in FLOATS}


@pytest.fixture(scope="module")
def unary() -> dict[str, Callable[..., Any]]:
    return compile_cases(UNARY_CASES)


@pytest.fixture(scope="module")
def binary() -> dict[str, Callable[..., Any]]:
    return compile_cases({f"{name}_{d}": (f"{name}({{0}}, {{1}})", (d, d), d) for name in PAIRS for d in FLOATS})


def units_in_last_place(values: Any, exact: list[Any]) -> Any:
    """The distance of each value from the exact one, in units of the last place of the exact one."""
    high = np.array([float(e) for e in exact])
    low = np.array([float(e - mpmath.mpf(h)) if np.isfinite(h) else 0.0 for e, h in zip(exact, high, strict=True)])
    with np.errstate(over="ignore"):
        rounded = high.astype(values.dtype)
    inside = np.isfinite(rounded) & np.isfinite(values)
    assert np.array_equal(rounded[~inside], values[~inside])
    unit = np.spacing(np.abs(rounded[inside])).astype(np.float64)
    return np.abs((values[inside].astype(np.float64) - high[inside]) - low[inside]) / unit


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_accurate(name: str, dtype: str, unary: dict[str, Callable[..., Any]]) -> None:
    exact, on_f32, on_f64, *bounds = FUNCTIONS[name]
    x = np.asarray(on_f32 if dtype == "f32" else on_f64, NUMPY_NAME[dtype])
    x = np.random.default_rng(2).choice(x, min(len(x), 700 if dtype == "f32" else 1000), replace=False)
    with mpmath.workprec(140):
        expected = [exact(mpmath.mpf(float(v))) for v in x]
        error = units_in_last_place(unary[f"{name}_{dtype}"](x), expected)
    assert error.max() <= bounds[FLOATS.index(dtype)], f"at {x[error.argmax()]!r}"


def same(value: Any, expected: Any, units: float) -> bool:
    if np.isnan(expected) or np.isnan(value):
        return bool(np.isnan(expected) and np.isnan(value))
    if value == expected:
        return bool(np.signbit(value) == np.signbit(expected))
    return bool(np.isfinite(expected) and abs(value - expected) <= units * np.spacing(np.abs(expected)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "erfinv"])
def test_special_values_are_numpys(name: str, dtype: str, unary: dict[str, Callable[..., Any]]) -> None:
    module_of = scipy.special if name in SPECIAL_NAMES else np
    function = getattr(module_of, SPECIAL_NAMES.get(name) or NUMPY_NAMES.get(name) or name.replace("atanh", "arctanh"))
    x = SPECIAL.astype(NUMPY_NAME[dtype])
    if name == "lgamma":  # scipy differs from C at -inf and on denormals
        x = x[(x != -np.inf) & ((x == 0) | (abs(x) > 1e-44))]
        x = x[(x == 0) | (abs(x) > 1e-300)]
    if name in ("sin", "cos", "tan"):
        x = x[~(np.abs(x) > 1e30) | np.isinf(x)]
    with np.errstate(all="ignore"):
        expected = function(x)
    got = unary[f"{name}_{dtype}"](x)
    for argument, value, wanted in zip(x, got, expected, strict=True):
        assert same(value, wanted, 16), f"{name}({argument!r}): {value!r}, not {wanted!r}"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_plain_python_agrees(name: str, dtype: str, unary: dict[str, Callable[..., Any]]) -> None:
    namespace = reference_namespace()
    x = np.concatenate([SPECIAL, uniform(-3, 3, 25)]).astype(NUMPY_NAME[dtype])
    got = unary[f"{name}_{dtype}"](x)
    with np.errstate(all="ignore"):
        plain = np.array([eval(f"math.{name}(x)", namespace, {"x": v}) for v in x], x.dtype)
    for argument, value, wanted in zip(x, got, plain, strict=True):
        units = 64 if name in ("lgamma", "digamma") else 4
        assert same(value, wanted, units), f"{name}({argument!r}): {value!r}, plain Python {wanted!r}"


def test_sigmoid_is_stable(unary: dict[str, Callable[..., Any]]) -> None:
    for dtype in FLOATS:
        assert unary[f"sigmoid_{dtype}"](np.array([-1000.0, 1000.0])).tolist() == [0.0, 1.0]


def test_angles_beyond_the_limit_are_not_guessed(unary: dict[str, Callable[..., Any]]) -> None:
    for name in ("sin", "cos", "tan"):
        assert np.isnan(unary[f"{name}_f32"](np.array([1e20, 3e38]))).all()
        assert np.isnan(unary[f"{name}_f64"](np.array([1e20, 1e308]))).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", PAIRS)
def test_two_arguments_as_numpy(name: str, dtype: str, binary: dict[str, Callable[..., Any]]) -> None:
    function = {"pow": np.power, "atan2": np.arctan2}.get(name) or getattr(np, name)
    values = np.array([0.0, -0.0, 1, -1, 0.5, -0.5, 2, 3, -3, 2.5, np.inf, -np.inf, np.nan, 7, -7, 1001, 0.1, 1e-45])
    x, y = (side.ravel().astype(NUMPY_NAME[dtype]) for side in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = function(x, y)
    got = binary[f"{name}_{dtype}"](x, y)
    for a, b, value, wanted in zip(x, y, got, expected, strict=True):
        quotient = abs(float(a)) > 2.0**52 * abs(float(b))
        assert (name == "fmod" or name == "mod") and quotient or same(value, wanted, 4), f"{name}({a!r}, {b!r})"


@pytest.mark.parametrize(("dtype", "bound"), [("f32", 0.6), ("f64", 1.1)])
def test_pow_is_accurate(dtype: str, bound: float, binary: dict[str, Callable[..., Any]]) -> None:
    x = np.concatenate([uniform(0.9, 1.1, 600), abs(spread(1e-20, 1e20, 300))]).astype(NUMPY_NAME[dtype])
    y = np.concatenate([uniform(-800, 800, 600), uniform(-1.9, 1.9, 600)]).astype(NUMPY_NAME[dtype])
    with mpmath.workprec(140):
        exact = [mpmath.mpf(float(a)) ** mpmath.mpf(float(b)) for a, b in zip(x, y, strict=True)]
        assert units_in_last_place(binary[f"pow_{dtype}"](x, y), exact).max() <= bound


INT_OPERATORS = {"//": np.floor_divide, "%": np.remainder, "<<": np.left_shift, ">>": np.right_shift, "/": np.divide}


def int_samples(dtype: str) -> tuple[Any, Any]:
    info, rng = np.iinfo(NUMPY_NAME[dtype]), np.random.default_rng(3)
    negative = [-1, -2, -7] if info.min < 0 else []
    corners = np.array([0, 1, 2, 3, 7, info.max, info.min, info.max - 1, info.min + 1, *negative], NUMPY_NAME[dtype])
    x, y = (side.ravel() for side in np.meshgrid(corners, corners))
    draw = [rng.integers(info.min, info.max, 2000, NUMPY_NAME[dtype]) for _ in range(2)]
    return np.concatenate([x, draw[0], draw[0]]), np.concatenate([y, draw[1], (draw[1] % 50).astype(x.dtype)])


@pytest.mark.parametrize("dtype", INTS)
def test_integer_operators_are_numpys_and_never_trap(dtype: str) -> None:
    names = dict(zip(INT_OPERATORS, ("div", "mod", "shl", "shr", "true"), strict=True))
    cases = {names[op]: (f"{{0}} {op} {{1}}", (dtype, dtype), "f64" if op == "/" else dtype) for op in names}
    unary_text = {"third": "{0} // 3 + {0} % 7", "absolute": "abs({0})", "sign": "sign({0})", "negative": "-{0} + ~{0}"}
    compiled = compile_cases(cases | {name: (text, (dtype,), dtype) for name, text in unary_text.items()})
    x, y = int_samples(dtype)
    with np.errstate(all="ignore"):
        for op, function in INT_OPERATORS.items():
            expected = function(x, y)
            got = compiled[names[op]](x, y).astype(expected.dtype)
            assert np.array_equal(got, expected, equal_nan=op == "/"), op
        assert np.array_equal(compiled["third"](x), x // x.dtype.type(3) + x % x.dtype.type(7))
        assert np.array_equal(compiled["absolute"](x), np.abs(x))
        assert np.array_equal(compiled["sign"](x), np.sign(x))
        assert np.array_equal(compiled["negative"](x), -x + ~x)


def test_integer_power_wraps() -> None:
    power = compile_cases({f"pow_{d}": ("{0} ** {1}", (d, d), d) for d in ("i8", "i32", "u64")})
    for dtype in ("i8", "i32", "u64"):
        x, y = int_samples(dtype)
        y = (y % 70).astype(x.dtype)
        assert np.array_equal(power[f"pow_{dtype}"](x, y), x**y)


def test_conversions() -> None:
    dtypes = ("f32", "f64", "i8", "i32", "i64", "u8", "u32", "u64", "bool")
    convert = compile_cases({f"{a}_{b}": ("{0}", (a,), b) for a in dtypes for b in dtypes})
    x = np.array([0, 1, 2, 100, 5])
    for a in dtypes:
        for b in dtypes:
            given = x.astype(NUMPY_NAME[a])
            assert np.array_equal(convert[f"{a}_{b}"](given), given.astype(NUMPY_NAME[b])), (a, b)
    assert convert["f64_i8"](np.array([300.0, -300.0, np.nan, -3.7])).tolist() == [127, -128, 0, -3]
    assert convert["f32_i64"](np.array([np.inf, -np.inf])).tolist() == [2**63 - 1, -(2**63)]
    assert convert["f64_bool"](np.array([0.0, -0.0, np.nan, 0.1])).tolist() == [False, False, True, True]


def test_expressions() -> None:
    nan = float("nan")
    x, y = np.array([1.5, -2.0, nan, 0.0]), np.array([0.5, nan, 1.0, -0.0])
    rows: list[tuple[Case, Any]] = [
        (("{0} if {0} > 0.0 else 0.0", ("f64",), "f64"), [1.5, 0.0, 0.0, 0.0]),
        (("1.0 if {0} > 0.0 else 0.0", ("f32",), "f32"), [1.0, 0.0, 0.0, 0.0]),
        (("maximum({0}, {1})", ("f64", "f64"), "f64"), [1.5, nan, nan, 0.0]),
        (("{0} != {1}", ("f64", "f64"), "bool"), [True, True, True, False]),
        (("{0} == {1}", ("f64", "f64"), "bool"), [False, False, False, True]),
        (("not isnan({0}) and {0} > -1.0", ("f64",), "bool"), [True, False, False, True]),
        (("0.0 < {0} < 2.0", ("f64",), "bool"), [True, False, False, False]),
        (("{0} ** 2 + 2.0 * math.pi", ("f64",), "f64"), [2.25 + 2 * np.pi, 4 + 2 * np.pi, nan, 2 * np.pi]),
        (("where({0} < 0.0, -{0}, math.inf)", ("f64",), "f64"), [np.inf, 2.0, np.inf, np.inf]),
        (("i32({0}) << 2", ("f64",), "i32"), [4, -8, 0, 0]),
    ]
    compiled = compile_cases({f"row{i}": case for i, (case, _) in enumerate(rows)})
    for i, (case, expected) in enumerate(rows):
        with np.errstate(all="ignore"):
            got = compiled[f"row{i}"](*(x, y)[: len(case[1])])
        keep = ~np.isnan(x) if "i32" in case[0] else slice(None)
        np.testing.assert_array_equal(got[keep], np.array(expected)[keep], err_msg=case[0])


def test_unknown_names_and_statements_are_refused() -> None:
    with pytest.raises(NameError, match="no function 'nonsense' on f32"):
        Emitter().expression([], "nonsense({0})", [("%x", "f32")], "f32")
    with pytest.raises(TypeError, match="unsupported expression"):
        Emitter().expression([], "[{0}]", [("%x", "f32")], "f32")


def test_constants() -> None:
    emitter = Emitter()
    assert emitter.constant(0.1, "f32") == "0x3FB99999A0000000"
    assert emitter.constant(float("-inf"), "f64") == "0xFFF0000000000000"
    assert emitter.constant(float("nan"), "f32") == "0x7FF8000000000000"
    assert emitter.constant(2**32 - 1, "u32") == "-1"
    assert emitter.constant(1, "bool") == "true"


def test_threefry_known_answers() -> None:
    """The vectors of Random123 for Threefry-2x32 with 20 rounds."""
    pi = (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3)
    answers = {
        (0, 0, 0, 0): (0x6B200159, 0x99BA4EFE),
        (0xFFFFFFFF,) * 4: (0x1CB996FC, 0xBB002BE7),
        pi: (0xC4923A9C, 0x483DF7A0),
    }
    words = ", ".join(f"{{{i}}}" for i in range(4))
    cases: dict[str, Case] = {f"word{i}": (f"threefry2x32_{i}({words})", ("u32",) * 4, "u32") for i in (0, 1)}
    cases["single"] = ("uniform_f32({0})", ("u32",), "f32")
    cases["double"] = ("uniform_f64({0}, {1})", ("u32", "u32"), "f64")
    compiled = compile_cases(cases)
    columns = np.array(list(answers), np.uint32).T
    got = [compiled["word0"](*columns).tolist(), compiled["word1"](*columns).tolist()]
    assert list(zip(*got, strict=True)) == list(answers.values())
    with np.errstate(over="ignore"):
        assert maths_random.threefry2x32(*[np.uint32(w) for w in pi]) == answers[pi]
    top = np.array([0, 0xFFFFFFFF], np.uint32)
    assert compiled["single"](top).tolist() == [0.0, 1 - 2.0**-24]
    assert compiled["double"](top, top).tolist() == [0.0, 1 - 2.0**-53]


def test_loops_vectorise() -> None:
    """Every f32 function stays in vector registers: no call, no branch, no scalar loop only."""
    cases = {symbol: case for symbol, case in UNARY_CASES.items() if symbol.endswith("_f32")}
    cases |= {f"{name}_f32": (f"{name}({{0}}, {{1}})", ("f32", "f32"), "f32") for name in PAIRS}
    cases |= {"divide": ("{0} // {1}", ("i32", "i32"), "i32"), "relu": ("maximum({0}, 0.0)", ("f32",), "f32")}
    llvm.initialize_native_target()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), opt=3)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    parsed = llvm.parse_assembly(module(cases))
    builder.getModulePassManager().run(parsed, builder)
    for symbol in cases:
        text = str(parsed.get_function(symbol))
        assert "vector.body:" in text, symbol
        assert "@tg." not in text, symbol


def test_numba_compiles_the_same_text() -> None:
    namespace = numba_namespace(numba.njit(error_model="numpy"))
    text = "math.tanh(x) + math.erf(x) * math.sin(x) + (math.pow(x, 1.5) if x > 0.0 else math.log1p(-x)) + sign(x)"
    compiled: Any = numba.njit(eval(f"lambda x: {text}", namespace))
    for x in (0.7, -0.3):
        plain = eval(text, reference_namespace(), {"x": np.float64(x)})
        assert abs(compiled(x) - plain) < 1e-14


def test_text_is_made_once_and_renamed() -> None:
    emitter, first, second = Emitter(), [], []
    emitter.expression(first, "math.exp({0}) * {0}", [("%x", "f32")], "f32")
    emitter.expression(second, "math.exp({0}) * {0}", [("%y", "f32")], "f32")
    assert first == [
        "  %s1.0 = call float @tg.exp_f32.f32(float %x)",
        "  %s1.1 = fmul contract float %s1.0, %x",
    ]
    assert second[1] == "  %s2.1 = fmul contract float %s2.0, %y"
    assert emitter.definitions().count("define internal float @tg.exp_f32.f32") == 1
