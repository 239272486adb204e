"""The transforms of Winograd's convolutions, as finished LLVM vector code: L X L^T for many small matrices at once.

A vector holds one element of as many matrices as it has lanes (channels lie side by side), so a transform is additions
and multiplications of whole vectors.  Points come in pairs p, -p: what two rows share is computed once.

    transform(source, row, column, step, target, target_row, target_column, target_step, count, probe)


Element (r, q) of matrix i is the vector at source + r*row + q*column + i*step; all are in bytes, and may be negative.
At `probe`, a vector becomes NaN where a result is NaN or inf (`PROBED` transforms: those whose results are final).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from tracegrad.codegen.addresses import I32, I64, KERNEL_TYPES, POINTER, loader, storer
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.tile import Lanes, offset, part_function, part_intrinsic, part_module, word
from tracegrad.codegen.tile_moves import swap_blocks
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_matrices import Matrix, input_matrix, output_matrix, transposed, weight_matrix

MATRICES: dict[str, Callable[[int], Matrix]] = {
    "input": input_matrix,
    "weight": weight_matrix,
    "output": output_matrix,
    "ct": lambda m: transposed(output_matrix(m)),
    "fold": lambda m: transposed(weight_matrix(m)),
}
PROBED = ("output", "fold")
ARGUMENTS = 10


class VectorSums:
    """Writes weighted sums of vectors."""

    def __init__(self, builder: ir.IRBuilder, lanes: Lanes):
        self.builder = builder
        self.lanes = lanes

    def weighted(self, terms: list[tuple[float, ir.Value]]) -> ir.Value | None:
        """Return the sum of factor * vector, None if there is none; factors of one cost no multiplication."""
        terms = sorted((t for t in terms if t[0]), key=lambda t: t[0] != 1.0)
        total = None
        for factor, vector in terms:
            if total is None:
                total = vector if factor == 1.0 else self.builder.fmul(self.constant(factor), vector)
            elif factor == 1.0:
                total = self.builder.fadd(total, vector)
            elif factor == -1.0:
                total = self.builder.fsub(total, vector)
            else:
                total = self.lanes.fma(self.builder, self.constant(factor), vector, total)
        return total

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.lanes.type, [value] * self.lanes.count)

    def apply(self, matrix: Matrix, vectors: list[ir.Value]) -> list[ir.Value]:
        """Return matrix @ vectors; rows or columns 1 and 2, 3 and 4, ... belong to a point and its negative."""
        is_by_row = len(matrix) > len(matrix[0]) or len(matrix) == len(vectors)
        return self._by_row(matrix, vectors) if is_by_row else self._by_column(matrix, vectors)

    def _by_row(self, matrix: Matrix, vectors: list[ir.Value]) -> list[ir.Value]:
        found: list[Any] = [self.weighted(list(zip(matrix[0], vectors, strict=True)))]
        for first, second in zip(matrix[1:-1:2], matrix[2:-1:2], strict=True):
            rows = list(zip(first, second, vectors, strict=True))
            same = self.weighted([(a, v) for a, b, v in rows if a == b])
            opposite = self.weighted([(a, v) for a, b, v in rows if a == -b])
            found += [self.builder.fadd(same, opposite), self.builder.fsub(same, opposite)]
        return [*found, self.weighted(list(zip(matrix[-1], vectors, strict=True)))]

    def _by_column(self, matrix: Matrix, vectors: list[ir.Value]) -> list[ir.Value]:
        pairs = [(k, k + 1) for k in range(1, len(vectors) - 1, 2)]
        sums = {k: self.builder.fadd(vectors[k], vectors[n]) for k, n in pairs}
        differences = {k: self.builder.fsub(vectors[k], vectors[n]) for k, n in pairs}
        found: list[Any] = []
        for row in matrix:
            terms = [(row[0], vectors[0]), (row[-1], vectors[-1])]
            terms += [(row[k], sums[k] if row[k] == row[n] else differences[k]) for k, n in pairs]
            found.append(self.weighted(terms))
        return found


def transform_name(bits: int, kind: str, m: int) -> str:
    """Return the symbol of a transform."""
    return f"tg_winograd_{kind}{m}_f{bits}"


def transform_part(bits: int, shape: TileShape, kind: str, m: int) -> ir.Module:
    """Return the module that defines a transform."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    name = transform_name(bits, kind, m)
    module = part_module(name)
    function = part_function(module, name, ARGUMENTS)
    matrix = MATRICES[kind](m)
    entry, loop, done = (function.append_basic_block(x) for x in ("entry", "loop", "done"))
    source, row, column, step, target, target_row, target_column, target_step, count, probe = function.args
    head = ir.IRBuilder(entry)
    starts = [head.inttoptr(x, POINTER) for x in (source, target)]
    places = [[head.mul(word(k), x) for k in range(m + 2)]
              for x in (row, column, target_row, target_column)]  # fmt: skip
    head.branch(loop)
    builder = ir.IRBuilder(loop)
    i, seen = builder.phi(I64), builder.phi(lanes.type)
    x, y = (builder.phi(POINTER) for _ in starts)
    for value, start in zip((i, seen, x, y), (word(0), lanes.zero, *starts), strict=True):
        value.add_incoming(start, entry)
    vectors = VectorSums(builder, lanes)
    size_in, size_out = len(matrix[0]), len(matrix)
    half = []
    for q in range(size_in):
        loaded = [lanes.load(builder, offset(builder, x, places[0][r], places[1][q])) for r in range(size_in)]
        half.append(vectors.apply(matrix, loaded))
    results = []
    for r in range(size_out):
        for q, value in enumerate(vectors.apply(matrix, [column[r] for column in half])):
            lanes.store(builder, value, offset(builder, y, places[2][r], places[3][q]))
            results.append(value)
    after = seen
    if kind in PROBED:
        after = lanes.fma(builder, _total(builder, results), lanes.zero, seen)
    following = builder.add(i, word(1))
    x_step, y_step = offset(builder, x, step), offset(builder, y, target_step)
    for value, after_ in zip((i, seen, x, y), (following, after, x_step, y_step), strict=True):
        value.add_incoming(after_, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    tail = ir.IRBuilder(done)
    if kind in PROBED:
        place = tail.inttoptr(probe, POINTER)
        lanes.store(tail, tail.fadd(lanes.load(tail, place), after), place)
    tail.ret_void()
    return module


def _total(builder: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
    """Return the sum of vectors, as a tree."""
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        values = [builder.fadd(a, b) for a, b in pairs] + values[len(values) // 2 * 2 :]
    return values[0]


def transform_intrinsic(bits: int, kind: str, m: int) -> Any:
    """Return the intrinsic transform(source, row, column, step, target, row, column, step, count, probe)."""

    return part_intrinsic(transform_name(bits, kind, m), ARGUMENTS)


def probing(bits: int, shape: TileShape) -> Any:
    """Return the kernel is_finite(probe, count): whether the first lanes of a probe have no NaN; it is cleared.

    The lanes behind the last map hold whatever the memory held.
    """
    dtype = f"float{bits}"
    load = loader(dtype)
    store = storer(dtype)
    zero = KERNEL_TYPES[dtype](0)
    lanes = shape.lanes(bits // 8)

    @kernel
    def is_finite(probe: int, count: int) -> int:
        total = zero
        for i in range(count):
            total += load(probe, i)
        for i in range(lanes):
            store(probe, i, zero)
        return 1 if total == zero else 0

    return is_finite


def turn_name(bits: int) -> str:
    """Return the symbol of the transpose into an array."""
    return f"tg_winograd_turn_f{bits}"


def turn_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines turn(source, pitch, count, rows, target, target_pitch).

        target[i * target_pitch + j] = source[j * pitch + i]         i < rows <= lanes, j < count <= lanes

    Nothing else is written; `lanes` rows of the source are read.  Fewer than `lanes` elements go in halves: stores
    with masks are slow on AVX2.
    """
    lanes = Lanes(bits, shape.lanes(bits // 8))
    module = part_module(turn_name(bits))
    function = part_function(module, turn_name(bits), 6)
    source, pitch, count, rows, target, target_pitch = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    start, end = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)
    loaded = [lanes.load(builder, offset(builder, start, builder.mul(word(j), pitch))) for j in range(lanes.count)]
    vectors = swap_blocks(builder, lanes, loaded)
    last = builder.sub(rows, word(1))
    places = []
    for i in range(lanes.count):  # rows that are none go where the last one is then written
        row = builder.select(builder.icmp_signed("<", word(i), last), word(i), last)
        places.append(offset(builder, end, builder.mul(row, target_pitch)))
    whole, part = (function.append_basic_block(x) for x in ("whole", "part"))
    builder.cbranch(builder.icmp_signed(">=", count, word(lanes.count)), whole, part)
    builder.position_at_end(whole)
    for vector, place in reversed(list(zip(vectors, places, strict=True))):
        lanes.store(builder, vector, place)
    builder.ret_void()
    builder.position_at_end(part)
    _emit_halves(function, builder, lanes, count, vectors, places)
    return module


def _emit_halves(
    function: ir.Function,
    builder: ir.IRBuilder,
    lanes: Lanes,
    count: ir.Value,
    vectors: list[ir.Value],
    places: list[ir.Value],
) -> None:
    """Store the first `count` elements of each vector: a half if its bit of count is set, and go on with the rest."""
    half = lanes.count // 2
    while half:
        before = builder.block
        some, after = (function.append_basic_block(x) for x in ("some", "after"))
        builder.cbranch(builder.icmp_signed("!=", builder.and_(count, word(half)), word(0)), some, after)
        builder.position_at_end(some)
        low = ir.Constant(ir.VectorType(I32, half), list(range(half)))
        down = ir.Constant(ir.VectorType(I32, lanes.count), [(i + half) % lanes.count for i in range(lanes.count)])
        moved: list[ir.Value] = []
        further: list[ir.Value] = []
        for vector, place in reversed(list(zip(vectors, places, strict=True))):
            builder.store(builder.shuffle_vector(vector, vector, low), place, align=lanes.item_size)
            moved.insert(0, builder.shuffle_vector(vector, vector, down))
            further.insert(0, offset(builder, place, word(half * lanes.item_size)))
        builder.branch(after)
        builder.position_at_end(after)
        vectors = [_either(builder, a, before, b, some) for a, b in zip(vectors, moved, strict=True)]
        places = [_either(builder, a, before, b, some) for a, b in zip(places, further, strict=True)]
        half //= 2
    builder.ret_void()


def _either(builder: ir.IRBuilder, a: ir.Value, from_a: ir.Block, b: ir.Value, from_b: ir.Block) -> ir.Value:
    value = builder.phi(a.type)
    value.add_incoming(a, from_a)
    value.add_incoming(b, from_b)
    return value


def turn_intrinsic(bits: int) -> Any:
    """Return the intrinsic turn(source, pitch, count, rows, target, target_pitch), strides in bytes."""

    return part_intrinsic(turn_name(bits), 6)
