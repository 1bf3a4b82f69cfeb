# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Neighborhood attention with its projections, as a layer of a transformer.

Parameters are named and laid out as in Swin and timm: `qkv.weight [3C, C]`, `qkv.bias`,
`proj.weight [C, C]`, `proj.bias`, where output channel ((which * H) + head) * D + j of qkv is channel j of
that head's query, key or value (which = 0, 1, 2). With fewer key/value heads than query heads the two
later blocks shrink: `qkv.weight [(H + 2 Hkv) D, C]`. Relative position bias is `rpb [H, 2k-1, ...]`.
"""

from __future__ import annotations

import torch
from torch import nn

from .. import _arguments as arguments
from ..functional import na1d, na2d, na3d
from . import _checks as checks

_FUNCTIONS = (na1d, na2d, na3d)
_RPB_STD = 0.02  # as in Swin and NAT


class _NeighborhoodAttention(nn.Module):
    na_dim: int  # axes of the token layout

    def __init__(
        self,
        embed_dim,
        num_heads,
        kernel_size,
        stride=1,
        dilation=1,
        is_causal=False,
        qkv_bias=True,
        qk_scale=None,
        proj_drop=0.0,
        *,
        num_kv_heads=None,
        attn_drop=0.0,
        rel_pos_bias=False,
        backend=None,
        mesh=None,
        shard_dims=None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        op, rank = self._name, self.na_dim
        self.embed_dim = checks.positive(op, "embed_dim", embed_dim)
        self.num_heads = checks.positive(op, "num_heads", num_heads)
        if embed_dim % num_heads:
            raise ValueError(
                f"[{op}] got embed_dim {embed_dim} and num_heads {num_heads}, expected num_heads to divide it"
            )
        self.num_kv_heads = checks.kv_heads(op, num_heads, num_kv_heads)
        self.head_dim = embed_dim // num_heads
        self.kernel_size, self.stride, self.dilation = (
            tuple(map(int, arguments.per_axis(op, name, value, rank, int)))
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
        )
        self.is_causal = arguments.per_axis(op, "is_causal", is_causal, rank, bool)
        scale = arguments.number(op, "qk_scale", qk_scale, optional=True)
        self.scale = self.head_dim**-0.5 if scale is None else scale
        self.attn_drop = checks.probability(op, "attn_drop", attn_drop)
        arguments.backend_number(op, backend)
        self.backend = backend
        self._check_window()
        self._ranks = None
        if mesh is not None or shard_dims is not None:
            from ..distributed import _modules  # torch may be built without it

            self._ranks = _modules.Mesh(op, mesh, shard_dims, rank)

        factory = {"device": device, "dtype": dtype}
        width = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        bias = arguments.check_bool(op, "qkv_bias", qkv_bias)
        self.qkv = nn.Linear(self.embed_dim, width, bias=bias, **factory)
        self.proj = nn.Linear(self.embed_dim, self.embed_dim, **factory)
        self.proj_drop = nn.Dropout(_proj_drop(op, proj_drop))
        self.rpb = None
        if arguments.check_bool(op, "rel_pos_bias", rel_pos_bias):
            shape = (self.num_heads, *(2 * k - 1 for k in self.kernel_size))
            self.rpb = nn.Parameter(torch.empty(shape, **factory))
            self._reset_bias()

    @property
    def _name(self) -> str:
        return f"NeighborhoodAttention{self.na_dim}D"

    def _check_window(self) -> None:
        """The rules on window, stride and dilation that hold for every layout: asked of the core at once,
        for a layout that fits, instead of at the first forward."""
        most = 2 ** (60 // self.na_dim)  # keeps the number of tokens within 64 bits
        pairs = zip(self.kernel_size, self.dilation, strict=True)
        layout = [min(max(k * d, 1), most) for k, d in pairs]
        x = torch.empty(1, *layout, 1, 1, device="meta")
        with arguments.in_name_of(self._name, f"na{self.na_dim}d"):
            _FUNCTIONS[self.na_dim - 1](x, x, x, self.kernel_size, self.stride, self.dilation, self.is_causal)

    def reset_parameters(self) -> None:
        """Fresh weights: torch's for the projections, a truncated normal (0.02) for the bias table."""
        self.qkv.reset_parameters()
        self.proj.reset_parameters()
        if self.rpb is not None:
            self._reset_bias()

    def _reset_bias(self) -> None:
        nn.init.trunc_normal_(self.rpb, std=_RPB_STD)

    def forward(self, x, return_lse=False, additional_keys=None, additional_values=None):
        """Attention of x's tokens over their neighborhoods.

        Args:
            x: `[B, *layout, embed_dim]`.
            return_lse: also return lse `[B, *layout, num_heads]`.
            additional_keys, additional_values: `[B, S, num_kv_heads, head_dim]`, projected already: seen
                by every query, in the same softmax.

        Returns:
            `[B, *layout, embed_dim]`, or that and lse.
        """
        if self._ranks is None:
            query, key, value = self._project(x)
        else:
            with self._ranks.telling():
                query, key, value = self._project(x)
        attend = _FUNCTIONS[self.na_dim - 1] if self._ranks is None else self._ranks.attend
        out = attend(
            query,
            key,
            value,
            self.kernel_size,
            self.stride,
            self.dilation,
            self.is_causal,
            scale=self.scale,
            additional_keys=additional_keys,
            additional_values=additional_values,
            backend=self.backend,
            return_lse=return_lse,
            bias=None if self.rpb is None else self.rpb.to(query.dtype),
            dropout_p=self.attn_drop if self.training else 0.0,
        )
        out, lse = out if return_lse else (out, None)
        out = self.proj_drop(self.proj(out.flatten(-2)))
        return (out, lse) if return_lse else out

    def _project(self, x):
        """query, key, value: `[B, *layout, heads, head_dim]`."""
        self._check_input(x)
        heads, dim = (self.num_heads, self.num_kv_heads, self.num_kv_heads), self.head_dim
        parts = self.qkv(x).split([n * dim for n in heads], -1)
        return [part.unflatten(-1, (n, dim)) for part, n in zip(parts, heads, strict=True)]

    def _check_input(self, x) -> None:
        arguments.check_tensor(self._name, "x", x)
        if x.dim() != self.na_dim + 2 or x.shape[-1] != self.embed_dim:
            raise ValueError(
                f"[{self._name}] got x of shape {tuple(x.shape)}, expected [B, *layout, {self.embed_dim}] "
                f"of rank {self.na_dim + 2}"
            )

    def extra_repr(self) -> str:
        text = (
            f"head_dim={self.head_dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, dilation={self.dilation}, is_causal={self.is_causal}"
        )
        if self.num_kv_heads != self.num_heads:
            text += f", num_kv_heads={self.num_kv_heads}"
        if self.attn_drop:
            text += f", attn_drop={self.attn_drop}"
        if self.rpb is not None:
            text += ", rel_pos_bias=True"
        if self._ranks is not None:
            text += f", {self._ranks}"
        return text + (f", backend={self.backend!r}" if self.backend else "")


