# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`python -m nearfield` is the command `nearfield`."""

import sys

from nearfield.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
