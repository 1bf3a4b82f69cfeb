# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Dense attention, of a batch or of packed sequences."""

from __future__ import annotations

from enum import IntEnum

from . import _arguments as arguments
from . import _call, _core, _ops, _packing
from ._autograd import attend
from ._flags import flags

_FUNCTION = _core.FUNCTIONS.index("attention")


class CausalType(IntEnum):
    """Which queries the causal mask lets see which keys where their numbers differ.

    TopLeft: query i sees keys 0..i. BottomRight: the last query sees the last key. DontCare: only legal
    where the lengths are equal, and both are the same.
    """

    TopLeft = 1
    BottomRight = 2
    DontCare = 3


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
    *,
    q_tile_size=None,
    kv_tile_size=None,
    backward_q_tile_size=None,
    backward_kv_tile_size=None,
    backward_kv_splits=None,
    backward_use_pt_reduction=False,
    run_persistent_kernel=True,
    kernel_schedule=None,
    torch_compile=False,
    dropout_p=0.0,
):
    """Dense attention: query `[B, Lq, H, D]`, key `[B, Lkv, Hkv, D]`, value `[B, Lkv, Hkv, Dv]`.

    Args:
        is_causal: mask out later keys; needs a `causal_type`.
        causal_type: a `CausalType`; ignored without `is_causal`.
        scale: factor of the scores; default `D ** -0.5`.
        seqlens_Q, seqlens_KV: lengths [n] of sequences packed along the token axis of `[1, total, heads,
            channels]`, int32 or int64, on the device of query; they add up to the totals. They are read,
            which waits for a GPU: `nearfield.varlen.generate_varlen_parameters` reads them once for all
            layers, and gives the four arguments that follow.
        cumulative_seqlen_Q, cumulative_seqlen_KV: offsets [n + 1] instead: sequence b owns the tokens
            `offsets[b] .. offsets[b + 1] - 1`. Tokens behind the last offset belong to no sequence.
        max_seqlen_Q, max_seqlen_KV: upper bounds on the lengths; both or neither.
        backend, backend_kwargs and the arguments behind: as for `na1d`; tile sizes are one number.
        return_lse: also return lse `[B, Lq, H]`.
        dropout_p: as for `na1d`.

    Returns:
        The output `[B, Lq, H, Dv]`, or (output, lse). A query that sees nothing gives 0 and -inf. Packed
        sequences do not see each other; causal types count within each, and DontCare asks that the lengths
        of each be equal.
    """
    op, a = "attention", locals()
    packing = _packing.taken_from(a)
    tensors = _call.tensors_of(op, a)
    arguments.check_bool(op, "is_causal", is_causal)
    if is_causal and not isinstance(causal_type, CausalType):
        raise ValueError(
            f"Argument causal_type must be specified as a CausalType if is_causal, got {causal_type!r}."
        )
    del a["causal_type"]
    packed = _packing.packed_arguments(op, {"query": query, "key": key, **packing})
    numbers, return_lse = _checked(op, a)
    out, lse = attend_dense((*tensors, None, None), causal_type if is_causal else None, **numbers, **packed)
    return (out, lse) if return_lse else out


@_call.remembered
def _checked(op: str, a: dict):
    """(Fields of Config, return_lse)."""
    a = {**a, **arguments.with_performance(op, "backend_kwargs", a["backend_kwargs"], a)}
    arguments.check_hints(op, 1, a)
    numbers = {
        "scale": arguments.number(op, "scale", a["scale"], optional=True),
        "dropout_p": arguments.number(op, "dropout_p", a["dropout_p"]),
        "backend": arguments.backend_number(op, a["backend"]),
        "tiles": _call.tiles_of(op, a, 1, "size"),
    }
    return numbers, arguments.check_bool(op, "return_lse", a["return_lse"])


def attend_dense(tensors, causal_type=None, *, dropout_p=0.0, **config):
    """(out, lse) of query, key, value, additional keys and values (or None); `config`: fields of Config.
    Arguments have been checked for their Python types."""
    config = _ops.Config(
        **config,
        seed=_call.seed_of(dropout_p, tensors[0]),
        dropout_p=dropout_p,
        function=_FUNCTION,
        causal_type=0 if causal_type is None else int(causal_type),
        flags=flags(),
    )
    return attend(*arguments.autocast(*tensors), None, config)
