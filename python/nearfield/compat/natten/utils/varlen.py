# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Descriptions of packed sequences, under that package's module name."""

from ....varlen import generate_varlen_parameters

__all__ = ["generate_varlen_parameters"]
