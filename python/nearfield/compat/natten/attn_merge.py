# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Merging attentions, under that package's module name."""

from ... import functional

__all__ = ["merge_attentions"]


def merge_attentions(outputs, lse_tensors, torch_compile=True, use_autograd_fix=True):
    """(out, lse) of attention over all keys from two or more attentions over parts of them.

    outputs `[B, *layout, H, Dv]`, lse_tensors `[B, *layout, H]`. Gradients are exact for outputs and lses of
    any producer, so that use_autograd_fix and torch_compile have no effect.
    """
    del torch_compile, use_autograd_fix
    return functional.merge_attentions(outputs, lse_tensors)
