# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The drop-in for the Cosmos attention package: its signatures, its backend names, its hints."""

import inspect

import pytest
import torch
from test_errors import qkv, refused

import nearfield as nf
from nearfield.compat import imaginaire
from nearfield.compat.imaginaire import frontend, masks, varlen

TOP, BOTTOM = masks.CausalType.TopLeft, masks.CausalType.BottomRight
PEER = ("natten", "flash2", "flash3", "cudnn")
HINTS = {
    "backend": "cutlass-fna",
    "q_tile_shape": (16, 8),
    "kv_tile_shape": "whatever",
    "backward_q_tile_shape": (3, 5, 7),
    "backward_kv_tile_shape": 8,
    "q_tile_size": 64,
    "kv_tile_size": (1, 2),
    "backward_kv_splits": (7, 7),
    "backward_use_pt_reduction": 3,
    "run_persistent_kernel": None,
    "kernel_schedule": "pp",
    "torch_compile": True,
    "deterministic": True,
}


def test_signatures():
    """As callers of the package spell them, by position and by name."""
    common = "backend=None, return_lse=False, backend_kwargs=None"
    windows = "window_size=-1, stride=1, dilation=1"
    expected = {
        "attention": "query, key, value, is_causal=False, causal_type=None, scale=None, seqlens_Q=None, "
        "seqlens_KV=None, cumulative_seqlen_Q=None, cumulative_seqlen_KV=None, max_seqlen_Q=None, "
        f"max_seqlen_KV=None, {common}",
        "multi_dimensional_attention": f"query, key, value, {windows}, is_causal=False, scale=None, {common}",
        "spatio_temporal_attention": f"query, key, value, {windows}, scale=None, {common}",
        "multi_dimensional_attention_varlen": f"query, key, value, metadata, scale=None, {common}",
        "merge_attentions": "outputs, lse_tensors, torch_compile=False",
    }
    assert set(imaginaire.__all__) == {*expected, "masks", "varlen"}
    for name, text in expected.items():
        assert str(inspect.signature(getattr(imaginaire, name))) == f"({text})"
        assert getattr(frontend, name) is getattr(imaginaire, name)
    assert {t.name for t in masks.CausalType} == {"TopLeft", "BottomRight", "DontCare"}
    assert {"generate_varlen_parameters", "generate_multi_dim_varlen_parameters"} <= set(varlen.__all__)


def _calls():
    """Every operation with the call of ours that it stands for."""
    q, k, v = qkv(6, kv_heads=1)
    lengths = torch.tensor([2, 0, 4], dtype=torch.int32)
    made = varlen.generate_varlen_parameters(q, k, v, lengths, lengths)
    offsets = dict(
        zip(
            ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV"),
            made,
            strict=True,
        )
    )
    video = qkv(3, 4, 5, kv_heads=1)
    packed = qkv(20 + 9)
    layouts = [(4, 5), (3, 3)], 8, torch.device("cpu"), torch.float32, True
    theirs = varlen.generate_multi_dim_varlen_parameters(*layouts, [(3, 0), (-7, 2)])
    ours = nf.varlen.generate_multi_dim_varlen_parameters(*layouts, [(3, 5), (3, 2)])
    yield "attention", (q, k, v), (q, k, v), {}
    yield "attention", (q, k, v, True, BOTTOM, 0.3), (q, k, v, True, BOTTOM, 0.3), {}
    yield (
        "attention",
        (q, k, v, True, TOP),
        (q, k, v, True, TOP),
        {"seqlens_Q": lengths, "seqlens_KV": lengths},
    )
    yield "attention", (q, k, v), (q, k, v), offsets
    yield "multi_dimensional_attention", (*video, (2, -1, 3)), (*video, (2, 4, 3)), {"stride": (2, 1, 1)}
    yield "spatio_temporal_attention", video, video, {"window_size": (2, 3, -1)}
    yield "multi_dimensional_attention_varlen", (*packed, theirs), (*packed, ours), {}


