"""The plans of convolutions: places of int64 words, shared by planners and kernels.

Offsets are in elements unless the name says BYTES; tables are places in the plan.  A spatial axis that is missing has
size 1.
"""

from __future__ import annotations

# Forward and data.
IMAGES, GROUPS, CHANNELS, DEPTH, HEIGHT, WIDTH, OUTPUTS = range(7)
TOP, LEFT, STRIDE_D, STRIDE_H, STRIDE_W = range(7, 12)  # of what is read
PITCH, PLANE, HALO, PHASE_TABLE, PHASES = range(12, 17)  # of the padded copy: its row, its plane
GRID_H, GRID_W, ROWS, CHUNKS, COLUMN_CHUNKS = range(17, 22)  # the positions of a run, and how they are cut
OUT_D, OUT_H, OUT_W, STEP_D, STEP_H, STEP_W = range(22, 28)  # of the result: its sizes, the steps of a run in it
RUN_ROWS, RUN_COLUMNS = 28, 29  # runs with their own rows, and their own columns, of one slice
W_OUTPUT, W_CHANNEL, W_GROUP, ORDERED_TAPS = range(30, 34)  # strides of the weights
RUNS, PACK_TASKS, TASKS, WORK_OFFSET, WORK_BYTES, Y_BYTES, IN_PLACE, EXACT_PLAN = range(34, 42)
ROW_BY_ROW = 2  # a value of IN_PLACE: no junk between rows, each of them is a product of its own (1: all at once)
RUN_TABLE = 42  # the runs follow: [slice, row, column], RUN_WORDS each
IS_FINITE = 2  # a word of the scratch's header: whether no weight is NaN or inf (written where the plan has EXACT_PLAN)

# A run.
TAPS, TAP_TABLE, OFFSET_TABLE, SLICES, SLICE_TABLE, PACKED_BYTES, GROUP_BYTES, PANEL_BYTES = range(8)
RUN_WORDS = 8

# The weight gradient.
G_IMAGES, G_GROUPS, G_CHANNELS, G_DEPTH, G_HEIGHT, G_WIDTH, G_OUTPUTS, G_TAPS = range(8)
G_TOP, G_LEFT, G_STRIDE_D, G_STRIDE_H, G_STRIDE_W, G_OUT_D, G_OUT_H, G_OUT_W = range(8, 16)
G_PITCH, G_PLANE, G_ROWS, G_CHUNKS, G_HALO, G_WIDE, G_IN_PLACE, G_SHARES = range(16, 24)
G_SUMS_BYTES, G_WORK_OFFSET, G_WORK_BYTES, G_DY_OFFSET, G_X_OFFSET, G_GROUP_SUMS = range(24, 30)
G_OFFSET_TABLE, G_PHASE_TABLE, G_PHASES, G_COLUMN_CHUNKS, G_SLICE_TABLE, G_SLICES, G_EXACT_PLAN = range(30, 37)
G_MAP_BLOCKS = 37  # blocks of output maps that tasks share; each has its share of the positions
G_UNITS, G_PARTS = 38, 39  # what the chunks are cut into, group by group, and how many parts of them are summed apart
GRADIENT_WORDS = 40

# The plain loops.
D_IMAGES, D_GROUPS, D_CHANNELS, D_DEPTH, D_HEIGHT, D_WIDTH, D_OUTPUTS, D_OUT_D, D_OUT_H, D_OUT_W = range(10)
D_KERNEL_D, D_KERNEL_H, D_KERNEL_W, D_STRIDE_D, D_STRIDE_H, D_STRIDE_W = range(10, 16)
D_FRONT, D_TOP, D_LEFT, D_DILATION_D, D_DILATION_H, D_DILATION_W, D_TASKS, D_OUTSIDE = range(16, 24)
D_ITEMS = 24  # elements of a plane of the result

POSITION_BLOCK = 256  # positions summed by one call of the tile in the weight gradient
