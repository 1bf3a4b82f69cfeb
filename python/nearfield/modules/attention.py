# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention over all tokens of a layout, without projections."""

from __future__ import annotations

import math

import torch
from torch import nn

from .. import _arguments as arguments
from .._dense import attend_dense
from ..functional import CausalType
from ..rotary import extents, rope_tables, rotate, working_dtype
from . import _checks as checks

_NAME = "Attention"
_AXES = {1: ("",), 2: ("_y", "_x"), 3: ("_z", "_y", "_x")}  # suffixes of the tables' names
_NORM_FLOOR = 1e-12


class Attention(nn.Module):
    """Multi-head attention of query, key and value given in channels-last layouts.

    Steps: split heads, rotary position embedding, L2 norm of queries and keys, attention, merge heads. There
    are no parameters; the rotary tables are buffers that no state_dict holds.

    Args:
        hidden_dim: channels C.
        num_heads: query heads H; divides C.
        apply_qk_norm: bring queries and keys to length 1 after the rotation; the scale is then 1.0. A zero
            vector stays zero (and passes its gradient through), in every dtype.
        use_rope: turn queries and keys by their positions (see `rope`).
        is_causal: token i, in raster order of the flattened layout, sees key tokens 0..i.
        attn_dropout: dropout on the attention weights while training, 0 <= attn_dropout < 1.
        rope_base: base of the frequencies.
        rope_spatial_dims: the layout, 1 to 3 extents; needed with use_rope. head_dim is then divisible by
            2, 4 or 6, and inputs have this very layout.
        num_kv_heads: key/value heads; divides num_heads. Key and value then have num_kv_heads * head_dim
            channels. Default: as many as query heads.
        backend: as for `attention`.
        device, dtype: of the rotary tables. They are kept in float64 under float64 and in float32 otherwise;
            `.to(dtype)` computes them anew.

    Raises:
        AssertionError: hidden_dim or head_dim not divisible, rope_spatial_dims missing, wrong rank of input.
        ValueError, TypeError: everything else; always `[Attention] got X, expected Y; hint`.
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
        *,
        num_kv_heads=None,
        backend=None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.hidden_dim = checks.positive(_NAME, "hidden_dim", hidden_dim)
        self.num_heads = checks.positive(_NAME, "num_heads", num_heads)
        if hidden_dim % num_heads:
            raise AssertionError(
                f"[{_NAME}] got hidden_dim {hidden_dim} and num_heads {num_heads}, expected num_heads to "
                "divide it"
            )
        self.num_kv_heads = checks.kv_heads(_NAME, num_heads, num_kv_heads)
        self.head_dim = self.hidden_dim // self.num_heads
        self.scale = self.head_dim**-0.5
        self.apply_qk_norm = arguments.check_bool(_NAME, "apply_qk_norm", apply_qk_norm)
        self.use_rope = arguments.check_bool(_NAME, "use_rope", use_rope)
        self.rope_base = arguments.number(_NAME, "rope_base", rope_base)
        if not 0 < self.rope_base < math.inf:
            raise ValueError(f"[{_NAME}] got rope_base {rope_base}, expected a positive number")
        self.is_causal = arguments.check_bool(_NAME, "is_causal", is_causal)
        self.attn_dropout = checks.probability(_NAME, "attn_dropout", attn_dropout)
        arguments.backend_number(_NAME, backend)
        self.backend = backend
        self.rope_spatial_dims = None
        if self.use_rope:
            self.rope_spatial_dims = self._check_layout(rope_spatial_dims)
            self._rope_ndim = len(self.rope_spatial_dims)
            self._set_tables(dtype or torch.get_default_dtype(), device)

    def _check_layout(self, layout) -> tuple[int, ...]:
        if layout is None:
            raise AssertionError(
                f"[{_NAME}] got use_rope without rope_spatial_dims, expected the layout, such as (64, 64)"
            )
        layout = extents(_NAME, "rope_spatial_dims", layout)
        if len(layout) not in _AXES:
            raise ValueError(f"[{_NAME}] got rope_spatial_dims {layout}, expected 1, 2 or 3 axes")
        if self.head_dim % (2 * len(layout)):
            raise AssertionError(
                f"[{_NAME}] got head_dim {self.head_dim}, expected a multiple of {2 * len(layout)}; each of "
                f"{len(layout)} axes turns pairs"
            )
        return layout

    # ---- rotary tables

    def _make_tables(self, dtype, device):
        """One pair (cos, sin) `[extent, head_dim / axes]` per axis, for inputs of this dtype."""
        work = working_dtype(dtype)
        return rope_tables(self.rope_spatial_dims, self.head_dim, self.rope_base, dtype=work, device=device)

    def _set_tables(self, dtype, device) -> None:
        for suffix, pair in zip(_AXES[self._rope_ndim], self._make_tables(dtype, device), strict=True):
            for name, table in zip(("rope_cos", "rope_sin"), pair, strict=True):
                self.register_buffer(name + suffix, table, persistent=False)

    def _tables(self):
        return tuple(
            (getattr(self, f"rope_cos{suffix}"), getattr(self, f"rope_sin{suffix}"))
            for suffix in _AXES[self._rope_ndim]
        )

    def reset_parameters(self) -> None:
        """Computes the rotary tables anew: there are no parameters."""
        if self.use_rope:
            table = self._tables()[0][0]
            self._set_tables(table.dtype, table.device)

    def _apply(self, fn, recurse=True):
        """`.to()` and its kin. A cast would round the tables twice, and to_empty() leaves them unfilled."""
        before = self._tables()[0][0] if self.use_rope else None
        super()._apply(fn, recurse)
        if before is not None:
            after = self._tables()[0][0]
            if after.dtype != before.dtype or (before.is_meta and not after.is_meta):
                self._set_tables(after.dtype, after.device)
        return self

    # ---- forward

    def forward(
        self,
        query,
        key,
        value,
        cp_group=None,
        *,
        return_lse=False,
        additional_keys=None,
        additional_values=None,
    ):
        """Attention of query's tokens over key's.

        Args:
            query: `[B, *layout, C]` with 1 to 3 axes.
            key, value: the same; without rotary embedding, their layout may be another than query's.
            cp_group: None, or a process group (a DeviceMesh of one dimension) whose P ranks share the tokens:
                the first axis of the layout is cut in 2P slabs as torch.tensor_split does, and rank r passes
                and gets slabs r and 2P-1-r, one behind the other (`nearfield.distributed.shard` with
                pattern="zigzag"). rope_spatial_dims is the whole layout. Additional keys are the same on
                every rank; dropout is that of rank 0's seed, and of the whole sequence.
            return_lse: also return lse `[B, *layout, num_heads]`.
            additional_keys, additional_values: `[B, S, num_kv_heads, head_dim]`, seen by every query, causal
                or not, in the same softmax. They are taken as they are: without position, not normalised.

        Returns:
            `[B, *layout, C]` with query's layout, or that and lse.
        """
        inputs = (query, key, value, additional_keys, additional_values, return_lse)
        if checks.group_size(_NAME, cp_group) == 1:
            return self._forward(*inputs)
        from ..distributed import _modules  # torch may be built without it

        return _modules.forward_of_ranks(self, cp_group, inputs)

    def _forward(self, query, key, value, additional_keys, additional_values, return_lse, ranks=None):
        """ranks: None, or what `distributed` gives to attend over the tokens of all ranks."""
        heads = {"query": self.num_heads, "key": self.num_kv_heads, "value": self.num_kv_heads}
        for (name, n), x in zip(heads.items(), (query, key, value), strict=True):
            self._check_input(name, x, n * self.head_dim, ranks)
        if key.shape[:-1] != value.shape[:-1]:
            raise ValueError(
                f"[{_NAME}] got key {tuple(key.shape)} and value {tuple(value.shape)}, expected one layout"
            )
        shape = query.shape
        query, key, value = (
            x.unflatten(-1, (n, self.head_dim))
            for x, n in zip((query, key, value), heads.values(), strict=True)
        )
        if self.use_rope:
            query, key = self._rotate(query, ranks), self._rotate(key, ranks)
        if self.apply_qk_norm:
            query, key = _unit(query), _unit(key)
        more = {"additional_keys": additional_keys, "additional_values": additional_values}
        for name, x in more.items():
            arguments.check_tensor(_NAME, name, x, optional=True)
        attend = attend_dense if ranks is None else ranks.attend
        out, lse = attend(
            (*(x.flatten(1, -3) for x in (query, key, value)), *more.values()),
            CausalType.TopLeft if self.is_causal else None,
            scale=1.0 if self.apply_qk_norm else self.scale,
            backend=arguments.backend_number(_NAME, self.backend),
            dropout_p=self.attn_dropout if self.training else 0.0,
        )
        out = out.reshape(shape)
        if arguments.check_bool(_NAME, "return_lse", return_lse):
            return out, lse.reshape(*shape[:-1], self.num_heads)
        return out

    def _rotate(self, x, ranks):
        tables = self._tables()
        if x.dtype == torch.float64 and tables[0][0].dtype != torch.float64:
            tables = self._make_tables(x.dtype, x.device)  # a float64 input of a module that is not
        if ranks is not None:  # the positions of this rank's slabs
            rows = ranks.rows(self.rope_spatial_dims[0]).to(tables[0][0].device)
            tables = (tuple(t[rows] for t in tables[0]), *tables[1:])
        return rotate(x, tables)

    def _check_input(self, name: str, x, channels: int, ranks) -> None:
        arguments.check_tensor(_NAME, name, x)
        axes = (self._rope_ndim,) if self.use_rope else tuple(_AXES)
        if x.dim() - 2 not in axes:
            raise AssertionError(
                f"[{_NAME}] got {name} of shape {tuple(x.shape)}, expected [B, *layout, {channels}] with "
                f"{' or '.join(map(str, axes))} axes"
            )
        if x.shape[-1] != channels:
            raise ValueError(
                f"[{_NAME}] got {name} of shape {tuple(x.shape)}, expected {channels} channels, the last axis"
            )
        if not self.use_rope:
            return
        layout = self.rope_spatial_dims
        if ranks is not None:
            layout = (len(ranks.rows(layout[0])), *layout[1:])
        if tuple(x.shape[1:-1]) != layout:
            of_rank = "" if ranks is None else f", this rank's slabs of {self.rope_spatial_dims}"
            raise ValueError(
                f"[{_NAME}] got {name} of layout {tuple(x.shape[1:-1])}, expected {layout}{of_rank}; "
                "that is rope_spatial_dims: make a module for each layout, they hold no parameters"
            )

    def extra_repr(self) -> str:
        text = (
            f"num_heads={self.num_heads}, apply_qk_norm={self.apply_qk_norm}, is_causal={self.is_causal}, "
            f"attn_dropout={self.attn_dropout}, use_rope={self.use_rope}, rope_base={self.rope_base}"
        )
        if self.num_kv_heads != self.num_heads:
            text += f", num_kv_heads={self.num_kv_heads}"
        return text + (f", backend={self.backend!r}" if self.backend else "")


def _unit(x):
    """x over its L2 norm along the last axis, in float32 or float64: a square of float16 overflows, and
    1e-12 is zero there. At zero this is the identity, whose gradient is finite in every dtype."""
    wide = x.to(working_dtype(x.dtype))
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    norm = torch.where(norm == 0, torch.ones_like(norm), norm.clamp_min(_NORM_FLOOR))
    return (wide / norm).to(x.dtype)
