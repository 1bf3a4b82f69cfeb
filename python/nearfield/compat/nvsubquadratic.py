# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`Attention` as the package nvsubquadratic has it, for checkpoints trained with it.

It differs from `nearfield.Attention` in the rotary tables alone: within an axis slice of n channels,
channels j and j + n/2 are paired, yet channel j is given the angle p * theta_{floor(j/2)}, with
theta_m = base ** (-2m / n). Two channels of a pair thus turn by different angles, which is no rotation.
The tables are computed in float32 throughout, since weights trained with those bits depend on them.
"""

from __future__ import annotations

import torch

from .. import modules

__all__ = ["Attention"]

_KERNELS = ("sdpa", "flex", "fa4")


class Attention(modules.Attention):
    """As `nearfield.Attention`, with that package's rotary tables.

    attn_impl, a name of one of its kernels ("sdpa", "flex", "fa4"), is kept as an attribute and selects
    nothing: all of them serve every feature, on every device. The tables follow `.to(dtype)`.
    """

    def __init__(
        self,
        hidden_dim,
        num_heads,
        apply_qk_norm,
        use_rope,
        is_causal=False,
        attn_dropout=0.0,
        rope_base=10000.0,
        rope_spatial_dims=None,
        attn_impl="sdpa",
        *,
        dtype=torch.float32,
        **more,
    ):
        if attn_impl not in _KERNELS:
            raise ValueError(
                f"[Attention] got attn_impl {attn_impl!r}, expected one of {', '.join(_KERNELS)}"
            )
        super().__init__(
            hidden_dim,
            num_heads,
            apply_qk_norm,
            use_rope,
            is_causal,
            attn_dropout,
            rope_base,
            rope_spatial_dims,
            dtype=dtype,
            **more,
        )
        self.attn_impl = attn_impl

    def _make_tables(self, dtype, device):
        """The bits are those of float32 on the CPU; a cast comes last."""
        n, tables = self.head_dim // self._rope_ndim, []
        at = {"dtype": torch.float32, "device": "cpu"}
        theta = 1.0 / (self.rope_base ** (torch.arange(0, n, 2, **at) / n))
        for extent in self.rope_spatial_dims:
            angles = torch.arange(extent, **at)[:, None] * theta[None, :]
            pair = (f(angles).repeat_interleave(2, dim=-1) for f in (torch.cos, torch.sin))
            tables.append(tuple(t.to(device or torch.get_default_device(), dtype) for t in pair))
        return tuple(tables)
