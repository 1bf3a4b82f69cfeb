# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (RoPE) over token layouts of one, two or three axes.

The channels of a head are cut into one slice of n = D / axes channels per axis, in the layout's order.
Within a slice, channels j and j + n/2 are turned together by the angle p * theta_j (the half split of
GPT-NeoX), where p is the token's position on that axis and

    theta_m = base ** (-2m / n),  m = 0 .. n/2 - 1.

This is a true rotation: lengths stay, and the product of a query and a key depends on the difference of
their positions only. Angles, cosines and sines are computed in float64 and rounded once.

    q, k = nf.rope(q), nf.rope(k)                       # [B, *layout, heads, D]
    q = nf.rope(q, offset=(64, 0))                      # a shard, or a step with a key/value cache
    q, k = (nf.rope(t, factor=2) for t in (q, k))       # trained on half the resolution

Sources: Su et al., RoFormer (2021); Chen et al., Extending Context Window via Positional Interpolation
(2023) for scaling="linear"; the NTK-aware change of base for scaling="ntk".
"""

from __future__ import annotations

import math
import numbers

import torch

from . import _arguments as arguments

__all__ = ["apply_rope", "rope", "rope_tables"]

_SCALINGS = ("linear", "ntk")


def rope(x, base=10000.0, *, offset=0, factor=1.0, scaling="linear"):
    """x with every token turned by its position; a new tensor, x stays as it is.

    Args:
        x: `[B, *layout, heads, D]` with 1 to 3 axes, of any floating dtype; D is divisible by 2, 4 or 6.
        base, offset, factor, scaling: as for `rope_tables`.

    Returns:
        A tensor of x's shape and dtype. 16-bit inputs are turned in float32 and rounded once.

    Raises:
        ValueError, TypeError, NotImplementedError: `[rope] got X, expected Y; hint`.
    """
    _check_input("rope", x)
    layout, dim = x.shape[1:-2], x.shape[-1]
    _check_dim("rope", dim, len(layout))
    options = _options("rope", len(layout), base, offset, factor, scaling)
    return rotate(x, _tables(layout, dim, options, working_dtype(x.dtype), x.device))


def rope_tables(
    layout,
    head_dim,
    base=10000.0,
    *,
    offset=0,
    factor=1.0,
    scaling="linear",
    dtype=torch.float32,
    device=None,
):
    """The cosines and sines for a token layout, to be used many times with `apply_rope`.

    Args:
        layout: extents of 1 to 3 axes.
        head_dim: D, divisible by 2, 4 or 6 for 1, 2 or 3 axes.
        base: theta_m = base ** (-2m / n); positive.
        offset: position of the first token, one number or one per axis; fractions are allowed.
        factor: how many times finer the layout is than the one that the model was trained on (new extent
            over old), one number or one per axis; positive.
        scaling: what factor does. "linear": positions are divided by it (position interpolation). "ntk":
            the base becomes `base * factor ** (n / (n - 2))`, so that the slowest channels are
            interpolated and the fastest stay (no effect where n is 2).
        dtype: a floating dtype, to which the float64 values are rounded.
        device: default: torch's default device.

    Returns:
        One pair (cos, sin) per axis, each `[extent, n]`; column j holds the angle of channel j.

    Raises:
        ValueError, TypeError: `[rope_tables] got X, expected Y; hint`.
    """
    op = "rope_tables"
    layout = extents(op, "layout", layout)
    if not arguments.is_int(head_dim):
        raise TypeError(f"[{op}] got head_dim of type {arguments.type_name(head_dim)}, expected int")
    if not 1 <= len(layout) <= 3:
        raise ValueError(f"[{op}] got layout {layout}, expected 1, 2 or 3 axes")
    _check_dim(op, head_dim, len(layout))
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"[{op}] got dtype {dtype!r}, expected a floating torch.dtype")
    options = _options(op, len(layout), base, offset, factor, scaling)
    return _tables(layout, head_dim, options, dtype, device)


def apply_rope(x, tables):
    """x turned by tables of `rope_tables`; a new tensor, x stays as it is.

    Args:
        x: `[B, *layout, heads, D]` of any floating dtype.
        tables: one pair (cos, sin) per axis, `[extent, n]` with the extents of x's layout; n D / axes.

    Returns:
        A tensor of x's shape and dtype.
    """
    op = "apply_rope"
    _check_input(op, x)
    if not isinstance(tables, (tuple, list)) or not all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in tables
    ):
        raise TypeError(f"[{op}] got tables of another form than pairs (cos, sin), expected one per axis")
    layout, dim = x.shape[1:-2], x.shape[-1]
    if len(tables) != len(layout):
        raise ValueError(f"[{op}] got {len(tables)} tables, expected one per axis of {tuple(layout)}")
    _check_dim(op, dim, len(layout))
    for pair, extent in zip(tables, layout, strict=True):
        for name, table in zip(("cos", "sin"), pair, strict=True):
            arguments.check_tensor(op, name, table)
            if table.dim() != 2 or table.shape[0] != extent or table.shape[1] * len(layout) != dim:
                raise ValueError(
                    f"[{op}] got a {name} table of shape {tuple(table.shape)} for x {tuple(x.shape)}, "
                    f"expected {(extent, dim // len(layout))}; rope_tables(layout, head_dim) makes it"
                )
            if table.device != x.device:
                raise ValueError(f"[{op}] got a table on {table.device}, expected {x.device}, as x")
    return rotate(x, tables)


# ---- what the modules share: no checks


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def rotate(x, tables):
    """The rotation in the working dtype, rounded to x's dtype at the end."""
    work, axes, parts = working_dtype(x.dtype), len(tables), []
    for axis, (part, pair) in enumerate(zip(x.to(work).chunk(axes, -1), tables, strict=True)):
        half = part.shape[-1] // 2
        # [extent, 1 for every later axis and the heads, n]
        cos, sin = (t.to(work).reshape(t.shape[0], *(1,) * (axes - axis), 2 * half) for t in pair)
        first, second = part[..., :half], part[..., half:]
        parts.append(first * cos[..., :half] - second * sin[..., :half])
        parts.append(second * cos[..., half:] + first * sin[..., half:])
    return torch.cat(parts, -1).to(x.dtype)


