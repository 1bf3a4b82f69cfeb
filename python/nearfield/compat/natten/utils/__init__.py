# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Helpers, under that package's module names."""

from . import log, varlen
from .checks import check_all_args

__all__ = ["check_all_args", "log", "varlen"]
