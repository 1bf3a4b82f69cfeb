# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Token permutation as plain torch: pad, split every axis, permute.

An axis of extent L, tile t and dilation d is padded with zeros to r * t * d, r = ceil(L / (t d)), and split
as token = (tile * t + place) * d + group. The dilation groups go to the batch, batch-major; tokens are then
in the order (tiles, places), with the last axis slowest if flip_tiled_dims, else the first.
"""

from __future__ import annotations

import math

import torch

from .... import _arguments as arguments

__all__ = ["token_permute_operation", "token_unpermute_operation"]


def token_permute_operation(tensor, tile_shape, dilation=None, flip_tiled_dims=True, use_torch=True):
    """Tokens of a layout in tiles.

    Args:
        tensor: `[B, *layout, H, D]`.
        tile_shape, dilation: one int per axis; no dilation means 1.
        use_torch: there is only one implementation.

    Returns:
        (output `[B * prod(dilation), tokens of a padded group, H, D]`, layout, layout of a padded group).
    """
    op = "token_permute_operation"
    arguments.check_tensor(op, "tensor", tensor)
    rank = tensor.dim() - 3
    if rank not in (1, 2, 3):
        raise ValueError(f"[{op}] got a tensor of rank {tensor.dim()}, expected 4, 5 or 6")
    tile, dilation = _axes(op, rank, tile_shape, dilation)
    layout = tuple(tensor.shape[1:-2])
    tiles = _tiles(layout, tile, dilation)
    padding = [n * t * d - x for n, t, d, x in zip(tiles, tile, dilation, layout, strict=True)]
    padded = torch.nn.functional.pad(tensor, [0, 0, 0, 0, *(p for n in reversed(padding) for p in (0, n))])
    split = [n for axis in zip(tiles, tile, dilation, strict=True) for n in axis]
    batch, heads, dim = tensor.shape[0], *tensor.shape[-2:]
    output = padded.reshape(batch, *split, heads, dim).permute(_order(rank, flip_tiled_dims))
    output = output.reshape(batch * math.prod(dilation), -1, heads, dim).contiguous()
    return output, layout, tuple(n * t for n, t in zip(tiles, tile, strict=True))


def token_unpermute_operation(
    tensor, token_layout_shape, tile_shape, dilation=None, flip_tiled_dims=True, use_torch=True
):
    """The inverse: `[B * prod(dilation), tokens of a padded group, H, D]` -> `[B, *layout, H, D]`."""
    op = "token_unpermute_operation"
    arguments.check_tensor(op, "tensor", tensor)
    layout = tuple(token_layout_shape)
    rank = len(layout)
    tile, dilation = _axes(op, rank, tile_shape, dilation)
    tiles = _tiles(layout, tile, dilation)
    tokens, groups = math.prod(tiles) * math.prod(tile), math.prod(dilation)
    if tensor.dim() != 4 or tensor.shape[1] != tokens or tensor.shape[0] % groups:
        raise ValueError(
            f"[{op}] got {list(tensor.shape)}, expected [a multiple of {groups}, {tokens}, heads, head_dim]"
        )
    batch, heads, dim = tensor.shape[0] // groups, *tensor.shape[-2:]
    order = _order(rank, flip_tiled_dims)
    split = [batch, *(n for axis in zip(tiles, tile, dilation, strict=True) for n in axis), heads, dim]
    output = tensor.reshape([split[i] for i in order]).permute(torch.tensor(order).argsort().tolist())
    output = output.reshape(
        batch, *(math.prod(split[1 + 3 * i : 4 + 3 * i]) for i in range(rank)), heads, dim
    )
    return output[(slice(None), *(slice(n) for n in layout))].contiguous()


def _axes(op: str, rank: int, tile_shape, dilation):
    tile = arguments.per_axis(op, "tile_shape", tile_shape, rank, int)
    dilation = arguments.per_axis(op, "dilation", 1 if dilation is None else dilation, rank, int)
    if min(*tile, *dilation) < 1:
        raise ValueError(f"[{op}] got tile_shape {tile} and dilation {dilation}, expected numbers from 1 on")
    return tile, dilation


def _tiles(layout, tile, dilation):
    return tuple(-(-x // (t * d)) for x, t, d in zip(layout, tile, dilation, strict=True))


def _order(rank: int, flip: bool) -> list[int]:
    """Batch, groups, tiles, places, heads, channels; axis i is split at 1 + 3i as tile, place, group."""
    axes = list(range(rank))[:: -1 if flip else 1]
    return [0, *(3 * i + part for part in (3, 1, 2) for i in axes), 3 * rank + 1, 3 * rank + 2]
