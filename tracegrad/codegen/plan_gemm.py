"""Plans of matrix products C[b] = A[b] @ B[b], for any strides: which kernel, how it is cut, how much scratch.

| path   | when                | why                                                                               |
| loops  | integers            | no tile for them; a row of C at a time vectorises                                 |
| narrow | few rows or columns | bound by reading the other operand: it is read once, where it lies, not packed    |
| tile   | else                | a block of C in registers                                                         |

When an operand is narrow enough (`_is_narrow`), and what it brought (GF/s of one core with AVX2, float32):

| shape     | layout of the other      | when                       | m x n x k: tile, narrow                      |
| few rows  | B in columns (x @ w.T)   | m <= 16, k >= 24 vectors   | 4 x 512 x 1024: 30, 63; 16 x 512 x 512: 59, 76 |
| few rows  | B in rows                | m <= 8, n >= 512           | 4 x 2048 x 2048: 22, 36; 2 x 4096 x 64: 12, 42 |
| few cols. | A in rows                | n < a vector, k >= 32 n    | 4096 x 3 x 512: 17, 43; 512 x 5 x 512: 29, 45  |
| few cols. | A in columns (x.T @ y)   | n < a vector, m >= 16 n    | 4096 x 3 x 512: 13, 40; 96 x 2 x 200: 10, 22   |

What the tile does, and what it brought (GF/s of one core with AVX2, float32, where the peak is 102):

| choice              | when                                      | m x n x k: without, with                       |
| B packed once       | always, for COLUMN_BLOCK columns          | 2048 cubed: 61, 72; 32 x 4096 x 1024: 24, 59   |
| A read where it is  | few tiles of columns, or A is small       | 8192 x 64 x 64: 41, 92; 16 x 16 x 1e6: 16, 53  |
| B read where it is  | rows in whole vectors, near each other    | 64 cubed: 61, 82                               |
| or across its rows  | they are short, and A has few panels      | 4 x 4 x 20000: 5, 18; 3 x 2 x 65536: 2, 7      |
| flat blocks of B    | one panel of A, B is large, its rows long | 2 x 777 x 777: 16, 21; 4 x 10000 x 300: 22, 29 |
| strips of B         | K is small: runs of C are written         | 96 x 3136 x 16: 33, 70; 32 x 3136 x 8: 17, 43  |
| A packed once       | one A for the batch, or for all columns   | 256 x 196 x 1024, 8 times: 67, 70              |
| one loop, no blocks | a batch of products that need no packing  | 2048 of 16 cubed: 33, 67; of 32 cubed: 20, 76  |
| K split             | C is small: each operand is read once     | the threads share 64 x 64 x 65536              |
| pairs summed        | the sums run over a batch, too            | no batch of products in memory                 |

A unit of work is a block of C (or a share of K, whose partial products are added at the end).  It packs what it needs
for itself, so units are independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.tile_shape import TileShape, tile_shape

# Words of the plan of a product.  A, B, C say which operand is which; strides are in elements.
BATCH, M, N, K = range(0, 4)
A, A_BATCH, A_ROW, A_COLUMN = range(4, 8)
B, B_BATCH, B_ROW, B_COLUMN = range(8, 12)
C, C_BATCH, C_ROW = range(12, 15)
ROW_BLOCKS, COLUMN_BLOCKS, K_SPLITS, TASKS = range(15, 19)
A_PITCH, B_PITCH = range(19, 21)  # elements per packed panel; 0: the operand is read where it lies
A_PANELS, N_STEP, DEPTH = range(21, 24)  # panels of A, columns of B, and terms of the sums, at a time
PACKED_B, IS_SMALL = range(24, 26)  # bytes for packed B; each product of the batch is one pass over its operands
WORK_BYTES, PARTIAL_BYTES = range(26, 28)  # scratch per thread; all partial products together
INNER, A_INNER, B_INNER = range(28, 31)  # product i of the batch has A at i // INNER * A_BATCH + i % INNER * A_INNER
STRIP = 31  # columns of B that a panel of A meets before the next panel does
KEPT_A = 32  # bytes of a k-block's packed A, all of which a thread keeps for further blocks; 0: it packs for each block
THREADS = 33  # the last words of each one's scratch say whether it has packed A
REPEATS, A_REPEAT, B_REPEAT = range(34, 37)  # the sums run over so many pairs of A and B, so far apart
B_TAIL = 37  # the last terms of the sums, where the vectors of B's short rows would reach behind it: they are packed
GEMM_WORDS = 38

# Words of the plan of a product with a narrow operand: y[b, q, p] = sum_r matrix[b, p, r] * vector[b, q, r].
V_BATCH, V_P, V_R = range(0, 3)
MATRIX, MATRIX_BATCH, MATRIX_P, MATRIX_R = range(3, 7)
VECTOR, VECTOR_BATCH, VECTOR_R = range(7, 10)
RESULT, RESULT_BATCH, RESULT_P = range(10, 13)
P_BLOCKS, R_SPLITS, V_TASKS, V_WORK_BYTES, V_PARTIAL_BYTES = range(13, 18)
V_INNER, MATRIX_INNER, VECTOR_INNER = range(18, 21)
V_Q, VECTOR_Q, RESULT_Q = range(21, 24)
V_PITCH, V_DEPTH = range(24, 26)  # elements between the sums of two q; terms of the sums at a time
GEMV_WORDS = 26

K_BLOCK = {4: 256, 8: 192}  # a panel of A and one of B fit the L1 cache
A_BYTES = 240 << 10  # what is packed of A at a time: it fits the L2 cache
COLUMN_BLOCK = 1024
KEPT_BYTES = 1280 << 10  # the most of packed A that is kept for other columns and products: the L3 cache has it
NEAR_BYTES = 128 << 10  # what is packed of B at a time where that costs nothing: it stays in the L2 cache, with A
FLAT_DEPTH, FLAT_COLUMNS = 32, 2048  # long parts of B's rows, used while the L2 cache has them
SMALL_RESULT = 1 << 14  # elements of C below which splitting K saves reading an operand twice
STRIP_BYTES = 16 << 10  # columns of B that all panels of A meet, out of the L1 cache
IN_PLACE_BYTES = 32 << 10  # a matrix that stays in the L1 cache, or its nearest rows do
TILES_IN_PLACE = 4  # for so few panels of B, packing A costs more than reading it in strides
SUM_BYTES = 16 << 10  # of a product with a narrow operand, summed at a time: half of the L1 cache
R_BLOCK = {4: 1024, 8: 512}  # terms of dot products at a time: four rows and their partners stay in the L1 cache
FLOPS_PER_TASK = 1 << 17  # below, a second thread costs more than it brings

Strides = tuple[int, int, int]
Inner = tuple[int, int, int]
ONE_AXIS: Inner = (1, 0, 0)


def plan_gemm(
    dtype: str,
    m: int,
    n: int,
    k: int,
    a_strides: Strides,
    b_strides: Strides,
    c_strides: Strides,
    batch: int,
    threads: int,
    *,
    operands: tuple[int, int, int] = (0, 1, 2),
    isa: str | None = None,
    inner: Inner = ONE_AXIS,
    repeated: Inner = ONE_AXIS,
) -> LibraryCall:
    """Plan C[batch, m, n] = A[batch, m, k] @ B[batch, k, n].

    Strides are in elements, of (batch, row, column); any of A's and B's may be 0; C's columns are contiguous.
    inner: a batch of two axes has the second one's size, and the strides with which A and B walk it, here.
    repeated: where the sums run over two axes, k is the second one, and this the first one's size and strides.
    operands: the places of A, B and C in the operand table.  isa: the tile's instruction set, this host's by default.
    """
    if repeated[0] == 0:
        k, repeated = 0, ONE_AXIS
    product = Product(
        dtype, m, n, k, a_strides, b_strides, c_strides, batch, threads, operands, inner, repeated
    )  # fmt: skip
    if dtype not in ("float32", "float64"):
        return _plan_loops(product)
    shape = tile_shape(isa)
    is_single = repeated[0] == 1 and min(m, n, k) > 0
    if is_single and _is_narrow(m, n, k, a_strides, b_strides, product.size, shape):
        return _plan_narrow(product)
    return _plan_tile(product, shape)


@dataclass(frozen=True)
class Product:
    """What `plan_gemm` is asked for; a, b and c are the strides of the operands."""

    dtype: str
    m: int
    n: int
    k: int
    a: Strides
    b: Strides
    c: Strides
    batch: int
    threads: int
    operands: tuple[int, int, int]
    inner: Inner
    repeated: Inner

    @property
    def size(self) -> int:
        return ITEM_SIZES[self.dtype]

    @property
    def repeats(self) -> int:
        return self.repeated[0]

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.m * self.n * self.k * self.repeats

    @property
    def places(self) -> tuple[int, ...]:
        """Return the words from A to C_ROW."""
        return (
            (self.operands[0], *self.a) + (self.operands[1], *self.b) + (self.operands[2], self.c[0], self.c[1])
        )  # fmt: skip


@dataclass(frozen=True)
class Packing:
    """What is packed of the operands: the pitches of panels (0: they are read in place), and how much at a time."""

    a_pitch: int
    b_pitch: int
    a_panels: int
    n_step: int
    depth: int
    kept_a: int
    tail: int
    a_bytes: int
    b_bytes: int

    @property
    def operands(self) -> str:
        return " and ".join(x for x, pitch in (("A", self.a_pitch), ("B", self.b_pitch)) if pitch)


def _plan_tile(p: Product, shape: TileShape) -> LibraryCall:
    """Plan a product on the register tile."""
    cut = row_blocks, column_blocks, splits = _cut(p.m, p.n, p.k, p.repeats, p.batch, p.threads, shape, p.size)
    tasks = min(p.batch * math.prod(cut), 8 * p.threads if p.batch > 1 else 1 << 19)
    if p.flops < FLOPS_PER_TASK:
        tasks = min(tasks, 1)
    packing = _pack(p, cut, shape)
    in_place = packing.a_pitch == packing.b_pitch == packing.tail == 0
    is_small = in_place and math.prod(cut) * p.repeats == 1 and 0 < p.k <= packing.depth
    work = packing.b_bytes + packing.a_bytes + 64 + HEADER_BYTES
    partial = round_up(splits * p.m * p.n * p.size) if splits > 1 else 0
    columns = shape.columns(p.size)
    plan = (
        (p.batch, p.m, p.n, p.k, *p.places)
        + (row_blocks, column_blocks, splits, tasks)
        + (packing.a_pitch, packing.b_pitch, packing.a_panels, packing.n_step, packing.depth)
        + (packing.b_bytes, int(is_small), work, partial)
        + (*p.inner, max(1, STRIP_BYTES // (packing.depth * columns * p.size)) * columns)
        + (packing.kept_a, p.threads, *p.repeated, packing.tail)
    )
    name = SHORT_NAMES[p.dtype]
    scratch = HEADER_BYTES + partial + work * p.threads
    are_rows_whole = packing.n_step >= p.n
    is_one_block = p.batch * row_blocks * column_blocks == 1 and packing.a_panels >= ceil_div(p.m, shape.rows)
    grain = p.n if column_blocks == 1 and are_rows_whole else 0
    if (is_one_block and are_rows_whole) or splits > 1:
        grain = p.m * p.n
    why = _explained(shape, p.size, row_blocks, column_blocks, p.repeats, splits, packing.operands)
    return LibraryCall(f"tg_gemm_{name}", f"gemm_{name}", plan, scratch, p.flops, why, True, grain)


def _pack(p: Product, cut: tuple[int, int, int], shape: TileShape) -> Packing:
    """Decide what is packed of the blocks that a product is cut into."""
    size, columns = p.size, shape.columns(p.size)
    row_blocks, column_blocks, splits = cut
    rows, width = ceil_div(p.m, row_blocks), ceil_div(ceil_div(p.n, columns), column_blocks) * columns
    share = p.k if p.repeats > 1 else ceil_div(p.k, splits)
    most_terms, widest = _block_of_b(p.m, p.n, p.k, p.batch, p.b, shape, size)
    depth = max(1, min(share, most_terms))
    a_pitch, a_panels = _packed_a(rows, min(p.n, width), depth, p.a, shape, size)
    b_pitch, n_step = _packed_b(p.n, p.k * p.repeats, width, widest, depth, p.b, shape, size)
    tail = _short_tail(p.m, p.n, share, p.b, shape, size)
    if tail:
        b_pitch = 0
    k_blocks, all_panels = ceil_div(p.k, depth), ceil_div(rows, shape.rows)
    uses = p.batch * ceil_div(p.n, n_step) if row_blocks * splits * p.repeats == 1 else 1
    room = p.batch * (p.k + p.m) * p.n * size // (2 * p.threads)
    kept_a = _kept_a(p.a, p.inner, p.batch, uses, k_blocks, all_panels * a_pitch * size, room)
    if n_step < width and k_blocks * p.repeats == 1 and a_panels >= all_panels and (kept_a or not a_pitch):
        n_step = min(n_step, NEAR_BYTES // (depth * columns * size) * columns)
    a_bytes = round_up(k_blocks * kept_a or a_panels * a_pitch * size)
    b_bytes = round_up(ceil_div(n_step, columns) * max(b_pitch, tail and _panel(tail, shape, size)) * size)
    return Packing(a_pitch, b_pitch, a_panels, n_step, depth, kept_a, tail, a_bytes, b_bytes)


def _block_of_b(
    m: int, n: int, k: int, batch: int, strides: Strides, shape: TileShape, size: int
) -> tuple[int, int]:
    """Return the most terms and columns of a block of B: long parts of its rows where A is one panel, and B large."""
    is_flat = m <= shape.rows and batch == 1 and strides[2] == 1 and k * n * size > A_BYTES
    if is_flat and abs(strides[1]) * K_BLOCK[size] * size > IN_PLACE_BYTES:
        return FLAT_DEPTH, FLAT_COLUMNS
    return K_BLOCK[size], COLUMN_BLOCK


def _explained(
    shape: TileShape, size: int, row_blocks: int, column_blocks: int, repeats: int, splits: int, packed: str
) -> str:
    """Return the path of a product on the tile, in words."""
    why = f"tile {shape.rows}x{shape.columns(size)}: {row_blocks}x{column_blocks} blocks"
    why += f", {repeats} pairs summed" if repeats > 1 else ""
    why += f", {splits} splits of k" if splits > 1 else ""
    return why + (f", {packed} packed" if packed else ", nothing packed")


def _packed_a(m: int, n: int, depth: int, strides: Strides, shape: TileShape, size: int) -> tuple[int, int]:
    """Return the pitch of packed panels of a block of A, and how many are packed at a time; 0: in place."""
    panels = ceil_div(m, shape.rows)
    if n <= TILES_IN_PLACE * shape.columns(size) or m * depth * size <= IN_PLACE_BYTES:
        return 0, max(1, min(panels, A_BYTES // (depth * shape.rows * size)))
    slack = 4 + shape.columns(size) // shape.rows  # what full-vector stores spill past a panel
    pitch = round_up((depth + slack) * shape.rows, 64 // size)
    return pitch, max(1, min(panels, A_BYTES // (pitch * size)))


def _kept_a(a: Strides, inner: Inner, batch: int, uses: int, k_blocks: int, block_bytes: int, room: int) -> int:
    """Return the bytes of a packed k-block of A if all of them are kept for further uses; 0: it is packed for each."""
    is_one = batch == 1 or a[0] == (inner[1] if inner[0] > 1 else 0) == 0
    return block_bytes if is_one and uses > 1 and k_blocks * block_bytes <= min(KEPT_BYTES, room) else 0


def _packed_b(
    n: int, k: int, block: int, widest: int, depth: int, strides: Strides, shape: TileShape, size: int
) -> tuple[int, int]:
    """Return the pitch of packed panels of B, and how many columns are packed at a time; 0: in place."""
    columns, lanes = shape.columns(size), shape.lanes(size)
    rest = n % columns
    whole = rest == 0 or rest >= lanes or (n <= block and n >= lanes and k <= depth)
    if whole and strides[2] == 1 and abs(strides[1]) * depth * size <= IN_PLACE_BYTES and block <= widest:
        return 0, max(1, n)
    return _panel(depth, shape, size), max(1, min(block, widest))


def _panel(depth: int, shape: TileShape, size: int) -> int:
    """Return the pitch of packed panels of B."""
    return (depth + 2) * shape.columns(size)


def _short_tail(m: int, n: int, k: int, strides: Strides, shape: TileShape, size: int) -> int:
    """Return how many terms of the sums are packed where B's rows are read in place though they fill no vector.

    Packing takes as long as two panels of A, and stores with masks: 4 x 4 x 20000 takes a quarter of the time.
    """
    lanes = shape.lanes(size)
    if not 0 < n < lanes or m > 2 * shape.rows or strides[2] != 1 or strides[1] < n or k < 8 * lanes:
        return 0
    return ceil_div(lanes - n, strides[1])


def _cut(
    m: int, n: int, k: int, repeats: int, batch: int, threads: int, shape: TileShape, size: int
) -> tuple[int, int, int]:
    """Return the numbers of row blocks, column blocks and splits of the sums: enough tasks, evenly spread over the
    threads."""
    columns = shape.columns(size)
    rows = cols = 1
    if batch >= threads or threads == 1:
        return rows, cols, 1
    most = repeats if repeats > 1 else k
    is_long = batch == 1 and k * repeats >= 4 * threads * K_BLOCK[size]
    if is_long and m * n <= SMALL_RESULT:
        return rows, cols, min(most, threads)
    while batch * rows * cols % threads:
        if ceil_div(m, rows) * 2 > ceil_div(n, cols) and m >= 2 * shape.rows * rows:
            rows += 1
        elif n >= 2 * columns * cols:
            cols += 1
        else:
            break
    if is_long and rows * cols < threads:
        return rows, cols, min(most, ceil_div(threads, rows * cols))
    return rows, cols, 1


def _is_narrow(m: int, n: int, k: int, a_strides: Strides, b_strides: Strides, size: int, shape: TileShape) -> bool:
    """Say whether one operand has so few rows or columns that reading the other once is all that counts."""
    if min(m, n) == 1:
        return True
    lanes = shape.lanes(size)
    if m < n:
        if b_strides[1] == 1:
            return m <= 16 and k >= lanes * (2 * m if m <= 4 else 12 if m <= 8 else 24)
        return b_strides[2] == 1 and m <= 8 and n >= 512
    if a_strides[2] == 1:
        return n < lanes and k >= (16 if n <= 3 else 32) * n
    few = n < lanes or (n <= 8 and m * k * size >= 4 * A_BYTES)
    return a_strides[1] == 1 and few and (m >= 8 * n and k >= 16 if n <= 4 else m >= 16 * n and k >= 16 * (n - 1))


def _plan_narrow(p: Product) -> LibraryCall:
    """Plan a product with few columns, C = A b, or with few rows, C^T = B^T a."""
    size, m, n, k, batch, threads = p.size, p.m, p.n, p.k, p.batch, p.threads
    if n <= m:
        results, width = m, n
        matrix = (p.operands[0], *p.a)
        vector = (p.operands[1], p.b[0], p.b[1])
        turned = p.inner
        result = (p.operands[2], p.c[0], p.c[1])
        steps = p.b[2], 1
    else:
        results, width = n, m
        matrix = (p.operands[1], p.b[0], p.b[2], p.b[1])
        vector = (p.operands[0], p.a[0], p.a[2])
        turned = (p.inner[0], p.inner[2], p.inner[1])
        result = (p.operands[2], p.c[0], 1)
        steps = p.a[1], p.c[1]
    is_small = 2 * results * width * k * batch < FLOPS_PER_TASK
    wanted = 1 if is_small or batch >= threads else ceil_div(threads, batch)
    widest = max(64, SUM_BYTES // (size * width))
    blocks = max(ceil_div(results, widest), min(wanted, ceil_div(results, 16)))
    splits = 1
    if batch == 1 and blocks < wanted:
        splits = min(wanted, max(1, k // 64))
    tasks = 1 if is_small else min(batch * blocks * splits, max(8 * threads, blocks * splits))
    pitch = round_up(ceil_div(results, blocks), 64 // size)
    depth = ceil_div(k, splits)
    if matrix[3] != 1:
        depth = min(depth, K_BLOCK[size])
    elif width > 1:
        depth = min(depth, R_BLOCK[size])
    work = round_up(width * (2 * pitch + depth) * size) + 64
    partial = round_up(splits * results * width * size) if splits > 1 else 0
    plan = (batch, results, k, *matrix, *vector, *result, blocks, splits, tasks, work, partial, *turned)
    plan += (width, *steps, pitch, depth)
    name = SHORT_NAMES[p.dtype]
    scratch = HEADER_BYTES + partial + work * threads
    grain = m * n if blocks == 1 or splits > 1 else n if n <= m else 0
    why = f"matrix by {width} vectors: {blocks} blocks" + (f", {splits} splits of k" if splits > 1 else "")
    return LibraryCall(f"tg_gemv_{name}", f"gemv_{name}", plan, scratch, p.flops, why, True, grain)


def _plan_loops(p: Product) -> LibraryCall:
    """Plan a product in plain loops, a row of C per task."""
    tasks = p.batch * p.m
    if p.flops < FLOPS_PER_TASK:
        tasks = min(1, tasks)
    tasks = min(tasks, 16 * p.threads)
    plan = (
        (p.batch, p.m, p.n, p.k, *p.places)
        + (1, 1, 1, tasks, *[0] * (INNER - A_PITCH))
        + (*p.inner, *[0] * (REPEATS - STRIP), *p.repeated, 0)
    )
    name = SHORT_NAMES[p.dtype]
    why = "plain loops: integers"
    return LibraryCall(f"tg_gemm_{name}", f"gemm_{name}", plan, HEADER_BYTES, p.flops, why)
