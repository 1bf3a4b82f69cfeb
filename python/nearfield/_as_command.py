# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the process is the command `nearfield`, faults while the package is imported are one line, as its
later ones are (tools/cli.py): a wrong NEARFIELD_* variable, a missing library, Ctrl-C."""

import itertools
import sys
from pathlib import Path

_MODULES = ("nearfield", "nearfield.profiler")


def is_command(argv: list[str], original: list[str]) -> bool:
    """argv: sys.argv; original: sys.orig_argv. While `python -m MODULE` imports packages, argv[0] is `-m`."""
    first = argv[0] if argv else ""
    if first == "-m":
        return any(a == "-m" and b in _MODULES for a, b in itertools.pairwise(original))
    return Path(first).name == "nearfield"


def say_faults_in_one_line() -> None:
    """For the rest of the process, if it is the command; else nothing happens."""
    if not is_command(sys.argv, sys.orig_argv):
        return
    before = sys.excepthook

    def hook(kind, error, trace):
        if issubclass(kind, KeyboardInterrupt):
            print("nearfield: stopped", file=sys.stderr)
        elif isinstance(error, ValueError) and str(error).startswith("["):  # the library's refusals
            print(f"nearfield: {error}", file=sys.stderr)
        elif isinstance(error, ImportError) and str(error).startswith("nearfield: "):
            print(error, file=sys.stderr)
        else:
            before(kind, error, trace)

    sys.excepthook = hook


say_faults_in_one_line()  # at import: before anything of the package that may fail, or takes time
