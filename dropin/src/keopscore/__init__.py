"""The package `keopscore`, provided by pairfold: its modules are the table in `pairfold.dropin`."""

import sys

from pairfold.dropin import provide

provide(sys.modules[__name__])
