"""Wrong programs and their exact messages.

HERE stands for this file and the line marked with `# <-`, ELSEWHERE for another line of this file.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.nn import functional as F

X = np.ones((64, 10), np.float32)
W = np.ones(3)
ROWS: list[tuple[str, Callable[[], Any], str]] = []


def wrong(expected: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add a program and the text of its error to the table."""

    def add(program: Callable[[], Any]) -> Callable[[], Any]:
        ROWS.append((program.__name__, program, inspect.cleandoc(expected)))
        return program

    return add


def marked_line(program: Callable[[], Any]) -> int:
    """Return the number of the line that the message must name."""
    lines, first = inspect.getsourcelines(program)
    (found,) = [number for number, line in enumerate(lines, first) if line.rstrip().endswith("# <-")]
    return found


def normalised(error: BaseException, program: Callable[[], Any]) -> str:
    """Return the message with the marked line of this file written as HERE, any other of its lines as ELSEWHERE."""
    file = re.escape(Path(__file__).name)
    text = re.sub(rf"{file}:{marked_line(program)}\b", "HERE", str(error))
    return re.sub(rf"{file}:\d+", "ELSEWHERE", text)


# --- shapes, axes and indices -----------------------------------------------------------------------------------------


@wrong(
    """
    matmul: f32[64, 10] @ f32[12, 5] at HERE: the inner sizes 10 and 12 differ
      fix: transpose one side, or check the layer sizes on that line
    """
)
def matmul_sizes() -> None:
    tg.jit(lambda x, w: x @ w)(X, np.ones((12, 5), np.float32))  # <-


@wrong(
    """
    matmul: f32[64, 10] @ f32[12, 5] at HERE: the inner sizes 10 and 12 differ
      fix: transpose one side, or check the layer sizes on that line
    """
)
def matmul_sizes_inside_a_gradient() -> None:
    def loss(w: Any, x: Any) -> Any:
        return np.mean((x @ w) ** 2)  # <-

    tg.grad(loss)(np.ones((12, 5), np.float32), X)


@wrong(
    """
    conv2d at HERE: x f64[1, 3, 8, 8] has 3 channels but w f64[4, 2, 3, 3] expects 2
      fix: check in_channels, or transpose x to channels first
    """
)
def conv_channels() -> None:
    tg.jit(lambda x, w: F.conv2d(x, w))(np.ones((1, 3, 8, 8)), np.ones((4, 2, 3, 3)))  # <-


@wrong(
    """
    conv2d at HERE: the kernel of w f64[4, 3, 3, 3] (dilation (1, 1)) is larger than x f64[1, 3, 2, 2] padded by ((0, 0), (0, 0))
      fix: use a smaller kernel or more padding: size + low + high must reach dilation * (kernel - 1) + 1
    """
)
def conv_kernel_larger_than_input() -> None:
    tg.jit(lambda x, w: F.conv2d(x, w))(np.ones((1, 3, 2, 2)), np.ones((4, 3, 3, 3)))  # <-


@wrong(
    """
    add at HERE: f32[64, 10] and f32[3] cannot be broadcast together
      fix: make the sizes equal or 1, for instance with x[:, None] or x.reshape(...)
    """
)
def broadcast_sizes() -> None:
    tg.jit(lambda x, b: x + b)(X, np.ones(3, np.float32))  # <-


@wrong(
    """
    sum at HERE: axis 2 does not exist in f32[64, 10]
      fix: use an axis from -2 to 1
    """
)
def unknown_axis() -> None:
    tg.jit(lambda x: np.sum(x, axis=2))(X)  # <-


@wrong(
    """
    reshape at HERE: f32[64, 10] has 640 elements but (7, 3) has 21
      fix: use -1 for one axis, or check the sizes
    """
)
def reshape_sizes() -> None:
    tg.jit(lambda x: x.reshape(7, 3))(X)  # <-


@wrong(
    """
    einsum: f32[64, 10] and f32[64, 10] at HERE: a letter has the sizes 10 and 64
      fix: check the subscripts
    """
)
def einsum_sizes() -> None:
    tg.jit(lambda x: np.einsum("ij,jk->ik", x, x))(X)  # <-


