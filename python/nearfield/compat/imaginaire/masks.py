# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Causal masks: nearfield's own `CausalType`, under the name that the package gives it."""

from ...functional import CausalType

__all__ = ["CausalType"]
