# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The operations: neighborhood attention, dense attention, merging, and the older unfused ones.

Fused operations are heads-last, `[B, *layout, H, D]`; see `nearfield.functional` for shapes, results and
errors. What is different here: backends and performance arguments are hints (`_hints`), None stands for a
default, and a query layout that differs from the key's is refused, as in that package.
"""

from __future__ import annotations

from ... import _arguments as arguments
from ... import functional
from . import _hints
from ._older import (
    na1d_av,
    na1d_qk,
    na2d_av,
    na2d_qk,
    na3d_av,
    na3d_qk,
    natten1dav,
    natten1dqk,
    natten1dqkrpb,
    natten2dav,
    natten2dqk,
    natten2dqkrpb,
    natten3dav,
    natten3dqk,
    natten3dqkrpb,
)
from .attn_merge import merge_attentions

__all__ = [
    "attention",
    "merge_attentions",
    "na1d",
    "na1d_av",
    "na1d_qk",
    "na2d",
    "na2d_av",
    "na2d_qk",
    "na3d",
    "na3d_av",
    "na3d_qk",
    "natten1dav",
    "natten1dqk",
    "natten1dqkrpb",
    "natten2dav",
    "natten2dqk",
    "natten2dqkrpb",
    "natten3dav",
    "natten3dqk",
    "natten3dqkrpb",
    "neighborhood_attention_generic",
]

_FUNCTIONS = (functional.na1d, functional.na2d, functional.na3d)


def _neighborhood(rank: int, a: dict):
    op = f"na{rank}d"
    for name in ("query", "key", "value"):
        arguments.check_tensor(op, name, a[name])
    query, key = a["query"], a["key"]
    if query.dim() == key.dim() and query.shape[1:-2] != key.shape[1:-2]:
        raise ValueError(
            f"[{op}] got a query layout {tuple(query.shape[1:-2])} and a key layout "
            f"{tuple(key.shape[1:-2])}, expected the same; nearfield.{op} takes layouts that differ"
        )
    return _FUNCTIONS[rank - 1](
        query,
        key,
        a["value"],
        a["kernel_size"],
        stride=1 if a["stride"] is None else a["stride"],
        dilation=1 if a["dilation"] is None else a["dilation"],
        is_causal=False if a["is_causal"] is None else a["is_causal"],
        scale=a["scale"],
        additional_keys=a["additional_keys"],
        additional_values=a["additional_values"],
        attention_kwargs=_hints.attention_kwargs(op, a["attention_kwargs"]),
        backend=_hints.backend(op, a["backend"]),
        return_lse=a["return_lse"],
    )


def _of_rank(rank: int):
    def na(
        query,
        key,
        value,
        kernel_size,
        stride=1,
        dilation=1,
        is_causal=False,
        scale=None,
        additional_keys=None,
        additional_values=None,
        attention_kwargs=None,
        backend=None,
        q_tile_shape=None,
        kv_tile_shape=None,
        backward_q_tile_shape=None,
        backward_kv_tile_shape=None,
        backward_kv_splits=None,
        backward_use_pt_reduction=False,
        run_persistent_kernel=True,
        kernel_schedule=None,
        torch_compile=False,
        try_fuse_additional_kv=False,
        return_lse=False,
    ):
        return _neighborhood(rank, locals())

    na.__name__ = na.__qualname__ = f"na{rank}d"
    na.__doc__ = (
        f"Neighborhood attention over {rank} {'axis' if rank == 1 else 'axes'}: see nearfield.na{rank}d. "
        "Arguments from q_tile_shape to try_fuse_additional_kv have no effect."
    )
    return na


na1d, na2d, na3d = (_of_rank(rank) for rank in (1, 2, 3))


def neighborhood_attention_generic(query, *args, **kwargs):
    """na1d, na2d or na3d, by the rank of query."""
    op = "neighborhood_attention_generic"
    arguments.check_tensor(op, "query", query)
    if query.dim() not in (4, 5, 6):
        raise ValueError(f"[{op}] got a query of rank {query.dim()}, expected 4, 5 or 6")
    return (na1d, na2d, na3d)[query.dim() - 4](query, *args, **kwargs)


def attention(
    query,
    key,
    value,
    is_causal=False,
    scale=None,
    seqlens_Q=None,
    seqlens_KV=None,
    cumulative_seqlen_Q=None,
    cumulative_seqlen_KV=None,
    max_seqlen_Q=None,
    max_seqlen_KV=None,
    backend=None,
    q_tile_size=None,
    kv_tile_size=None,
    backward_q_tile_size=None,
    backward_kv_tile_size=None,
    backward_kv_splits=None,
    backward_use_pt_reduction=False,
    run_persistent_kernel=True,
    kernel_schedule=None,
    torch_compile=False,
    return_lse=False,
):
    """Dense attention: see nearfield.attention. is_causal is top-left: query i sees keys 0..i.

    A float in the place of is_causal is the scale, as in that package before 0.21.1. Arguments from
    q_tile_size to torch_compile have no effect. Maxima of 0 without offsets, as generate_varlen_parameters
    returns them without lengths, mean that nothing is packed.
    """
    if isinstance(is_causal, float):
        if scale is not None:
            raise ValueError(
                f"[attention] got the float {is_causal} as is_causal and scale {scale!r}, expected one scale"
            )
        is_causal, scale = False, is_causal
    if cumulative_seqlen_Q is None and cumulative_seqlen_KV is None:
        max_seqlen_Q, max_seqlen_KV = (
            None if type(n) is int and n == 0 else n for n in (max_seqlen_Q, max_seqlen_KV)
        )
    return functional.attention(
        query,
        key,
        value,
        is_causal=False if is_causal is None else is_causal,
        causal_type=functional.CausalType.TopLeft,
        scale=scale,
        seqlens_Q=seqlens_Q,
        seqlens_KV=seqlens_KV,
        cumulative_seqlen_Q=cumulative_seqlen_Q,
        cumulative_seqlen_KV=cumulative_seqlen_KV,
        max_seqlen_Q=max_seqlen_Q,
        max_seqlen_KV=max_seqlen_KV,
        backend=_hints.backend("attention", backend),
        return_lse=return_lse,
    )
