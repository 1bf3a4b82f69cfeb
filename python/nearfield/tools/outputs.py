# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether a file can be written, asked before the work whose result goes there."""

from __future__ import annotations

import os
from pathlib import Path

from nearfield.tools import CommandError


def writable(path: str | os.PathLike) -> None:
    """Raises a CommandError unless a file can be written there; writes nothing."""
    path = Path(path)
    if os.path.isdir(path):  # not Path's, which raise where a name is too long
        raise CommandError(f"cannot write {path}: it is a folder")
    if not os.path.isdir(path.parent):
        raise CommandError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        raise CommandError(f"cannot write {path}: not allowed")


def replaceable(path: str | os.PathLike) -> Path:
    """The same of a file that a fresh one replaces, whose folder must take that one; the file behind links.
    What is no regular file is refused: a device would become one, and a pipe nobody reads would wait."""
    real = Path(os.path.realpath(path))
    writable(real)
    if os.path.exists(real) and not os.path.isfile(real):
        raise CommandError(f"cannot write {path}: it is no regular file")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise CommandError(f"cannot write {path}: the folder {real.parent} takes no new file")
    return real


def all_writable(*paths: str | None) -> None:
    """The same of several; None is no file, and `-` is the standard output."""
    for path in paths:
        if path and path != "-":
            writable(path)
