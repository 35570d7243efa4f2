"""The words of the tables that machine code is called with: shared by code generator and caller."""

# The table of arguments: sizes and partition, then addresses, then three words per result and per
# argument: address, stride of rows, stride of components. Behind them are three more for each
# argument that every pair has, of which the second is its stride of columns.
ROWS, COLUMNS, ROWS_PER_TASK, ROW_BLOCKS, SPLITS, COLUMNS_PER_SPLIT = range(6)
OFFSETS, PARTIALS = range(6, 8)
# Set by machine code that meets inputs for which the kernel was not to be rearranged.
BAILED_OUT = 8
# Of a sparse fold: the table of row blocks and that of intervals of columns; 0 otherwise.
SPARSE_ROW_BLOCKS, INTERVALS = range(9, 11)
# Of a fused pass: where the partial sums of columns begin.
ACROSS = 11
# Of a fold with a mask, what is known of its blocks: see `lower.blocks`; 0 otherwise. How many
# entries the table of row blocks has: those of one batch element, or of all.
ANSWERS, PATTERN_BLOCKS = range(12, 14)
# What drivers, which all kernels share, need to know of one: columns of a block, rows of a tile,
# rows that are packed at a time; bytes of a tile's packed rows, of its states, of all states of a
# task; where packed rows, packed columns, states and what is computed once lie in scratch memory.
BLOCK, TILE, PACKED, TILE_ROWS, TILE_STATE, STATE_BYTES = range(14, 20)
ROWS_AT, COLUMNS_AT, STATE_AT, ONCE_AT = range(20, 24)
# The lists of what is packed: parameters, rows, columns.
ONCE_LIST, ROWS_LIST, COLUMNS_LIST = range(24, 27)
# Results and arguments together; how states of no columns are filled in, a list and its length.
ARRAYS, FILLS, FILL_COUNT = range(27, 30)
# Where the parts of arguments that every pair has are packed, in scratch memory; their list.
PAIRS_AT, PAIRS_LIST = range(30, 32)
# Of a pruned fold, whose words of splits, patterns and masks mean something else: which row blocks
# are done (each n-th; for 1 - n, all others), and how many blocks of columns tiles have met; packed
# columns, boxes of their blocks, boxes of groups of these; the numbers of rows and columns in the
# order of both; of sums, what a pair left out may be of what is there, a float64. Tiles that would
# meet more than the most blocks stop, and say that they met `MANY`.
EACH, MET, MOST, SHARE = SPLITS, PATTERN_BLOCKS, COLUMNS_PER_SPLIT, PAIRS_AT
MANY = 1 << 40
PACKED_COLUMNS, BOXES, GROUPS = PARTIALS, ACROSS, INTERVALS
ORDER_OF_ROWS, ORDER_OF_COLUMNS = ANSWERS, SPARSE_ROW_BLOCKS
FIRST_RESULT = 32
WORDS_PER_ARRAY = 3

# What a task knows of its row block, at the start of its scratch memory: first row, rows, first
# interval, the one after the last, columns in all; then, of a dense fold, its one interval, and
# what is known of a mask where that is nothing.
FIRST_ROW, ROW_COUNT, FIRST_INTERVAL, LAST_INTERVAL, COLUMN_COUNT = range(5)
OWN_INTERVAL = 5
# Of a pruned fold: where the numbers of rows are, in their order.
ORDER_AT = OWN_INTERVAL
NO_ANSWER = 7
# Of sums that may lose tiny terms: the largest magnitude read where something underflowed (float64;
# 0: nothing did), whether a tile is to be folded again, and the processor's control words: that of
# the thread, and the one in use (32 bits each).
LARGEST, AGAIN, CONTROL_WORDS = 8, 9, 10
ROW_BLOCK = 11

# The control block: the shared counter of tasks, the word that stops them, how many tasks there
# are, how many are done, how many are taken off the counter at once, how many threads are inside.
NEXT, STOP, TOTAL, DONE, CHUNK, ACTIVE = range(6)
CONTROL = 6
# What the stop word says: leave at the next block of columns; leave after the tasks just taken.
AT_ONCE, SOON = 1, 2

# A list of what is packed: bytes from a slot to the next; the lanes of which a packed row is made
# of whole ones; how many arguments, and how many ranges of slots to check. Then of each argument:
# its word in the table of arguments, its place in that of offsets, its components, the byte where
# they begin; and of each range: the byte where it begins, its slots. In the list of what every pair
# has, each argument has one more: its word behind all arrays.
SPACING, WHOLE, ARGUMENTS, RANGES = range(4)
LIST_HEAD, ARGUMENT_WORDS, RANGE_WORDS = 4, 4, 2

# An entry of the list of fills: the byte of a tile's states where it begins; eight bytes, so many
# times, and what they are.
FILL_WORDS = 3
