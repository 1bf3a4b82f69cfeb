# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The way of a call from the public functions to the operators, one branch per kind of differentiation.

register_autograd alone leaves gaps: a zero tangent under jvp without an error, an error under
torch.func.grad, and 37 us per call. So eager code that differentiates goes through autograd.Functions of
our own; compiled and exported code calls the operator, whose autograd is registered; code without
gradients skips the autograd machinery.
"""

from __future__ import annotations

import torch
from torch.autograd import Function, forward_ad

from . import _ops
from ._forward_levels import check_forward_levels
from ._tangent import tangents

_below_autograd = torch._C._AutoDispatchBelowAutograd
_is_compiling = torch.compiler.is_compiling
_transforms_active = torch._C._are_functorch_transforms_active


def attend(query, key, value, additional_keys, additional_values, bias, config: _ops.Config):
    """(out, lse) of one call; every argument has been checked for its Python type."""
    tensors = (query, key, value, additional_keys, additional_values, bias)
    if _is_compiling():
        if forward_ad._current_level >= 0:  # the operator alone would give a zero tangent
            return _outside_graph(tensors, config)
        return _ops.forward(*tensors, *config)
    return _eager(tensors, config)


def _eager(tensors, config: _ops.Config):
    if _transforms_active() or forward_ad._current_level >= 0:
        check_forward_levels(config.op)
        # Config's tensors go in apart: torch.func looks for tensors among the arguments only.
        return _Full.apply(config[3:], *tensors, *config[:3])
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return _Fast.apply(config, *tensors)
    with _below_autograd():
        return _ops.forward(*tensors, *config)


# Forward mode inside a compiled function breaks the graph (and is refused by fullgraph=True).
_outside_graph = torch._dynamo.disable(_eager)


class _Fast(Function):
    """Plain reverse mode; ctx in forward, since setup_context costs 16 us, and below the operator's own
    autograd, which costs more."""

    @staticmethod
    def forward(ctx, config, *tensors):
        with _below_autograd():
            out, lse = _ops.forward(*tensors, *config)
        ctx.config = config[3:]
        ctx.save_for_backward(*tensors, out, lse, *config[:3])
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx, grad_out, grad_lse):
        return None, *_gradients(ctx, grad_out, grad_lse)


class _Full(Function):
    """The same with everything that torch.func and forward mode ask for."""

    @staticmethod
    def forward(numbers, *tensors):
        return _ops.forward(*tensors, *numbers)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.config, *tensors = inputs
        saved = (*tensors[: _ops.INPUTS], *output, *tensors[_ops.INPUTS :])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_out, grad_lse):
        return None, *_gradients(ctx, grad_out, grad_lse), None, None, None

    @staticmethod
    def jvp(ctx, _, *tangent):
        saved = ctx.saved_tensors
        n = _ops.INPUTS
        return tangents(saved[: n + 2], tangent[:n], _ops.Config(*saved[n + 2 :], *ctx.config))

    @staticmethod
    def vmap(info, in_dims, numbers, *tensors):
        return _mapped(_Full.apply, 0, info, in_dims, numbers, tensors)


def _mapped(apply, first: int, info, in_dims, numbers, tensors):
    """vmap of a Function of ours with `first` tensors before query."""
    size, n = info.batch_size, first + _ops.INPUTS - 1
    config = _ops.Config(*tensors[n + 1 :], *numbers)
    if _ops.foldable(config, tensors[n], in_dims[1 + n :]):
        results = apply(numbers, *_ops.fold(tensors[:n], in_dims[1 : 1 + n], size), *tensors[n:])
        results = tuple(_ops.unfold(r, size) for r in results)
    else:
        results = _ops.one_by_one(lambda *t: apply(numbers, *t), size, tensors, in_dims[1:])
    return results, (0,) * len(results)


def _gradients(ctx, grad_out, grad_lse):
    n = _ops.INPUTS
    if grad_out is None and grad_lse is None:
        return (None,) * n
    saved = ctx.saved_tensors
    config = _ops.Config(*saved[n + 2 :], *ctx.config)
    if torch.is_grad_enabled():

        def op(*arguments):
            return _Backward.apply(config[3:], *arguments[: n + 4], *config[:3])

        return _ops.call_backward(saved[: n + 2], config, grad_out, grad_lse, op)
    with _below_autograd():
        return _ops.call_backward(saved[: n + 2], config, grad_out, grad_lse)


class _Backward(Function):
    """The backward operator where someone may differentiate it again: refused, with a reason."""

    @staticmethod
    def forward(numbers, *tensors):
        return _ops.backward(*tensors, *numbers)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.op = _ops.Config(None, None, None, *inputs[0]).op

    @staticmethod
    def backward(ctx, *gradients):
        _ops.refuse_double_backward(ctx.op)

    @staticmethod
    def jvp(ctx, *tangent):
        _ops.refuse_double_backward(ctx.op)

    @staticmethod
    def vmap(info, in_dims, numbers, *tensors):
        return _mapped(_Backward.apply, 4, info, in_dims, numbers, tensors)
