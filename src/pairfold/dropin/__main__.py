"""`python -m pairfold.dropin script.py`: run a PyKeOps program, unchanged, on pairfold."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

from . import install

USAGE = """\
usage: python -m pairfold.dropin SCRIPT [ARGUMENT ...]
       python -m pairfold.dropin -m MODULE [ARGUMENT ...]

Runs a program as python would, with `import pykeops` answered by pairfold, whether or not
PyKeOps is installed too.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the program that the command line names; the exit status of a wrong command line."""
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        helped = bool(arguments) and arguments[0] != "-m"
        (sys.stdout if helped else sys.stderr).write(USAGE)
        return 0 if helped else 2
    if arguments[0] == "-m":
        install()
        sys.argv = list(arguments[1:])  # sys.path[0] stays the working directory, as with python -m
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    script = arguments[0]
    if not os.path.exists(script):
        sys.stderr.write(f"python -m pairfold.dropin: there is no file {script!r}\n")
        return 2
    install()
    sys.argv = list(arguments)
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    runpy.run_path(script, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
