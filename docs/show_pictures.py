# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures that `nearfield show` makes: `python docs/show_pictures.py` writes docs/images/show-*.svg.

Each page says above its picture with which command: a test holds it to that.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import tempfile
from pathlib import Path

from make_pictures import write

from nearfield.tools import cli

COMMANDS = {
    "show-window.svg": "na:fwd:f32:b1h1kv1d8:16x24:k7x7:d2x1:c10 -q 12 15",
    "show-video.svg": "na:fwd:f32:b1h1kv1d8:4x8x12:k3x5x5:c100 -q 2 3 9",
    "show-dilation.svg": "na:fwd:f32:b1h1kv1d8:16x24:k5x5:d3x3 -q 1 11",
    "show-tiles.svg": "na:fwd:f32:b1h1kv1d8:24x32:k17x21@cpu,q4x8,kv2x4 --of tiles",
    "show-tile.svg": "na:fwd:f32:b1h1kv1d8:24x32:k17x21@cpu,q4x8,kv2x4 --of tile -q 10 18",
    "show-pooling.svg": "na:fwd:f32:b1h1kv1d8:12x18:k5x5:qgrid=4x6 -q 1 2",
    "show-packed.svg": "na:fwd:f32:b1h1kv1d8:6x8+4x4:k3x5+4x4 --of mask",
    "show-shards.svg": "na:fwd:f32:b1h1kv1d8:16x24:k7x9 --of shards --mesh 2 2",
    "show-fetched.svg": "na:fwd:f32:b1h1kv1d8:16x24:k7x9 --of shards --mesh 2 2 --rank 1",
}


def made_by(name: str) -> str:
    """What the command writes with -o."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        with contextlib.redirect_stdout(io.StringIO()):
            status = cli.main(["show", *shlex.split(COMMANDS[name]), "-o", str(path)])
        if status:
            raise RuntimeError(f"nearfield show {COMMANDS[name]} ended with status {status}")
        return path.read_text()


PICTURES = {name: (lambda name=name: made_by(name)) for name in COMMANDS}

if __name__ == "__main__":
    write(PICTURES)
