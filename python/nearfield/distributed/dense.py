# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Dense attention over a sequence that is cut among ranks."""

from __future__ import annotations

from .. import _arguments as arguments
from .._shard_call import current_flags, seed_of
from ..functional import CausalType
from . import _operators as operators
from ._agree import check_no_transforms, telling
from ._problem import METHODS
from ._sequence import PATTERNS
from ._team import team_of
from .neighborhood import NAMES, check_input, needs_gradients

_OP = "attention"


def attention(
    query,
    key,
    value,
    is_causal=False,
    causal_type=None,
    scale=None,
    additional_keys=None,
    additional_values=None,
    return_lse=False,
    *,
    group,
    pattern="contiguous",
    method=None,
    dropout_p=0.0,
    backend=None,
):
    """`nearfield.attention` of a sequence of which every rank passes its part.

    Args:
        query, key, value: `[B, own queries, H, D]`, `[B, own keys, Hkv, D]`, `[B, own keys, Hkv, Dv]`.
        is_causal, causal_type, scale: as for `nearfield.attention`, of the whole sequence.
        additional_keys, additional_values: `[B, S, Hkv, D]`, `[B, S, Hkv, Dv]`: seen by every query, the same
            on every rank.
        return_lse: also return lse `[B, own queries, H]`.
        group: a process group, or a DeviceMesh of one dimension.
        pattern: "contiguous": slabs in rank order, of any size, also none. "zigzag": the sequence is cut in
            2P slabs as torch.tensor_split does, and rank r passes slabs r and 2P-1-r, one behind the other;
            causal work is then the same on every rank. Queries and keys are each cut so.
        method: "ring": keys go round, memory O(L / P). "gather": one exchange of all keys that are seen.
            "heads": an all-to-all gives each rank all tokens of its heads; their number must divide by P.
            None: gather up to 1 MiB of keys and values, else ring.
        dropout_p: as for `nearfield.attention`; rank 0's seed counts, and the mask is that of the unsharded
            call. Not with method "heads".
        backend: as for `nearfield.attention`.

    Returns:
        This rank's part of the output `[B, own queries, H, Dv]`, or (output, lse).

    Raises:
        as for `neighborhood_attention`.
    """
    return attend_sequence(
        _OP,
        (query, key, value, additional_keys, additional_values),
        group,
        is_causal=is_causal,
        causal_type=causal_type,
        scale=scale,
        pattern=pattern,
        method=method,
        dropout_p=dropout_p,
        backend=backend,
        return_lse=return_lse,
    )


def attend_sequence(
    op,
    tensors,
    group,
    *,
    is_causal,
    causal_type,
    scale,
    pattern,
    method,
    dropout_p,
    backend,
    return_lse,
    units=(1, 1),
):
    """The same for modules. units: tokens of queries and of keys that a cut of the zigzag keeps together."""
    team, shape = team_of(op, group)
    with telling(team):
        check_no_transforms(op)
        for name, x in zip(NAMES, tensors, strict=False):
            check_input(op, name, x)
        if len(shape) != 1:
            raise ValueError(f"[{op}] got a mesh of {len(shape)} dimensions, expected one; take mesh['name']")
        arguments.check_bool(op, "is_causal", is_causal)
        arguments.check_bool(op, "return_lse", return_lse)
        if is_causal and not isinstance(causal_type, CausalType):
            raise ValueError(
                f"Argument causal_type must be specified as a CausalType if is_causal, got {causal_type!r}."
            )
        for name, x, legal in (("pattern", pattern, PATTERNS), ("method", method, (None, *METHODS))):
            if x not in legal:
                raise ValueError(f"[{op}] got {name} {x!r}, expected one of {', '.join(map(repr, legal))}")
        spec = operators.written(
            team,
            kind="attention",
            causal_type=int(causal_type) if is_causal else 0,
            scale=arguments.number(op, "scale", scale, optional=True),
            dropout_p=arguments.number(op, "dropout_p", dropout_p),
            backend=arguments.backend_number(op, backend),
            flags=current_flags(),
            pattern=pattern,
            method=method,
            units=units,
            **needs_gradients(tensors),
        )
        tensors = arguments.autocast(*tensors)
    more = [operators.replicated(x, n, team) for n, x in zip(NAMES[3:5], tensors[3:], strict=True)]
    seed = seed_of(dropout_p, tensors[0])
    out, lse, *_ = operators.attend(*tensors[:3], *more, None, seed, *spec)
    return (out, lse) if return_lse else out
