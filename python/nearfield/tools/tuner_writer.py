# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Writing tuner files, by several processes at a time if need be: every one adds its lines under a lock, and
whoever reads sees the old file or the new one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

from nearfield._tuner import read, tuner_text
from nearfield.tools import CommandError
from nearfield.tools.outputs import replaceable


def write(path: str | os.PathLike, lines: list, problems=()) -> None:
    """Adds lines (of optimizer.py) to a file, in place of older ones for the same problem, device class and
    version, and of all lines for `problems` that this version refuses. Several processes may do so at once.

    Raises:
        CommandError: the file is something else, or cannot be written.
    """
    real = replaceable(path)
    try:
        with _locked(real):
            kept = {_key(text): text for text in _kept(real, str(path), set(problems))}
            kept |= {_key(line.text): line.text for line in lines}
            fresh = real.with_name(f".{real.name}.{os.getpid()}")
            fresh.write_text("".join(text + "\n" for text in kept.values()), encoding="utf-8")
            fresh.chmod(real.stat().st_mode & 0o777)
            fresh.replace(real)
    except ValueError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def check(path: str | os.PathLike) -> None:
    """Complains, before the work, about what write() would refuse whatever the problems. Makes no file."""
    real = replaceable(path)
    if real.exists():
        try:
            _kept(real, str(path), None)
        except ValueError as error:
            raise CommandError(str(error)) from error


def _kept(real: Path, name: str, problems: set | None) -> list[str]:
    """The lines of a file, without those for `problems` (None: for any) that this version refuses: it says
    of them that the problem is to be optimised anew, so that must do. Others it refuses raise."""
    texts = read(real).split("\n")
    try:
        with tuner_text("\n".join(texts), name):
            return [text for text in texts if text.strip()]
    except ValueError:
        return [text for i, text in enumerate(texts) if text.strip() and _counts(text, i, name, problems)]


def _counts(text: str, index: int, name: str, problems: set | None) -> bool:
    try:
        with tuner_text("\n" * index + text, name):  # so that a message has the number of the line
            return True
    except ValueError:
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or "nearfield_tuner" not in fields or "problem" not in fields:
            raise  # no line of a tuner file
        if problems is not None and fields["problem"] not in problems:
            raise
        return False


@contextlib.contextmanager
def _locked(path: Path):
    """Alone with the file, which is made if there is none. It is replaced under the lock: who waited for the
    lock of the old one tries again."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                yield
                return
        finally:
            os.close(handle)


def _key(text: str) -> tuple:
    fields = json.loads(text)
    return tuple(fields[name] for name in ("problem", "device", "version"))
