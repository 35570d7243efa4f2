"""The words of the tables that machine code is called with: shared by code generator and caller."""

# The table of arguments: sizes and partition, then addresses, then three words per argument.
ROWS, COLUMNS, ROWS_PER_TASK, PANELS, SPLITS, COLUMNS_PER_SPLIT = range(6)
OFFSETS, PARTIALS, OUT, OUT_ROW_STRIDE, OUT_COMPONENT_STRIDE = range(6, 11)
# Set by machine code that meets inputs for which the kernel was not to be rearranged.
REFUSED = 11
FIRST_ARGUMENT = 12
WORDS_PER_ARGUMENT = 3

# The control block: the shared counter of tasks, the stop word, how many tasks there are, how many
# are done, and how many are taken off the counter at once.
NEXT, STOP, TOTAL, DONE, CHUNK = range(5)
