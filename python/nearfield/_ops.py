# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The two operators, `forward` and `backward`, and what torch must know about them.

All Python code reaches the operators through this module. The C++ side (bindings/torch/ops.cc) checks
every call; the fake implementations here compute shapes, and run the same checks where all sizes are
plain integers.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import register_flop_formula

from . import _core

_NAMESPACE = "nearfield"
torch.ops.load_library(str(Path(__file__).parent / "libnearfield_torch.so"))


def _callable(op):
    """The operator as Python calls it. Since PyTorch 2.15 whatever an operator throws is a RuntimeError: the
    core's refusals become ValueErrors again, a lack of memory a MemoryError."""

    def call(*args):
        if torch.compiler.is_compiling():
            return op(*args)
        try:
            return op(*args)
        except RuntimeError as error:
            text = str(error)
            if text.startswith("[") and ", expected " in text:
                raise ValueError(text) from None
            if text == "std::bad_alloc":
                raise MemoryError("nearfield: an operator ran out of memory") from None
            raise

    return call


forward = _callable(torch.ops.nearfield.forward.default)
backward = _callable(torch.ops.nearfield.backward.default)

BACKENDS = {name: i + 1 for i, name in enumerate(_core.info()["backends"])}


_MULTI_DIMENSIONAL_VARLEN = _core.FUNCTIONS.index("multi_dimensional_attention_varlen")


class Config(NamedTuple):
    """The arguments of a call behind q, k, v, additional keys and values and bias, in the schema's order."""

    seed: torch.Tensor | None = None  # int64 [1], with dropout
    offsets_query: torch.Tensor | None = None
    offsets_key: torch.Tensor | None = None
    axes: tuple[int, ...] | None = None  # window, stride, dilation, causal of each axis
    # Lists that have no entries are None: AOTInductor loses empty ones.
    grids: tuple[int, ...] | None = None  # layouts of packed sequences; in attention the two maximal lengths
    ranges: tuple[int, ...] | None = None
    tiles: tuple[int, ...] | None = None
    scale: float | None = None
    dropout_p: float = 0.0
    function: int = 0  # index into _core.FUNCTIONS
    causal_type: int = 0  # 0 none, 1 top-left, 2 bottom-right, 3 don't care
    backend: int = 0  # 0 automatic, else BACKENDS
    flags: int = 0

    @property
    def op(self) -> str:
        return _core.FUNCTIONS[self.function]

    @property
    def varlen(self) -> bool:
        return self.offsets_query is not None or self.function == _MULTI_DIMENSIONAL_VARLEN


def lse_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def described(tensor):
    if tensor is None:
        return None
    device = tensor.device
    return str(tensor.dtype).removeprefix("torch."), device.type, device.index or 0, tuple(tensor.shape)


def problem_string(query, key, value, additional_keys, additional_values, bias, config: Config) -> str:
    """The canonical name of a call, from shapes alone; raises as the operator does. Of cumulative offsets it
    knows the shapes only."""
    tensors = (query, key, value, additional_keys, additional_values, bias)
    return _core.check(
        [described(t) for t in (*tensors, config.offsets_query, config.offsets_key)],
        config.scale,
        config.dropout_p,
        config.function,
        config.causal_type,
        config.flags,
        config.axes or (),
        config.ranges or (),
        config.grids or (),
    )


def _one_device(query, tensors, config: Config) -> None:
    """A meta tensor among real ones would make this module answer with memory that nobody filled."""
    for tensor in (*tensors, *config[:3]):
        if tensor is not None and tensor.device != query.device:
            raise ValueError(
                f"[{config.op}] got tensors on {query.device} and {tensor.device}, expected one device; "
                "move them to one device"
            )


def _all_plain(tensors, config: Config) -> bool:
    tensors = (*tensors, config.offsets_query, config.offsets_key)
    sizes = [n for t in tensors if t is not None for n in t.shape]
    return all(type(n) is int for n in (*sizes, *(config.grids or ()), *(config.ranges or ())))


@torch.library.register_fake(f"{_NAMESPACE}::forward")
def _forward_fake(query, key, value, additional_keys, additional_values, bias, *config):
    config = Config(*config)
    tensors = (query, key, value, additional_keys, additional_values, bias)
    _one_device(query, (), config)
    if _all_plain(tensors, config):
        problem_string(*tensors, config)
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    return out, query.new_empty(query.shape[:-1], dtype=lse_dtype(query.dtype))


@torch.library.register_fake(f"{_NAMESPACE}::backward")
def _backward_fake(
    grad_out, grad_lse, query, key, value, out, lse, additional_keys, additional_values, bias, *config
):
    tensors = (query, key, value, additional_keys, additional_values, bias)
    _one_device(query, (grad_out, grad_lse, *tensors, out, lse), Config(*config))
    additional = (0,)
    if additional_keys is not None:
        additional = (*additional_keys.shape[:-1], additional_keys.shape[-1] + additional_values.shape[-1])
    shapes = (query.shape, key.shape, value.shape, additional, (0,) if bias is None else bias.shape)
    return tuple(query.new_empty(shape) for shape in shapes)


# ---- autograd, for compiled and exported graphs (eager code takes the paths in _autograd.py)

INPUTS = 6  # q, k, v, additional keys and values, bias: what has gradients


def _setup_context(ctx, inputs, output):
    config = Config(*inputs[INPUTS:])
    ctx.config = config._replace(seed=None, offsets_query=None, offsets_key=None)
    ctx.save_for_backward(*inputs[:INPUTS], *output, *config[:3])
    ctx.set_materialize_grads(False)


