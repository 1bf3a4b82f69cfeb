# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Python types of the arguments, which the dispatcher would hide; values are checked in C++."""

from __future__ import annotations

import contextlib
import numbers

import torch

from . import _ops

_any_autocast = torch._C._is_any_autocast_enabled
_TILE_HINT = "one whole number per axis"


@contextlib.contextmanager
def in_name_of(op: str, function: str, **names: str):
    """What `function` refuses in here is said in the name of `op`, and of its arguments: theirs="ours"."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error).replace(f"[{function}]", f"[{op}]", 1)
        for theirs, ours in names.items():
            text = text.replace(theirs, ours)
        raise type(error)(text) from None


def check_tensor(op: str, name: str, tensor, optional: bool = False) -> None:
    if tensor is None and optional:
        return
    if not isinstance(tensor, torch.Tensor):
        hint = "; torch.tensor(...) makes one" if isinstance(tensor, (list, tuple)) else ""
        raise TypeError(f"[{op}] got {name} of type {type(tensor).__name__}, expected a torch.Tensor{hint}")
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else "sparse"
        raise NotImplementedError(
            f"[{op}] got a {kind} tensor as {name}, expected a dense one; use .to_dense(), or pad it"
        )


def type_name(x) -> str:
    """`int`, `numpy.bool`, ...: with the module where that is not Python's own."""
    kind = type(x)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_int(x) -> bool:
    """Whole numbers of Python, NumPy or a traced graph; bool is none."""
    # The first test is the usual case, and ten times as fast as the question to an abstract class.
    return type(x) is int or (isinstance(x, (numbers.Integral, torch.SymInt)) and not isinstance(x, bool))


def _is_bool(x) -> bool:
    return isinstance(x, bool)


def per_axis(op: str, name: str, value, rank: int, kind: type) -> tuple:
    """A scalar for every axis, or a tuple or list with one entry per axis."""
    right = is_int if kind is int else _is_bool
    word = kind.__name__
    if right(value):
        value = (value,) * rank
    if not isinstance(value, (tuple, list)):
        raise TypeError(
            f"[{op}] got {name} of type {type_name(value)}, expected {word} or a tuple of {rank} {word}s"
        )
    if len(value) != rank:
        raise ValueError(
            f"[{op}] got {name} of length {len(value)}, expected {rank}; give one number, or one per axis"
        )
    for x in value:
        if not right(x):
            raise TypeError(f"[{op}] got {name} with an entry of type {type_name(x)}, expected {word}")
        if (type(x) is int or isinstance(x, numbers.Integral)) and not -(2**63) <= x < 2**63:
            raise ValueError(f"[{op}] got {name} {x}, expected a number of at most 64 bits")
    return tuple(value)


def check_bool(op: str, name: str, value) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"[{op}] got {name} of type {type(value).__name__}, expected bool")
    return value


def number(op: str, name: str, value, optional: bool = False) -> float | None:
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        hint = ""
        if isinstance(value, torch.Tensor):
            hint = "; multiply query by it" if name == "scale" else "; .item() makes one"
        raise TypeError(f"[{op}] got {name} of type {type_name(value)}, expected a number{hint}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"[{op}] got a {name} beyond float64, expected a finite number") from None


PERFORMANCE_DEFAULTS = {
    "backend": None,
    "q_tile_size": None,
    "kv_tile_size": None,
    "backward_q_tile_size": None,
    "backward_kv_tile_size": None,
    "backward_kv_splits": None,
    "backward_use_pt_reduction": False,
    "run_persistent_kernel": True,
    "kernel_schedule": None,
    "torch_compile": False,
}


def with_performance(op: str, name: str, kwargs, direct: dict, word: str = "size") -> dict:
    """Performance arguments: the direct ones, filled up from a dictionary that may not contradict them and
    holds nothing else. The dictionary is left as it is. word: tiles are called q_tile_size (attention) or
    q_tile_shape (several axes)."""
    defaults = {key.replace("_size", f"_{word}"): value for key, value in PERFORMANCE_DEFAULTS.items()}
    merged = {key: direct.get(key, default) for key, default in defaults.items()}
    if kwargs is None:
        return merged
    if not isinstance(kwargs, dict):
        raise TypeError(f"[{op}] got {name} of type {type(kwargs).__name__}, expected a dict or None")
    for key, value in kwargs.items():
        if key not in defaults:
            raise ValueError(
                f"[{op}] got {name} with {key!r}, expected performance arguments only: {', '.join(defaults)}"
            )
        default = defaults[key]
        if merged[key] != default and value != default and merged[key] != value:
            raise ValueError(
                f"[{op}] got {key}={merged[key]!r} and {name}[{key!r}]={value!r}, expected them to agree"
            )
        merged[key] = merged[key] if value == default and type(value) is type(default) else value
    return merged


def backend_number(op: str, backend) -> int:
    if backend is None:
        return 0
    if not isinstance(backend, str):
        raise TypeError(f"[{op}] got backend of type {type(backend).__name__}, expected str or None")
    if backend not in _ops.BACKENDS:
        raise ValueError(
            f"[{op}] got backend {backend!r}, expected one of {', '.join(_ops.BACKENDS)}; "
            "None takes the best one"
        )
    return _ops.BACKENDS[backend]


def tile(op: str, name: str, shape, rank: int) -> tuple[int, int, int]:
    """A tile shape as three axes; zeros where none is given."""
    if shape is None:
        return (0, 0, 0)
    if not isinstance(shape, (tuple, list)) or not all(is_int(n) for n in shape):
        raise TypeError(f"[{op}] got {name} {shape!r}, expected a tuple of {rank} ints")
    if len(shape) != rank or any(not 1 <= n < 2**31 for n in shape):
        raise ValueError(f"[{op}] got {name} {tuple(shape)}, expected {rank} numbers from 1 on; {_TILE_HINT}")
    return (1,) * (3 - rank) + tuple(shape)


def check_hints(op: str, rank: int, a: dict) -> None:
    """Performance arguments that the backends so far have no use for: checked for form only."""
    splits, schedule = a["backward_kv_splits"], a["kernel_schedule"]
    if splits is not None:
        entries = splits if isinstance(splits, (tuple, list)) else (splits,)
        if len(entries) not in (1, rank) or not all(is_int(n) and n >= 1 for n in entries):
            raise ValueError(
                f"[{op}] got backward_kv_splits {splits!r}, expected None, or ints from 1 on, "
                "one or one per axis"
            )
    if schedule is not None and not isinstance(schedule, str):
        raise TypeError(f"[{op}] got kernel_schedule of type {type(schedule).__name__}, expected str or None")
    for name in (
        "backward_use_pt_reduction",
        "run_persistent_kernel",
        "torch_compile",
        "try_fuse_additional_kv",
    ):
        if name in a:
            check_bool(op, name, a[name])


def autocast(query, *tensors):
    """float32 and 16-bit tensors in autocast's dtype where it is on for their device, as SDPA's would be."""
    if not _any_autocast():
        return query, *tensors
    device = query.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return query, *tensors
    dtype = torch.get_autocast_dtype(device)

    def cast(t):
        eligible = t is not None and t.is_floating_point() and t.dtype != torch.float64
        return t.to(dtype) if eligible else t

    return tuple(cast(t) for t in (query, *tensors))