@wrong(
    """
    index at HERE: 70 is out of bounds for axis 0 of size 64 of f32[64, 10]
      fix: use indices from -64 to 63
    """
)
def static_index() -> None:
    tg.jit(lambda x: x[70])(X)  # <-


@wrong(
    """
    index at HERE: an index is out of bounds for an axis of size 64
      fix: use indices from -64 to 63
    """
)
def dynamic_index_in_compiled_code() -> None:
    def pick(x: Any, i: Any) -> Any:
        return x[i]  # <-

    tg.jit(pick)(X, np.array([1, 70]))


@wrong(
    """
    index at HERE: index 70 is out of bounds for an axis of size 64
      fix: use indices from -64 to 63
    """
)
def dynamic_index_in_eager_mode() -> None:
    with tg.eager():
        tg.grad(lambda x, i: x[i].sum())(X, np.array([1, 70]))  # <-


@wrong(
    """
    max at HERE: f64[0] is empty along (0,), so it has no largest or smallest element
      fix: check the shape first, or concatenate a starting value
    """
)
def maximum_of_nothing() -> None:
    tg.jit(lambda x: x.max())(np.ones((0,)))  # <-


# --- values and dtypes ------------------------------------------------------------------------------------------------


@wrong(
    """
    asarray at HERE: the rows of a nested list differ in length
      fix: pad the rows to one length, or pass one array
    """
)
def ragged_list() -> None:
    tg.jit(lambda x: tnp.asarray([[1.0, 2.0], [3.0]]) + x)(X)  # <-


@wrong(
    """
    sum at HERE: the rows of a list have the shapes (1,) and (2,)
      fix: make every row of the list as long as the others
    """
)
def ragged_argument() -> None:
    tg.jit(lambda x: tnp.sum(x))([[1.0, 2.0], [3.0]])  # <-


@wrong(
    """
    argument x has dtype object at HERE: it holds Python objects, not numbers
      fix: build it with a numeric dtype, for instance np.asarray(x, dtype=np.float32)
    """
)
def object_array() -> None:
    tg.jit(lambda x: x)(np.array([1, None]))  # <-


@wrong(
    """
    add: an operand of shape (2,) has dtype object at HERE: it holds Python objects, not numbers
      fix: build it with a numeric dtype, for instance np.asarray(x, dtype=np.float32)
    """
)
def captured_object_array() -> None:
    table = np.array([1, None])
    tg.jit(lambda x: x + table)(X)  # <-


@wrong(
    """
    argument mode at HERE: 'fast' is a string, not an array
      fix: name it in static=, for instance tg.jit(fn, static=('mode',))
    """
)
def string_argument() -> None:
    tg.jit(lambda x, mode: x)(X, "fast")  # <-


@wrong(
    """
    the result of main at HERE: a value of type str is not an array, a number or a traced value
      fix: pass np.asarray(x, dtype=np.float32) or a number
    """
)
def string_result() -> None:
    tg.jit(lambda x: "done")(X)  # <-


@wrong(
    """
    add at HERE: a value of type NoneType is not an array, a number or a list of them
      fix: pass np.asarray(x, dtype=np.float32) or a number
    """
)
def none_operand() -> None:
    tg.jit(lambda x: tnp.add(x, None))(X)  # <-


@wrong(
    """
    argument x at HERE: a value of type set is not an array, a number or a pytree of them
      fix: pass an array, or name the argument in static=('x',)
    """
)
def set_argument() -> None:
    tg.jit(lambda x: x)({1, 2})  # <-


@wrong(
    """
    argument x has dtype complex128 at HERE: complex numbers are not supported
      fix: pass x.real and x.imag as two arrays
    """
)
def complex_array() -> None:
    tg.jit(lambda x: x)(np.ones(3, complex))  # <-


@wrong(
    """
    multiply at HERE: a value of type complex is not an array, a number or a list of them
      fix: pass np.asarray(x, dtype=np.float32) or a number
    """
)
def complex_number() -> None:
    tg.jit(lambda x: x * 1j)(X)  # <-


@wrong(
    """
    argument x has dtype float128 at HERE: it is not one of bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64
      fix: convert it with x.astype(np.float32)
    """
)
def longdouble_array() -> None:
    tg.jit(lambda x: x)(np.ones(3, np.longdouble))  # <-


