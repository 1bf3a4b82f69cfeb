# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The core library for Python: geometry, plans and checks (include/nearfield/c.h), by ctypes.

Text and integers go in, JSON comes out; errors become ValueError with the core's message. Nothing here
needs torch, and nothing computes geometry: that is done once, in C++.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import struct
from collections.abc import Sequence
from pathlib import Path

_DTYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3, "int32": 4, "int64": 5}
_DEVICES = {"cpu": 0, "cuda": 1, "meta": 2}


@functools.cache
def _library() -> ctypes.CDLL:
    path = Path(__file__).parent / "libnearfield.so"
    if not path.exists():
        raise ImportError(
            f"nearfield: {path.name} is missing beside {__file__}; install the package, `pip install .`"
        )
    lib = ctypes.CDLL(str(path))
    words = ctypes.POINTER(ctypes.c_int64)
    for name, arguments in {
        "nf_info": [],
        "nf_device_class": [ctypes.c_char_p],
        "nf_problem": [ctypes.c_char_p],
        "nf_explain": [ctypes.c_char_p, ctypes.c_int],
        "nf_plan": [ctypes.c_char_p, ctypes.c_int],
        "nf_tiles": [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int],
        "nf_tuner_problems": [ctypes.c_char_p],
        "nf_tuner": [ctypes.c_char_p, ctypes.c_char_p],
        "nf_collect": [ctypes.c_int],
        "nf_intervals": [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int],
        "nf_needed_keys": [ctypes.c_char_p, words, ctypes.c_int],
        "nf_inner_queries": [ctypes.c_char_p, words, ctypes.c_int],
        "nf_check": [words, ctypes.c_int64],
        "nf_check_lengths": [
            *[ctypes.c_char_p] * 2,
            words,
            *[ctypes.c_int64] * 2,
            ctypes.c_char_p,
        ],
    }.items():
        function = getattr(lib, name)
        function.argtypes = arguments
        function.restype = ctypes.c_void_p  # not c_char_p: the pointer must be given back
    lib.nf_kept.argtypes = [
        ctypes.c_int64,
        ctypes.c_double,
        ctypes.c_int64,
        ctypes.c_int64,
        words,
        words,
        ctypes.c_int64,
        ctypes.c_char_p,
    ]
    lib.nf_kept.restype = None
    lib.nf_fma.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_double]
    lib.nf_fma.restype = ctypes.c_double
    lib.nf_free.argtypes = [ctypes.c_void_p]
    lib.nf_free.restype = None
    return lib


def _call(name: str, *arguments):
    lib = _library()
    pointer = getattr(lib, name)(*arguments)
    if not pointer:
        raise MemoryError(f"nearfield: {name} ran out of memory")
    try:
        answer = json.loads(ctypes.string_at(pointer))
    finally:
        lib.nf_free(pointer)
    if "error" in answer:  # bytes beyond ASCII come as a character each
        raise ValueError(answer["error"].encode("latin-1", "replace").decode("utf-8", "replace"))
    return answer["ok"]


def _text(text: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"[problem string] got {type(text).__name__}, expected str")
    return text.replace("\0", "?").encode("utf-8", "replace")


def _words(numbers: Sequence[int]):
    for n in numbers:  # ctypes would wrap silently
        if not -(2**63) <= n < 2**63:
            raise ValueError(f"[nearfield] got {n}, expected a number of at most 64 bits")
    return (ctypes.c_int64 * len(numbers))(*numbers)


@functools.cache
def info() -> dict:
    """Version, backends (fastest first), the CPU target in use and those that this machine has."""
    return _call("nf_info")


def device_class(backend: str) -> str:
    """The class of the machine that a backend runs on, `zen4`; of a GPU, which this starts the driver of,
    `sm90`."""
    return _call("nf_device_class", _text(backend))


def problem(text: str) -> dict:
    """The canonical form of a problem string, with rank, sequences, pairs, flops, sparsity, what the string
    says (`fields`) and what the planner predicts (c.h, nf_problem)."""
    return _call("nf_problem", _text(text))


def _device(op: str, device: str) -> int:
    if device not in ("cpu", "cuda"):
        raise ValueError(f"[{op}] got device {device!r}, expected 'cpu' or 'cuda'")
    return _DEVICES[device]


def explain(call: str, device: str = "cpu") -> str:
    """Every backend for `PROBLEM[@BACKEND[/KERNEL][,qTILE[,kvTILE]]]`: its plan, or its reason to refuse."""
    return _call("nf_explain", _text(call), _device("explain", device))


