# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""AOTInductor: a model compiled ahead of time, loaded again and run without its Python code."""

import sys

import pytest
import torch

import nearfield as nf


class _Model(torch.nn.Module):
    """One call of every kind: windows with a bias, dense causal, packed, multi-dimensional."""

    def __init__(self):
        super().__init__()
        self.local = nf.NeighborhoodAttention2D(16, 2, 3, rel_pos_bias=True, num_kv_heads=1)
        self.dense = nf.Attention(16, 2, True, False, is_causal=True)

    def forward(self, x, offsets):
        y = self.local(x)
        y = y + self.dense(y, x, y)
        q = y.flatten(0, 2).unflatten(-1, (2, 8))[None]
        packed, lse = nf.attention(
            q,
            q,
            q,
            True,
            nf.CausalType.BottomRight,
            cumulative_seqlen_Q=offsets,
            cumulative_seqlen_KV=offsets,
            return_lse=True,
        )
        grid = y.unflatten(-1, (2, 8))
        return packed, lse, nf.multi_dimensional_attention(grid, grid, grid, (-1, 3))


@pytest.mark.skipif(sys.platform != "linux", reason="AOTInductor compiles with the system's compiler")
def test_a_compiled_model_gives_the_same(tmp_path):
    model = _Model().eval()
    x, offsets = torch.randn(2, 6, 7, 16), torch.tensor([0, 20, 20, 84], dtype=torch.int32)
    sizes = {0: torch.export.Dim("batch", max=8), 1: torch.export.Dim("height", min=4, max=64)}
    program = torch.export.export(model, (x, offsets), dynamic_shapes=(sizes, None))
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    loaded = torch._inductor.aoti_load_package(path)
    others = torch.randn(3, 9, 7, 16), torch.tensor([0, 1, 100, 180], dtype=torch.int32)
    for inputs in ((x, offsets), others):
        with torch.no_grad():
            for ours, theirs in zip(model(*inputs), loaded(*inputs), strict=True):
                torch.testing.assert_close(theirs, ours)
