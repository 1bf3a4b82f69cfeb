# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`python -m nearfield.profiler` is the command `nearfield profile`."""

import sys

from nearfield.tools.cli import main

if __name__ == "__main__":
    sys.exit(main(["profile", *sys.argv[1:]]))
