# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What else computes attention: what nearfield is measured beside, by the profiler and the bench.

A peer gets its tensors in the layout that suits it best, which costs it nothing: heads first, or tokens in
tiles. Its settings are tried out once (`candidates`), and what it computes is compared with nearfield's.
"""

from __future__ import annotations

import torch


class Absent(Exception):
    """Why a peer does not take part: not installed, no such feature, no memory."""


class Peer:
    """One way to compute a problem. Subclasses say how (attend) and in which layout (to_own, from_own)."""

    name = ""
    has_backward = True

    @classmethod
    def candidates(cls, problem) -> list[dict]:
        """Settings worth trying, keyword arguments of __init__. Raises Absent."""
        return [{}]

    def __init__(self, problem):
        self.problem = problem

    def attend(self, query, key, value) -> torch.Tensor:
        raise NotImplementedError

    def to_own(self, x, of_query: bool) -> torch.Tensor:
        """[B, *layout, H, D] in this peer's layout; of_query: a query, an output or a gradient of one."""
        return x

    def from_own(self, x, of_query: bool) -> torch.Tensor:
        """The inverse of to_own."""
        return x

    def load(self, query, key, value, grad_out) -> Peer:
        self.inputs = [
            self.to_own(x.detach(), i == 0).contiguous() for i, x in enumerate((query, key, value))
        ]
        self.grad_out, self.out = grad_out, None
        return self

    def forward(self):
        with torch.no_grad():
            return self.attend(*self.inputs)

    def backward(self):
        """Gradients of query, key and value; the forward pass that they need runs at the first call."""
        if self.out is None:
            for x in self.inputs:
                x.requires_grad_()
            self.out = self.attend(*self.inputs)
            self.grad_out = self.to_own(self.grad_out, True).contiguous()
        return torch.autograd.grad(self.out, self.inputs, self.grad_out, retain_graph=True)

    def results(self, direction: str) -> list[torch.Tensor]:
        """The output, or the three gradients, in nearfield's layout."""
        if direction == "fwd":
            return [self.from_own(self.forward(), True)]
        return [self.from_own(x, i == 0) for i, x in enumerate(self.backward())]
