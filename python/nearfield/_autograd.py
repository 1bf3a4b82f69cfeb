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
from ._tangent import tangents

_below_autograd = torch._C._AutoDispatchBelowAutograd
_transforms_active = torch._C._are_functorch_transforms_active


def attend(query, key, value, additional_keys, additional_values, config: _ops.Config):
    """(out, lse) of one call; every argument has been checked for its Python type."""
    tensors = (query, key, value, additional_keys, additional_values)
    if torch.compiler.is_compiling():
        if forward_ad._current_level >= 0:  # the operator alone would give a zero tangent
            return _outside_graph(tensors, config)
        return _ops.forward(*tensors, *config)
    return _eager(tensors, config)


def _eager(tensors, config: _ops.Config):
    if _transforms_active() or forward_ad._current_level >= 0:
        return _Full.apply(config, *tensors)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Fast.apply(config, *tensors)
    with _below_autograd():
        return _ops.forward(*tensors, *config)


# Forward mode inside a compiled function breaks the graph (and is refused by fullgraph=True).
_outside_graph = torch._dynamo.disable(_eager)


class _Fast(Function):
    """Plain reverse mode; ctx in forward, since setup_context costs 16 us."""

    @staticmethod
    def forward(ctx, config, *tensors):
        out, lse = _ops.forward(*tensors, *config)
        ctx.config = config
        ctx.save_for_backward(*tensors, out, lse)
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx, grad_out, grad_lse):
        return None, *_gradients(ctx.config, ctx.saved_tensors, grad_out, grad_lse)


class _Full(Function):
    """The same with everything that torch.func and forward mode ask for."""

    @staticmethod
    def forward(config, *tensors):
        return _ops.forward(*tensors, *config)

    @staticmethod
    def setup_context(ctx, inputs, output):
        config, *tensors = inputs
        ctx.config = config
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_out, grad_lse):
        return None, *_gradients(ctx.config, ctx.saved_tensors, grad_out, grad_lse)

    @staticmethod
    def jvp(ctx, _, *tangent):
        return tangents(ctx.saved_tensors, tangent, ctx.config)

    @staticmethod
    def vmap(info, in_dims, config, *tensors):
        size = info.batch_size
        if config.varlen:
            parts = [
                _Full.apply(config, *(_pick(t, d, i) for t, d in zip(tensors, in_dims[1:], strict=True)))
                for i in range(size)
            ]
            return tuple(torch.stack(p) for p in zip(*parts, strict=True)), (0, 0)
        out, lse = _Full.apply(config, *_ops.fold(tensors, in_dims[1:], size))
        return (_ops.unfold(out, size), _ops.unfold(lse, size)), (0, 0)


def _pick(tensor, dim, i):
    return tensor if tensor is None or dim is None else tensor.select(dim, i)


def _gradients(config, saved, grad_out, grad_lse):
    if grad_out is None and grad_lse is None:
        return (None,) * 5
    if not torch.is_grad_enabled():
        return _ops.call_backward(saved[:7], config, grad_out, grad_lse)

    return _ops.call_backward(
        saved[:7], config, grad_out, grad_lse, op=lambda *a: _Backward.apply(config, *a[:9])
    )


class _Backward(Function):
    """The backward operator where someone may differentiate it again: refused, with a reason."""

    @staticmethod
    def forward(config, grad_out, grad_lse, query, key, value, out, lse, additional_keys, additional_values):
        tensors = (grad_out, grad_lse, query, key, value, out, lse, additional_keys, additional_values)
        return _ops.backward(*tensors, *config)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.op = inputs[0].op

    @staticmethod
    def backward(ctx, *gradients):
        _ops.refuse_double_backward(ctx.op)

    @staticmethod
    def jvp(ctx, *tangent):
        _ops.refuse_double_backward(ctx.op)

    @staticmethod
    def vmap(info, in_dims, config, *tensors):
        size = info.batch_size
        gradients = _Backward.apply(config, *_ops.fold(tensors, in_dims[1:], size))
        return tuple(_ops.unfold(g, size) for g in gradients), (0,) * len(gradients)
