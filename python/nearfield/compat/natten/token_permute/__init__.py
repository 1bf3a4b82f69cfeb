# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Reordering tokens so that each tile of a layout is contiguous, and back."""

from .frontend import token_permute_operation, token_unpermute_operation

__all__ = ["token_permute_operation", "token_unpermute_operation"]