def extents(op: str, name: str, layout) -> tuple:
    """A sequence of whole numbers from 0 on, of any kind of sequence."""
    try:
        layout = tuple(layout)
    except TypeError:
        raise TypeError(
            f"[{op}] got {name} of type {arguments.type_name(layout)}, expected a sequence of ints"
        ) from None
    for n in layout:
        if not arguments.is_int(n):
            raise TypeError(f"[{op}] got {name} with an entry of type {arguments.type_name(n)}, expected int")
        if n < 0:
            raise ValueError(f"[{op}] got {name} {layout}, expected extents from 0 on")
    return tuple(int(n) if isinstance(n, numbers.Integral) else n for n in layout)


def _tables(layout, dim, options, dtype, device):
    base, offsets, factors, scaling = options
    n, tables = dim // len(layout), []
    exponents = torch.arange(0, n, 2, dtype=torch.float64, device=device) / -n
    for extent, offset, factor in zip(layout, offsets, factors, strict=True):
        ntk = scaling == "ntk" and n > 2
        theta = (base * factor ** (n / (n - 2)) if ntk else base) ** exponents
        positions = torch.arange(extent, dtype=torch.float64, device=device) + offset
        if scaling == "linear":
            positions = positions / factor
        angles = (positions[:, None] * theta).repeat(1, 2)
        tables.append((angles.cos().to(dtype), angles.sin().to(dtype)))
    return tuple(tables)


def _check_input(op: str, x) -> None:
    arguments.check_tensor(op, "x", x)
    if not x.is_floating_point():
        raise ValueError(f"[{op}] got x of dtype {x.dtype}, expected a floating one")
    if not 4 <= x.dim() <= 6:
        raise ValueError(f"[{op}] got x of rank {x.dim()}, expected 4 to 6: [B, *layout, heads, head_dim]")


def _check_dim(op: str, dim, axes: int) -> None:
    if dim < 1 or dim % (2 * axes):
        raise ValueError(
            f"[{op}] got head_dim {dim}, expected a multiple of {2 * axes}; each of {axes} axes turns pairs"
        )


def _options(op: str, axes: int, base, offset, factor, scaling):
    base = arguments.number(op, "base", base)
    if not 0 < base < math.inf:
        raise ValueError(f"[{op}] got base {base}, expected a positive number")
    offsets = _numbers(op, "offset", offset, axes)
    factors = _numbers(op, "factor", factor, axes)
    if any(isinstance(x, (int, float)) and not -(2.0**62) < x < 2.0**62 for x in offsets):
        raise ValueError(f"[{op}] got offset {offset}, expected finite numbers below 2**62")
    if any(not 2.0**-62 < x < 2.0**62 for x in factors):
        raise ValueError(
            f"[{op}] got factor {factor}, expected positive numbers below 2**62; it is new extent over old"
        )
    if scaling not in _SCALINGS:
        raise ValueError(f"[{op}] got scaling {scaling!r}, expected one of {', '.join(_SCALINGS)}")
    return base, offsets, factors, scaling


def _numbers(op: str, name: str, value, axes: int) -> tuple:
    if not isinstance(value, (tuple, list)):
        value = (value,) * axes
    if len(value) != axes:
        raise ValueError(
            f"[{op}] got {name} of length {len(value)}, expected {axes}; give one number, or one per axis"
        )
    return tuple(x if arguments.is_int(x) else arguments.number(op, name, x) for x in value)