def _proj_drop(op: str, value) -> float:
    value = arguments.number(op, "proj_drop", value)
    if not 0 <= value <= 1:
        raise ValueError(f"[{op}] got proj_drop {value}, expected 0 <= proj_drop <= 1")
    return value


class NeighborhoodAttention1D(_NeighborhoodAttention):
    """Multi-head neighborhood attention over one axis, with its projections.

    Args:
        embed_dim: channels C of input and output.
        num_heads: query heads H; divides C.
        kernel_size, stride, dilation, is_causal: as for `na1d`.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        qk_scale: factor of the scores; default `head_dim ** -0.5`. 0.0 is honoured.
        proj_drop: dropout after the output projection.
        num_kv_heads: key/value heads; divides num_heads. Default: as many.
        attn_drop: dropout on the attention weights while training, 0 <= attn_drop < 1.
        rel_pos_bias: learn a bias per head and window offset, `rpb [H, 2 * kernel_size - 1]`.
        backend: as for `na1d`.
        mesh, shard_dims: the ranks that share the tokens, as for
            `nearfield.distributed.neighborhood_attention`: inputs and outputs are then slabs. Gradients of
            all parameters are this rank's part; `nearfield.distributed.sum_gradients` adds them up.
        device, dtype: of the parameters.

    Raises:
        ValueError, TypeError: `[NeighborhoodAttention1D] got X, expected Y; hint`; in forward from the
        operation, with its name, where the window does not fit the layout.
    """

    na_dim = 1


class NeighborhoodAttention2D(_NeighborhoodAttention):
    """As `NeighborhoodAttention1D`, on `[B, X, Y, C]`.

    kernel_size, stride, dilation and is_causal are one value, or a tuple with one per axis.
    """

    na_dim = 2


class NeighborhoodAttention3D(_NeighborhoodAttention):
    """As `NeighborhoodAttention1D`, on `[B, X, Y, Z, C]`.

    kernel_size, stride, dilation and is_causal are one value, or a tuple with one per axis.
    """

    na_dim = 3
