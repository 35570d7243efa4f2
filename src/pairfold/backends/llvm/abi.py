"""The words of the tables that machine code is called with: shared by code generator and caller."""

# The table of arguments: sizes and partition, then addresses, then three words per result and per
# argument: address, stride of rows, stride of components.
ROWS, COLUMNS, ROWS_PER_TASK, PANELS, SPLITS, COLUMNS_PER_SPLIT = range(6)
OFFSETS, PARTIALS = range(6, 8)
# Set by machine code that meets inputs for which the kernel was not to be rearranged.
REFUSED = 8
# Of a sparse fold: the table of panels and that of intervals of columns; 0 otherwise.
SPARSE_PANELS, INTERVALS = range(9, 11)
# Of a sweep: where the partial sums of columns begin.
ACROSS = 11
FIRST_RESULT = 12
WORDS_PER_ARRAY = 3

# What a task knows of its panel: first row, rows, first interval, the one after the last, columns
# in all; then, of a dense fold, its one interval.
FIRST_ROW, ROW_COUNT, FIRST_INTERVAL, LAST_INTERVAL, COLUMN_COUNT = range(5)
OWN_INTERVAL = 5
PANEL = 7

# The control block: the shared counter of tasks, the word that stops them, how many tasks there
# are, how many are done, how many are taken off the counter at once, how many threads are inside.
NEXT, STOP, TOTAL, DONE, CHUNK, ACTIVE = range(6)
CONTROL = 6
# What the stop word says: leave at the next block of columns; leave after the tasks just taken.
AT_ONCE, SOON = 1, 2