@pytest.mark.parametrize("number", range(7))
def test_results_are_those_of_nearfield(number):
    name, theirs, ours, kw = list(_calls())[number]
    call = getattr(imaginaire, name)
    expected = getattr(nf, name)(*ours, return_lse=True, **kw)
    got = call(*theirs, return_lse=True, **kw)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert torch.equal(call(*theirs, **kw), expected[0])
    for backend in PEER:  # on any device, for every feature
        for hints in (None, {}, HINTS):
            before = dict(hints or {})
            got = call(*theirs, backend=backend, backend_kwargs=hints, **kw)
            assert torch.equal(got, expected[0])
            assert hints is None or hints == before
    for backend in ("reference", "cpu"):
        exact = getattr(nf, name)(*ours, backend=backend, **kw)
        assert torch.equal(call(*theirs, backend=backend, **kw), exact)


def test_gradients_and_merging():
    """Two halves of the keys, merged, are attention over all of them: values and gradients."""
    leaves = [x.requires_grad_() for x in qkv(8, dtype=torch.float64)]
    q, k, v = leaves
    expected = nf.attention(q, k, v, return_lse=True)
    parts = [imaginaire.attention(q, k[:, at], v[:, at], return_lse=True, backend="flash3")
             for at in (slice(5), slice(5, 8))]  # fmt: skip
    got = imaginaire.merge_attentions(*map(list, zip(*parts, strict=True)))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    seeds = [torch.randn_like(x) for x in expected]
    for a, b in zip(
        torch.autograd.grad(got, leaves, seeds), torch.autograd.grad(expected, leaves, seeds), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_any_window_below_one_is_a_whole_axis():
    layouts = [(4, 5), (3, 6)], 8, "cpu", torch.float32, False
    expected = nf.varlen.generate_multi_dim_varlen_parameters(*layouts, [(-1, 3), -1])
    for window in (0, -1, -2, -(2**40)):
        assert varlen.generate_multi_dim_varlen_parameters(*layouts, [(window, 3), window]) == expected
    assert varlen.generate_multi_dim_varlen_parameters(
        *layouts
    ) == nf.varlen.generate_multi_dim_varlen_parameters(*layouts)
    more = {"q_tile_shape": (4, 4), "backward_kv_splits": 3, "backend": "blackwell-fna"}
    assert varlen.generate_multi_dim_varlen_parameters(*layouts, [(0, 3), 0], **more) == expected
    op = "generate_multi_dim_varlen_parameters"
    refused(varlen.generate_multi_dim_varlen_parameters, *layouts, [(0, 7), 0], op=op, says="sequence 0")
    refused(varlen.generate_multi_dim_varlen_parameters, *layouts, [(0, 3)], op=op, says="window_size_list")
    refused(varlen.generate_multi_dim_varlen_parameters, *layouts, 0, op=op, error=TypeError, says="list")
    refused(varlen.generate_multi_dim_varlen_parameters, *layouts, softcap=3.0, op=op, says="softcap")


def test_what_cannot_be_ignored_is_refused():
    """A name that changes results is no hint, and a backend is one of somebody's."""
    q, k, v = qkv(6)
    for name in ("softcap", "window_size", "dropout_p", "alibi_slopes", "scale"):
        refused(imaginaire.attention, q, k, v, backend="flash2", backend_kwargs={name: 0.1}, says=name)
        refused(imaginaire.multi_dimensional_attention, q, k, v, backend_kwargs={name: 0.1}, says=name)
    for kw in ({"backend": "fastest"}, {"backend": "natten", "backend_kwargs": {"backend": "fastest"}}):
        refused(imaginaire.attention, q, k, v, **kw, says=["fastest", "natten", "flash3", "reference"])
    refused(imaginaire.attention, q, k, v, backend=3, error=TypeError, says="backend")
    refused(imaginaire.attention, q, k, v, backend_kwargs=[], error=TypeError, says="backend_kwargs")
    refused(imaginaire.attention, q, k, v, backend="cuda_sm90", says="cuda_sm90")
    with pytest.raises(ValueError, match=r"^Argument causal_type must be specified"):
        imaginaire.attention(q, k, v, is_causal=True)


def test_compile():
    torch._dynamo.reset()
    q, k, v = qkv(4, 5)

    def f(q, k, v):
        return imaginaire.multi_dimensional_attention(
            q,
            k,
            v,
            (3, -1),
            is_causal=(True, False),
            backend="natten",
            backend_kwargs={"q_tile_shape": (8, 8)},
        )

    torch.testing.assert_close(torch.compile(f, fullgraph=True, backend="aot_eager")(q, k, v), f(q, k, v))