def plan(call: str, device: str = "cpu") -> list[dict]:
    """What explain() says, for programs: an entry for each backend (c.h, nf_plan)."""
    return _call("nf_plan", _text(call), _device("plan", device))


def tiles(call: str, sequence: int = 0, group: int = 0, rows: bool = False) -> dict:
    """Tile pairs of a sequence, skipped, partial and full, under the call's tiles or its plan's (c.h,
    nf_tiles)."""
    _words((sequence, group))
    return _call("nf_tiles", _text(call), sequence, group, int(rows))


def tuner_problems(problem: str) -> list[str]:
    """What each sequence of a problem is called in a tuner file."""
    return _call("nf_tuner_problems", _text(problem))


def use_tuner(text: str | None, name: str = "tuner") -> int:
    """Uses the lines of a tuner file in the whole process; None: those of NEARFIELD_TUNER again. Returns how
    many count on this version."""
    return _call("nf_tuner", None if text is None else _text(text), _text(name))


@contextlib.contextmanager
def collected():
    """Gives a list that has the problems that the process ran within it, each once, when it ends."""
    problems: list[str] = []
    _call("nf_collect", 1)
    try:
        yield problems
    finally:
        problems += _call("nf_collect", 0)


def fma(target: str, threads: int, milliseconds: float = 2.0) -> float:
    """The peak of `threads` threads together now, in GFLOP/s of float32 multiply-adds (c.h, nf_fma)."""
    rate = _library().nf_fma(target.encode(), threads, milliseconds)
    if rate <= 0:
        raise ValueError(f"[fma] got CPU target {target!r}, expected one that this machine has")
    return rate


def intervals(problem: str, sequence: int, axis: int) -> dict:
    """The keys that the queries of an axis see: `dilation`, and lists `begin` and `end`, in tokens.

    Query i (of those present) sees begin[i], begin[i] + dilation, ... below end[i].
    """
    _words((sequence,))
    if not 0 <= axis < 3:
        raise ValueError(f"[intervals] got axis {axis}, expected 0 to 2")
    return _call("nf_intervals", _text(problem), sequence, axis)


def needed_keys(problem: str, shard: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The keys of the global layout that a shard of queries needs, as (begin, end) per axis."""
    return _of_boxes("nf_needed_keys", problem, shard)


def inner_queries(
    problem: str, shard: Sequence[tuple[int, int]], keys: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The queries of a shard whose windows lie within a box of keys, as (begin, end) per axis."""
    return _of_boxes("nf_inner_queries", problem, (*shard, *keys))


def _of_boxes(name: str, problem: str, pairs) -> list[tuple[int, int]]:
    flat = [number for pair in pairs for number in pair]
    return [tuple(pair) for pair in _call(name, _text(problem), _words(flat), len(flat))]


def _bits(x: float) -> int:
    return struct.unpack("<q", struct.pack("<d", x))[0]


def check_lengths(op: str, name: str, lengths: Sequence[int], total: int, packed: str) -> None:
    """Raises unless lengths of packed sequences are from 0 on and add up to the tokens of `packed`."""
    words = _words(lengths)
    _call("nf_check_lengths", _text(op), _text(name), words, len(lengths), total, _text(packed))


def kept(seed: int, p: float, batch: int, head: int, queries: Sequence[int], keys: Sequence[int]) -> bytes:
    """Which weights dropout keeps, 1 or 0 for each pair of raster numbers (c.h, nf_kept)."""
    buffer = ctypes.create_string_buffer(len(keys))
    _library().nf_kept(seed, p, batch, head, _words(queries), _words(keys), len(keys), buffer)
    return buffer.raw


def check(tensors, scale, dropout_p, function, causal_type, flags, axes, ranges, grids) -> str:
    """Raises what the operator would raise for these shapes, else returns the problem string.

    tensors: query, key, value, additional keys and values, bias, cumulative offsets of queries and of
    keys, each None or (dtype name, device type, device index, sizes).
    """
    words: list[int] = []
    for tensor in tensors:
        if tensor is None:
            words += [0, 0, 0, 0, 0]
            continue
        dtype, device, index, sizes = tensor
        words += [1, _DTYPES.get(dtype, 6), _DEVICES.get(device, 3), index, len(sizes), *sizes]
    words += [int(scale is not None), _bits(scale or 0.0), _bits(dropout_p), function, causal_type, flags]
    for numbers in (axes, ranges, grids):
        words += [len(numbers), *numbers]
    return _call("nf_check", _words(words), len(words))


FUNCTIONS = tuple(info()["functions"])  # the operators' `function` is an index into them