@wrong(
    """
    astype: the result has dtype float128 at HERE: it is not one of bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64
      fix: convert it with x.astype(np.float32)
    """
)
def longdouble_conversion() -> None:
    tg.jit(lambda x: x.astype(np.longdouble))(X)  # <-


@wrong(
    """
    argument x has dtype >f4 at HERE: its bytes are not in this machine's order
      fix: convert it once with x.astype(x.dtype.newbyteorder('='))
    """
)
def foreign_byte_order() -> None:
    tg.jit(lambda x: x)(np.ones(3, ">f4"))  # <-


@wrong(
    """
    argument x at HERE: a masked array would lose its mask
      fix: pass x.filled(0.0), and the mask beside it
    """
)
def masked_array() -> None:
    tg.jit(lambda x: x)(np.ma.masked_array([1.0, 2.0], [True, False]))  # <-


@wrong(
    """
    argument x at HERE: a masked array would lose its mask
      fix: pass x.filled(0.0), and the mask beside it
    """
)
def masked_array_for_a_compiled_program() -> None:
    program = tg.compile(lambda x: x.sum(), tg.spec(2))
    program(np.ma.masked_array([1.0, 2.0], [True, False]))  # <-


@wrong(
    """
    spec at HERE: the shape (2, -1) has a negative size
      fix: pass sizes of 0 or more
    """
)
def negative_size() -> None:
    tg.compile(lambda x: x + 1.0, tg.spec((2, -1)))  # <-


@wrong(
    """
    spec at HERE: the shape (1.5, 2) does not hold integers
      fix: pass a tuple of integers
    """
)
def fractional_size() -> None:
    tg.compile(lambda x: x + 1.0, tg.spec((1.5, 2)))  # <-


@wrong(
    """
    index at HERE: an index is out of bounds for an axis of size 0
      fix: the axis is empty
    """
)
def index_of_an_empty_array() -> None:
    tg.jit(lambda x, i: x[i])(np.ones(0), 0)  # <-


@wrong(
    """
    argmax at HERE: f64[0] is empty along axis 0
      fix: check the shape first
    """
)
def largest_of_nothing() -> None:
    tg.jit(lambda x: x.argmax())(np.ones(0))  # <-


@wrong(
    """
    pickle at HERE: <lambda> is a compiled program
      fix: save it with program.save(path), and tg.load(path)
    """
)
def pickled_program() -> None:
    program = tg.compile(lambda x: x + 1.0, tg.spec(2))
    assert copy.deepcopy(program) is program
    pickle.dumps(program)  # <-


@wrong(
    """
    argument x at HERE: an np.matrix would lose its matrix product *
      fix: pass np.asarray(x), and write x @ y for products
    """
)
def matrix() -> None:
    tg.jit(lambda x: x * x)(np.eye(2).view(np.matrix))  # <-


@wrong(
    """
    add at HERE: the number 300 does not fit i8
      fix: convert the array to a wider dtype first, for instance x.astype(np.int64)
    """
)
def number_that_does_not_fit() -> None:
    tg.jit(lambda x: x + 300)(np.ones(3, np.int8))  # <-


@wrong(
    """
    conv2d at HERE: x f64[1, 3, 8, 8] and w f32[4, 3, 3, 3] must have one floating-point dtype
      fix: convert with x.astype(...)
    """
)
def conv_dtypes() -> None:
    tg.jit(lambda x, w: F.conv2d(x, w))(np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3), np.float32))  # <-


@wrong(
    """
    index at HERE: f64[3] is not integer or bool
      fix: convert it with i.astype(np.int64)
    """
)
def float_index() -> None:
    tg.jit(lambda x, i: x[i])(X, np.ones(3))  # <-


@wrong(
    """
    bitwise_and at HERE: f32[64, 10] and i64 are not integers
      fix: convert them with x.astype(np.int64)
    """
)
def float_bits() -> None:
    tg.jit(lambda x: x & 1)(X)  # <-


@wrong(
    """
    spec at HERE: 'flaot32' is not a dtype
      fix: pass one, for instance np.float32
    """
)
def unknown_dtype() -> None:
    tg.spec(3, "flaot32")  # <-


# --- traced values ----------------------------------------------------------------------------------------------------


