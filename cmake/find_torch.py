# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Prints the folder of the `torch` package of this interpreter's environment, without importing it.

Under pip's build isolation the environment's site-packages are not on sys.path; sysconfig still knows
them. Prints nothing if there is no torch.
"""

import importlib.util
import site
import sys
import sysconfig
from pathlib import Path


def candidates():
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin:
        yield Path(spec.origin).parent
    for name in ("purelib", "platlib"):
        yield Path(sysconfig.get_path(name), "torch")
    config = Path(sys.prefix, "pyvenv.cfg")
    if config.is_file() and "include-system-site-packages = true" in config.read_text().lower():
        base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        for name in ("purelib", "platlib"):
            yield Path(sysconfig.get_path(name, vars=base), "torch")
        yield Path(site.getusersitepackages(), "torch")


for folder in candidates():
    if (folder / "include").is_dir():
        print(folder)
        break
