# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Commands of `nearfield`, run in this process."""

from nearfield.tools import cli

SMALL = "na:fwd:f32:b1h2kv1d8:6x7:k3x3"


def run(capsys, *words):
    status = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys, *words):
    """What a command says where it gives up: one line, without a traceback."""
    status, _, err = run(capsys, *words)
    assert status == 1 and err.startswith(f"nearfield {words[0]}: ") and err.count("\n") == 1, err
    return err
