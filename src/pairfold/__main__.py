"""`python -m pairfold`: commands for people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pairfold",
        description="Folds a formula over all pairs without storing the table.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="show what was found on this machine and what will be used, and try a kernel",
        description="Shows versions, processor, threads and settings, then compiles a formula, "
        "checks its numbers and times it. Exit status: 0 if all is well, else 1.",
    )
    doctor.add_argument("--torch", action="store_true", help="import torch and ask it for GPUs")
    commands.add_parser(
        "operations",
        help="print every operation and reduction, in Markdown",
        description="Prints every operation and reduction, from the rows of the tables.",
    )
    commands.add_parser(
        "settings",
        help="print every setting, in Markdown",
        description="Prints every setting, its environment variable, default and meaning.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    chosen = parser.parse_args(arguments)
    if chosen.version:
        from . import __version__

        print(__version__)
        return 0
    if chosen.command is None:
        parser.print_help()
        return 0
    if chosen.command == "operations":
        from .catalogue import catalogue

        print(catalogue(), end="")
        return 0
    if chosen.command == "settings":
        from .catalogue import settings_page

        print(settings_page(), end="")
        return 0
    from .doctor import report

    found = report(ask_torch=chosen.torch)
    print(found)
    return 0 if found.works else 1


if __name__ == "__main__":
    sys.exit(main())
