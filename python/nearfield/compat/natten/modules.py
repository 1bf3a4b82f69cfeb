# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The modules, under that package's module name.

They are nearfield's, and take the arguments of 0.17 too: `dim` for embed_dim, and the order (dim, num_heads,
kernel_size, dilation, is_causal, rel_pos_bias, qkv_bias, qk_scale, attn_drop, proj_drop), known by a bool in
the fifth place, where dilation stands today. Of 0.14 and 0.15, which had `bias` there, by keyword only. None
for stride, dilation or is_causal is the default, as it is there.
"""

from ... import modules

__all__ = [
    "NeighborhoodAttention1D",
    "NeighborhoodAttention2D",
    "NeighborhoodAttention3D",
    "NeighborhoodAttentionGeneric",
]

_OLDER = (
    "embed_dim",
    "num_heads",
    "kernel_size",
    "dilation",
    "is_causal",
    "rel_pos_bias",
    "qkv_bias",
    "qk_scale",
    "attn_drop",
    "proj_drop",
)


_DEFAULTS = {"stride": (3, 1), "dilation": (4, 1), "is_causal": (5, False)}  # place, what None stands for


def _is_causal(value) -> bool:
    entries = value if isinstance(value, (tuple, list)) else (value,)
    return len(entries) > 0 and all(isinstance(x, bool) for x in entries)


class _Older:
    def __init__(self, *args, **kwargs):
        for older, name in (("dim", "embed_dim"), ("bias", "rel_pos_bias")):
            if older in kwargs:
                kwargs[name] = kwargs.pop(older)
        if len(args) > 4 and len(args) <= len(_OLDER) and _is_causal(args[4]):
            older = dict(zip(_OLDER, args, strict=False))
            for name in older.keys() & kwargs.keys():
                raise TypeError(f"[{type(self).__name__}] got {name} twice, expected it once")
            args, kwargs = (), {**older, **kwargs}
        args = list(args)
        for name, (place, default) in _DEFAULTS.items():
            if len(args) > place and args[place] is None:
                args[place] = default
            if kwargs.get(name, default) is None:
                kwargs[name] = default
        super().__init__(*args, **kwargs)


class NeighborhoodAttention1D(_Older, modules.NeighborhoodAttention1D):
    __doc__ = modules.NeighborhoodAttention1D.__doc__


class NeighborhoodAttention2D(_Older, modules.NeighborhoodAttention2D):
    __doc__ = modules.NeighborhoodAttention2D.__doc__


class NeighborhoodAttention3D(_Older, modules.NeighborhoodAttention3D):
    __doc__ = modules.NeighborhoodAttention3D.__doc__


def NeighborhoodAttentionGeneric(na_dim, *args, **kwargs):
    """The module of rank na_dim."""
    classes = {1: NeighborhoodAttention1D, 2: NeighborhoodAttention2D, 3: NeighborhoodAttention3D}
    if na_dim not in classes:
        raise ValueError(f"[NeighborhoodAttentionGeneric] got na_dim {na_dim!r}, expected 1, 2 or 3")
    return classes[na_dim](*args, **kwargs)