@wrong(
    """
    a traced value f32[64, 10] was used after its function had been traced (it was made at ELSEWHERE) at HERE
      fix: return it from the function instead of storing it in a global, a list or an attribute
    """
)
def kept_after_tracing() -> None:
    kept: list[Any] = []
    tg.jit(lambda x: kept.append(x * 2) or x)(X)
    kept[0] + 1  # <-


@wrong(
    """
    a traced value f32[64, 10] was used after its function had been traced (it was made at ELSEWHERE) at HERE
      fix: return it from the function instead of storing it in a global, a list or an attribute
    """
)
def kept_and_passed_as_an_argument() -> None:
    kept: list[Any] = []
    tg.jit(lambda x: kept.append(x * 2) or x)(X)
    tg.jit(lambda x: x)(kept[0])  # <-


@wrong(
    """
    comprehension at HERE: it keeps elements on a traced condition, so its length is not known while tracing
      fix: use np.where(condition, x, 0.0) for the elements, or a `for` with an `if` inside
    """
)
def truth_of_a_traced_value() -> None:
    def clip(x: Any) -> Any:
        return [row for row in x if row.sum() > 0]  # <-

    tg.jit(clip)(X)


@wrong(
    """
    if at HERE: y is f32 in one branch and f32[64, 10] in the other
      fix: give it the same structure, shape and dtype in both branches
    """
)
def branches_of_two_shapes() -> None:
    def clip(x: Any) -> Any:
        y = x
        if x.sum() > 0:  # <-
            y = x.sum()
        return y

    tg.jit(clip)(X)


@wrong(
    """
    int at HERE: f32[10] is not one number
      fix: use x.astype(np.int64)
    """
)
def int_of_a_traced_array() -> None:
    tg.jit(lambda x: x * int(x[0]))(X)  # <-


@wrong(
    """
    an integer of a traced value i64 is not known while tracing at HERE
      fix: index a traced array (tnp.asarray(table)[i]), or make the argument static
    """
)
def range_of_a_traced_value() -> None:
    tg.jit(lambda x, n: sum(x for _ in range(n)))(X, 3)  # <-


@wrong(
    """
    a traced value f32[64, 10] cannot be turned into a NumPy array while tracing at HERE
      fix: use a function of tracegrad.numpy, or tnp.zeros(n), np.zeros_like(x) for an array to fill
    """
)
def numpy_array_of_a_traced_value() -> None:
    tg.jit(lambda x: np.ma.asarray(x))(X)  # <-


@wrong(
    """
    formatting of a traced value f32[64, 10] is not known while tracing at HERE
      fix: format the value outside the traced function, or run in tg.eager()
    """
)
def format_of_a_traced_value() -> None:
    tg.jit(lambda x: f"{x:.3f}")(X)  # <-


@wrong(
    """
    len() of a scalar at HERE: a traced scalar has no length
      fix: check the shape of the argument
    """
)
def length_of_a_traced_scalar() -> None:
    tg.jit(lambda x: len(x.sum()))(X)  # <-


@wrong(
    """
    item assignment at HERE: it would change the argument x in place, and a traced function cannot do that
      fix: change a copy, x = x.copy(), and return it
    """
)
def item_assignment() -> None:
    def zero_first(x: Any) -> Any:
        x[0] = 0.0  # <-
        return x

    tg.jit(zero_first)(X)


@wrong(
    """
    item assignment at HERE: it would change the argument y in place, and a traced function cannot do that
      fix: change a copy, x = x.copy(), and return it
    """
)
def out_argument() -> None:
    tg.jit(lambda x, y: np.sin(x, out=y))(X, X)  # <-


@wrong(
    """
    numpy.i0 has no traced version at HERE
      fix: write it with the functions of tracegrad.numpy, or open an issue
    """
)
def function_without_a_traced_version() -> None:
    tg.jit(lambda x: np.i0(x))(X)  # <-


@wrong(
    """
    numpy.unique at HERE: the size of its result depends on values, which are not known while tracing
      fix: use np.where(mask, x, 0), or np.sort(x), and reductions, or call it outside the traced function
    """
)
def function_of_unknown_size() -> None:
    tg.jit(lambda x: np.unique(x))(X)  # <-


# --- compiled programs ------------------------------------------------------------------------------------------------


