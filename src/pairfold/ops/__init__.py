"""The operations: one row each, in one table."""

from . import alignment as alignment
from . import complex as complex
from . import elementwise as elementwise
from . import extremes as extremes
from . import functions as functions
from . import norms as norms
from . import special as special
from . import splines as splines
from . import tensors as tensors
from . import transcendental as transcendental
from . import truth as truth
from . import vectors as vectors
from .table import install_operators

install_operators()
