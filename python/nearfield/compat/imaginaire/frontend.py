# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The five operations with the arguments of the package.

- `backend` takes that package's names, on every device and for every feature: they select nearfield's
  automatic choice. nearfield's own names select what they say.
- `backend_kwargs` are hints about speed, and have no effect: no name of a tile, a split or a schedule is
  an error, whatever its value. Names that would change results are refused, for they cannot be ignored.
- `merge_attentions` does not compile by default; that changes no result.
"""

from ... import functional
from ..._ops import BACKENDS as OURS

BACKENDS = ("natten", "flash2", "flash3", "flash4", "cudnn")
# Those that "natten" chooses from; they come in backend_kwargs["backend"].
KERNELS = tuple(
    f"{kind}-{problem}" for kind in ("cutlass", "hopper", "blackwell", "flex") for problem in ("fna", "fmha")
)
HINTS = (
    "backend",
    *(
        f"{direction}{side}_tile_{word}"
        for direction in ("", "backward_")
        for side in ("q", "kv")
        for word in ("size", "shape")
    ),
    "attention_kwargs",
    "backward_kv_splits",
    "backward_use_pt_reduction",
    "deterministic",
    "kernel_schedule",
    "num_splits",
    "pack_gqa",
    "run_persistent_kernel",
    "sm_margin",
    "torch_compile",
    "try_fuse_additional_kv",
)


def backend_of(op: str, backend, where: str = "backend"):
    """The backend for nearfield: None, the automatic choice, for the package's names."""
    if not isinstance(backend, str) or backend in OURS:
        return backend
    if backend not in (*BACKENDS, *KERNELS):
        raise ValueError(
            f"[{op}] got {where} {backend!r}, expected one of {', '.join((*BACKENDS, *KERNELS, *OURS))}"
        )
    return None


def check_hints(op: str, hints) -> None:
    if hints is None:
        return
    if not isinstance(hints, dict):
        raise TypeError(f"[{op}] got backend_kwargs of type {type(hints).__name__}, expected a dict or None")
    for name in hints:
        if name not in HINTS:
            raise ValueError(
                f"[{op}] got backend_kwargs with {name!r}, expected hints about speed: {', '.join(HINTS)}"
            )
    backend_of(op, hints.get("backend"), "backend_kwargs['backend']")


def attention(
    query,
    key,
    value,
    is_causal=False,
    causal_type=None,
    scale=None,
    seqlens_Q=None,
    seqlens_KV=None,
    cumulative_seqlen_Q=None,
    cumulative_seqlen_KV=None,
    max_seqlen_Q=None,
    max_seqlen_KV=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
):
    """Dense attention, also of packed sequences: `nearfield.attention`."""
    check_hints("attention", backend_kwargs)
    return functional.attention(
        query,
        key,
        value,
        is_causal,
        causal_type,
        scale,
        seqlens_Q,
        seqlens_KV,
        cumulative_seqlen_Q,
        cumulative_seqlen_KV,
        max_seqlen_Q,
        max_seqlen_KV,
        backend_of("attention", backend),
        return_lse,
    )


def multi_dimensional_attention(
    query,
    key,
    value,
    window_size=-1,
    stride=1,
    dilation=1,
    is_causal=False,
    scale=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
):
    """Attention over 1 to 3 axes: `nearfield.multi_dimensional_attention`."""
    op = "multi_dimensional_attention"
    check_hints(op, backend_kwargs)
    return functional.multi_dimensional_attention(
        query,
        key,
        value,
        window_size,
        stride,
        dilation,
        is_causal,
        scale,
        backend_of(op, backend),
        return_lse,
    )


def multi_dimensional_attention_varlen(
    query,
    key,
    value,
    metadata,
    scale=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
):
    """The same of packed sequences: `nearfield.multi_dimensional_attention_varlen`."""
    op = "multi_dimensional_attention_varlen"
    check_hints(op, backend_kwargs)
    return functional.multi_dimensional_attention_varlen(
        query, key, value, metadata, scale, backend_of(op, backend), return_lse
    )


def spatio_temporal_attention(
    query,
    key,
    value,
    window_size=-1,
    stride=1,
    dilation=1,
    scale=None,
    backend=None,
    return_lse=False,
    backend_kwargs=None,
):
    """Attention over video, causal in time: `nearfield.spatio_temporal_attention`."""
    op = "spatio_temporal_attention"
    check_hints(op, backend_kwargs)
    return functional.spatio_temporal_attention(
        query,
        key,
        value,
        window_size,
        stride,
        dilation,
        scale,
        backend_of(op, backend),
        return_lse,
    )


def merge_attentions(outputs, lse_tensors, torch_compile=False):
    """Attention over all keys from attentions over parts of them: `nearfield.merge_attentions`."""
    return functional.merge_attentions(outputs, lse_tensors, torch_compile)
