# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Tuner files in use: measured choices of kernels, which `nearfield optimize` and `nearfield.optimize`
write."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import _core

_active: tuple[str, str] | None = None  # text and name; None: NEARFIELD_TUNER's


@contextlib.contextmanager
def tuner_file(path: str | os.PathLike):
    """Within it, calls run on the kernels and tiles that a tuner file names for their problem, on this class
    of machine and this version; all else is chosen as ever. Results depend on the file, and on nothing that
    is timed. Process-wide, in place of the file of the environment variable NEARFIELD_TUNER.

    Raises:
        ValueError: `[tuner] got X, expected Y; hint`, where the file cannot be read, is broken or is
            something else. A line whose kernel cannot serve its problem raises when that problem is called.
    """
    with tuner_text(read(path), str(path)):
        yield


def read(path: str | os.PathLike) -> str:
    """The text of a tuner file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"[tuner] got {path}, expected a tuner file that can be read; {error}") from error


@contextlib.contextmanager
def tuner_text(text: str, name: str = "tuner"):
    """tuner_file() on lines that are in memory; an empty text is no tuner at all."""
    global _active
    before = _active
    _core.use_tuner(text, name)
    _active = (text, name)
    try:
        yield
    finally:
        _active = before
        _core.use_tuner(*(before or (None, "")))
