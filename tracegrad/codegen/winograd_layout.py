"""The plans of Winograd's convolutions: places of int64 words, shared by planners and kernels.

Strides of the weights are in elements, offsets and other pitches in bytes.  `W_V_...` is about transformed tiles,
`W_U_...` about transformed weights, `W_M_...` about their products.
"""

from __future__ import annotations

# Forward and data.
W_IMAGES, W_CHANNELS, W_HEIGHT, W_WIDTH, W_OUTPUTS, W_OUT_H, W_OUT_W, W_TOP, W_LEFT = range(9)
W_ROW_TILES, W_COLUMN_TILES, W_ROW_CHUNKS, W_COLUMN_CHUNKS, W_STRIP_TILES, W_STRIPS, W_BLOCK, W_GROUPS = range(9, 17)
W_IS_TILES_FIRST, W_FIRST_TASKS, W_TASKS, W_PANELS = range(17, 21)
W_OUTPUT_STEP, W_CHANNEL_STEP, W_GROUP_STEP, W_IS_FLIPPED, W_MEETS_ZEROS = range(21, 26)
W_DEPTH, W_U_POINT, W_V_POINT, W_V_ROW, W_M_POINT, W_M_ROW, W_M_PANELS = range(26, 33)
W_SHARED_OFFSET, W_WORK_OFFSET, W_WORK_BYTES, W_OWN_OFFSET, W_TILES_OFFSET, W_M_OFFSET, W_BUFFER_OFFSET = range(33, 40)
W_PARTS, W_MARKS_OFFSET = 40, 41
WINOGRAD_WORDS = 42

# The weight gradient: the first words are the same.
G_IS_TILES_FIRST, G_FIRST_TASKS, G_PARTS, G_TASKS, G_FOLD_TASKS = range(17, 22)
G_ROWS_OFFSET, G_ROW, G_POINT, G_SUMS_OFFSET, G_SUM_ROW, G_SUM_POINT, G_SHARE_BYTES = range(22, 29)
G_WORK_OFFSET, G_WORK_BYTES, G_BUFFER_OFFSET, G_MAPS, G_EXACT_PLAN, G_BLOCK = range(29, 35)
G_MARKS_OFFSET, G_LOST_OFFSET = range(35, 37)
WINOGRAD_GRADIENT_WORDS = 37

TAPS = 9
WEIGHT_CHANNELS = 32  # input channels whose weights are transformed at a time
IS_FINITE = 2  # a word of the scratch's header: whether no strip or map is marked
PROBE_BYTES = 64  # at the start of a thread's work: a vector that becomes NaN
