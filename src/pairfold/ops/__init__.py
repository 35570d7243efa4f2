"""The operations: one row each, in one table."""

from . import complex as complex
from . import elementwise as elementwise
from . import vectors as vectors
from .table import install_operators

install_operators()