@wrong(
    """
    donated argument w at HERE: the array is read-only
      fix: pass a copy: np.array(x)
    """
)
def read_only_donated() -> None:
    w = np.ones(3)
    w.flags.writeable = False
    step = tg.compile(lambda w, g: w - g, tg.spec(3), tg.spec(3), donate="w")
    step(w, W)  # <-


@wrong(
    """
    donated argument w shares memory with g at HERE
      fix: pass a copy of one of them
    """
)
def donated_overlaps_an_argument() -> None:
    w = np.ones(6)
    step = tg.compile(lambda w, g: w - g, tg.spec(3), tg.spec(3), donate="w")
    step(w[:3], w[1:4])  # <-


@wrong(
    """
    donated arguments w and g share memory at HERE
      fix: pass copies, or donate one of them only
    """
)
def donated_overlap_each_other() -> None:
    w = np.ones(6)
    step = tg.compile(lambda w, g: (w - g, g + 1.0), tg.spec(3), tg.spec(3), donate=("w", "g"))
    step(w[:3], w[1:4])  # <-


@wrong(
    """
    compile at HERE: donate=['v'] names no array argument of <lambda>
      fix: choose from ['w', 'g']
    """
)
def donated_name_unknown() -> None:
    tg.compile(lambda w, g: w - g, tg.spec(3), tg.spec(3), donate="v")  # <-


@wrong(
    """
    argument w at HERE: compiled for f64[3] but called with f64[4]
      fix: pass an array of that shape, or compile for this one
    """
)
def compiled_for_another_shape() -> None:
    step = tg.compile(lambda w, g: w - g, tg.spec(3), tg.spec(3))
    step(np.ones(4), W)  # <-


@wrong(
    """
    <lambda> at HERE: compiled for the arguments (p['w']) but called with (p['v'])
      fix: pass the same pytrees, or compile again
    """
)
def compiled_for_another_structure() -> None:
    step = tg.compile(lambda p: p["w"] * 2.0, {"w": tg.spec(3)})
    step({"v": W})  # <-


@wrong(
    """
    <lambda> at HERE: compiled for the arguments (w, g) but called with (w)
      fix: pass the same pytrees, or compile again
    """
)
def compiled_for_more_arguments() -> None:
    step = tg.compile(lambda w, g: w - g, tg.spec(3), tg.spec(3))
    step(W)  # <-


@wrong(
    """
    <lambda> at HERE: compiled for the static values n=2 but called with n=3
      fix: pass the same static values, or compile again
    """
)
def compiled_for_another_static_value() -> None:
    step = tg.compile(lambda w, n: w * n, tg.spec(3), 2, static="n")
    step(W, 3)  # <-


# --- calls ------------------------------------------------------------------------------------------------------------


@wrong(
    """
    <lambda> at HERE: missing a required argument 'y'
      fix: call it with the arguments (x, y)
    """
)
def too_few_arguments() -> None:
    tg.jit(lambda x, y: x + y)(X)  # <-


@wrong(
    """
    <lambda> at HERE: too many positional arguments
      fix: call it with the arguments (x)
    """
)
def too_many_arguments() -> None:
    tg.jit(lambda x: x)(X, X)  # <-


@wrong(
    """
    static argument axes at HERE: a list cannot be hashed
      fix: pass a tuple, a number or a string
    """
)
def unhashable_static() -> None:
    tg.jit(lambda x, axes: x.sum(axis=tuple(axes)), static="axes")(X, [0, 1])  # <-


@wrong(
    """
    static=('axis',) at HERE: the function has no argument axis
      fix: choose from ['x', 'axes']
    """
)
def unknown_static() -> None:
    tg.jit(lambda x, axes: x.sum(), static="axis")  # <-


@wrong(
    """
    float32 is not a function at HERE
      fix: pass a function: tg.jit(fn), not tg.jit(fn(x))
    """
)
def called_instead_of_passed() -> None:
    tg.grad(np.sum(X))  # <-


@wrong(
    """
    backend at HERE: 'tpu' is not known
      fix: use backend="cpu"
    """
)
def unknown_backend() -> None:
    tg.jit(lambda x: x, backend="tpu")(X)  # <-


# --- gradients --------------------------------------------------------------------------------------------------------


