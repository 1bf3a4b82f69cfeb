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

from nearfield._tuner import tuner_file
from nearfield.tools import CommandError


def write(path: str | os.PathLike, lines: list) -> None:
    """Adds lines (of optimizer.py) to a file, in place of older ones for the same problem, device class and
    version. Several processes may do so at once.

    Raises:
        CommandError: the file is something else, or cannot be written.
    """
    path = Path(path)
    try:
        with _locked(path), tuner_file(path):  # which checks it
            texts = [text for text in path.read_text(encoding="utf-8").splitlines() if text.strip()]
            kept = {_key(text): text for text in texts}
            kept |= {_key(line.text): line.text for line in lines}
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            fresh.write_text("".join(text + "\n" for text in kept.values()), encoding="utf-8")
            fresh.chmod(path.stat().st_mode & 0o777)
            fresh.replace(path)
    except ValueError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


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