def call_backward(saved, config: Config, grad_out, grad_lse, op=None):
    """Gradients of the six inputs from what forward saved: these and its two outputs."""
    query, key, value, additional_keys, additional_values, bias, out, lse = saved
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    more = (additional_keys, additional_values, bias)
    *gradients, additional, of_bias = (op or backward)(
        grad_out, grad_lse, query, key, value, out, lse, *more, *config
    )
    if additional_keys is None:
        parts = (None, None)
    else:
        parts = additional.split((additional_keys.shape[-1], additional_values.shape[-1]), dim=-1)
    return *gradients, *parts, None if bias is None else of_bias


def _backward(ctx, grad_out, grad_lse):
    saved = ctx.saved_tensors
    config = Config(*saved[INPUTS + 2 :], *ctx.config[3:])
    return *call_backward(saved[: INPUTS + 2], config, grad_out, grad_lse), *([None] * len(config))


torch.library.register_autograd(f"{_NAMESPACE}::forward", _backward, setup_context=_setup_context)


def refuse_double_backward(op: str):
    raise NotImplementedError(
        f"[{op}] got a second differentiation, expected first derivatives only; the backward pass of "
        "nearfield is not differentiable (drop create_graph=True; torch.func.jvp of the forward pass works)"
    )


def _backward_setup_context(ctx, inputs, output):
    ctx.op = Config(*inputs[INPUTS + 4 :]).op


def _double_backward(ctx, *gradients):
    refuse_double_backward(ctx.op)


torch.library.register_autograd(
    f"{_NAMESPACE}::backward", _double_backward, setup_context=_backward_setup_context
)


# ---- vmap: the mapped axis is folded into the batch


def fold(tensors, in_dims, size: int):
    """Each tensor with its mapped axis, or `size` copies of it, merged into the batch axis."""
    folded = []
    for tensor, dim in zip(tensors, in_dims, strict=True):
        if tensor is None:
            folded.append(None)
            continue
        tensor = (
            tensor.movedim(dim, 0) if dim is not None else tensor.unsqueeze(0).expand(size, *tensor.shape)
        )
        folded.append(tensor.flatten(0, 1))
    return folded


def unfold(tensor, size: int):
    return tensor.unflatten(0, (size, tensor.shape[0] // size))


def _pick(args, dims, i):
    return [a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)]


def one_by_one(op, size: int, args, in_dims):
    """The results for every entry of the mapped axis, each computed alone and stacked."""
    results = [op(*_pick(args, in_dims, i)) for i in range(size)]
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def foldable(config: Config, bias, dims) -> bool:
    """Whether entries may share one call as a larger batch. Packed sequences have batch 1, dropout counts by
    the batch, and the gradient of the bias sums over it."""
    mapped = any(dim is not None for dim in dims)  # of bias, seed, offsets
    return not (config.varlen or config.dropout_p > 0 or bias is not None or mapped)


def _mapped(op, first: int, info, in_dims, args):
    """vmap of an operator with `first` tensors before the additional keys."""
    size, tensors = info.batch_size, first + 2
    in_dims = tuple(d if isinstance(a, torch.Tensor) else None for a, d in zip(args, in_dims, strict=True))
    if foldable(Config(*args[tensors + 1 :]), args[tensors], in_dims[tensors : tensors + 4]):
        results = op(*fold(args[:tensors], in_dims[:tensors], size), *args[tensors:])
        results = tuple(unfold(r, size) for r in results)
    else:
        results = one_by_one(op, size, args, in_dims)
    return results, (0,) * len(results)


@torch.library.register_vmap(f"{_NAMESPACE}::forward")
def _forward_vmap(info, in_dims, *args):
    return _mapped(forward, 3, info, in_dims, args)


@torch.library.register_vmap(f"{_NAMESPACE}::backward")
def _backward_vmap(info, in_dims, *args):
    return _mapped(backward, 7, info, in_dims, args)


# ---- torch.utils.flop_counter: useful work, counted by the geometry


def _flops(config: Config, *tensors) -> int:
    shapes = [None if t is None else tuple(t.shape) for t in tensors]
    if config.offsets_query is None:
        return _flops_of(config, shapes)
    offsets = config.offsets_query, config.offsets_key
    if any(type(t) is not torch.Tensor or t.device.type == "meta" for t in offsets):
        return 0  # fake: the lengths are not known
    lengths = Counter(zip(*(t.diff().tolist() for t in offsets), strict=True))
    single = config._replace(seed=None, offsets_query=None, offsets_key=None, grids=())
    query, key, value, *absent = shapes
    return sum(
        count * _flops_of(single, [(1, n, *query[2:]), (1, m, *key[2:]), (1, m, *value[2:]), *absent])
        for (n, m), count in lengths.items()
    )


def _flops_of(config: Config, shapes) -> int:
    tensors = [None if s is None else ("float32", "cpu", 0, s) for s in shapes]
    text = _core.check(
        [*tensors, None, None],
        None,
        0.0,
        config.function,
        config.causal_type,
        0,
        config.axes or (),
        config.ranges or (),
        config.grids or (),
    )
    return int(_core.problem(text)["flops"])


@register_flop_formula(torch.ops.nearfield.forward, get_raw=True)
def _forward_flops(q, k, v, ak, av, bias, *config, **kwargs):
    return _flops(Config(*config), q, k, v, ak, av, bias)


@register_flop_formula(torch.ops.nearfield.backward, get_raw=True)
def _backward_flops(do, dlse, q, k, v, out, lse, ak, av, bias, *config, **kwargs):
    return int(2.5 * _flops(Config(*config), q, k, v, ak, av, bias))