@wrong(
    """
    grad at HERE: <lambda> returns f32[64, 10], not a scalar
      fix: reduce it, for instance with .sum() or .mean(), or use tg.vjp
    """
)
def loss_that_is_no_scalar() -> None:
    tg.grad(lambda x: x * 2.0)(X)  # <-


@wrong(
    """
    grad at HERE: <lambda> returns i64, which has no gradient
      fix: return a floating-point loss
    """
)
def integer_loss() -> None:
    tg.grad(lambda x: (x > 0).sum())(X)  # <-


@wrong(
    """
    grad at HERE: <lambda> returns a structure, not one scalar
      fix: return one number, or use has_aux=True and return (loss, aux)
    """
)
def loss_with_extra_results() -> None:
    tg.grad(lambda x: (x.sum(), x))(X)  # <-


@wrong(
    """
    grad at HERE: <lambda> returns nothing, not one scalar
      fix: return one number, or use has_aux=True and return (loss, aux)
    """
)
def no_loss() -> None:
    tg.grad(lambda x: None)(X)  # <-


@wrong(
    """
    grad at HERE: the argument x is i64, and only floating-point values have gradients
      fix: convert it with x.astype(np.float32), pass a float, or leave it out of argnums (of a model with running statistics: params, buffers = nn.split(model))
    """
)
def integer_argument() -> None:
    tg.grad(lambda x: x * x)(3)  # <-


@wrong(
    """
    grad at HERE: <lambda> must return (loss, aux) when has_aux=True
      fix: return loss, aux
    """
)
def has_aux_without_aux() -> None:
    tg.grad(lambda x: x.sum(), has_aux=True)(X)  # <-


@wrong(
    """
    grad at HERE: <lambda> returns f32[64, 10], not a scalar
      fix: reduce it, for instance with .sum() or .mean(), or use tg.vjp
    """
)
def has_aux_with_a_vector() -> None:
    tg.grad(lambda x: (x, x), has_aux=True)(X)  # <-


@wrong(
    """
    grad at HERE: argnums=2 names no argument of this call of <lambda>
      fix: check argnums
    """
)
def argnums_out_of_range() -> None:
    tg.grad(lambda x: x.sum(), argnums=2)(X)  # <-


@wrong(
    """
    grad at HERE: argnums='w' names no argument of this call of <lambda>
      fix: check argnums
    """
)
def argnums_unknown_name() -> None:
    tg.grad(lambda x: x.sum(), argnums="w")(X)  # <-


@wrong(
    """
    pullback at HERE: the cotangent has shape (3,), the result is f32[64, 10]
      fix: pass a cotangent of the result's shape, for instance np.ones_like(y)
    """
)
def cotangent_of_another_shape() -> None:
    _, pull = tg.vjp(lambda x: x * 2.0, X)
    pull(np.ones(3))  # <-


@wrong(
    """
    pullback at HERE: the cotangent has the structure PyTreeSpec((*, *)), the result has PyTreeSpec(*)
      fix: pass the result's structure
    """
)
def cotangent_of_another_structure() -> None:
    _, pull = tg.vjp(lambda x: x * 2.0, X)
    pull((X, X))  # <-


@wrong(
    """
    vjp at HERE: the primal x is i64[3], and only floating-point values have gradients
      fix: convert it with x.astype(np.float32), or close over it
    """
)
def vjp_of_integers() -> None:
    tg.vjp(lambda x: x * 2.0, np.arange(3))  # <-


@wrong(
    """
    vjp at HERE: <lambda> returns i64[64, 10], and only floating-point results have cotangents
      fix: return floating-point values only, or use tg.value_and_grad with has_aux=True
    """
)
def vjp_with_integer_result() -> None:
    tg.vjp(lambda x: x.astype(np.int64), X)  # <-


# --- the table


@pytest.mark.parametrize(("program", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_message(program: Callable[[], Any], expected: str) -> None:
    with pytest.raises(tg.TracegradError) as caught:
        program()
    assert normalised(caught.value, program) == expected
    assert "HERE" in expected
    assert "\n  fix: " in expected


def test_names_are_unique() -> None:
    assert len({name for name, _, _ in ROWS}) == len(ROWS)


def test_the_users_own_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        tg.jit(lambda x: x / (1 // 0))(X)
