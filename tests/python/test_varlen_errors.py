# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Bad input of packed sequences and of layouts of any rank: lengths, offsets, metadata, windows."""

import pytest
import torch
from packed import metadata_of
from test_errors import qkv, refused

import nearfield as nf
from nearfield import varlen

OFFSETS = ("cumulative_seqlen_Q", "cumulative_seqlen_KV")
LENGTHS = ("seqlens_Q", "seqlens_KV")


def _tensor(*values, dtype=torch.int32):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("names", [OFFSETS, LENGTHS])
def test_both_or_neither(names):
    inputs = qkv(6)
    for name in names:
        good = _tensor(6) if names is LENGTHS else _tensor(0, 6)
        refused(nf.attention, *inputs, says=[name, "both"], **{name: good})
    good = dict.fromkeys(OFFSETS, _tensor(0, 6))
    for name in ("max_seqlen_Q", "max_seqlen_KV"):
        refused(nf.attention, *inputs, says=[name, "both"], **good, **{name: 6})
        refused(nf.attention, *inputs, says=[name, "cumulative_seqlen_Q"], **{name: 6})


def test_lengths_or_offsets_but_not_both():
    lengths = dict.fromkeys(LENGTHS, _tensor(2, 4))
    for more in (
        dict.fromkeys(OFFSETS, _tensor(0, 2, 6)),
        {"max_seqlen_Q": 4},
        {"max_seqlen_KV": 4},
        {"max_seqlen_Q": 0, "max_seqlen_KV": 0},
        {"cumulative_seqlen_Q": _tensor(0, 2, 6), "cumulative_seqlen_KV": _tensor(0, 2, 6)},
    ):
        refused(nf.attention, *qkv(6), **lengths, **more, says=[next(iter(more)), "seqlens_Q"])


@pytest.mark.parametrize("side", [0, 1])
def test_kinds_of_offsets(side):
    for names, good in ((OFFSETS, _tensor(0, 2, 6)), (LENGTHS, _tensor(2, 4))):

        def bad(x, names=names, good=good, **kw):
            a = {names[1 - side]: good, names[side]: x}
            functions = [nf.attention]
            if names is LENGTHS:
                functions.append(varlen.generate_varlen_parameters)
            for function in functions:
                refused(function, *qkv(6), **a, **kw)

        bad([0, 2, 6], error=TypeError, says=names[side])
        bad(good.float(), says=[names[side], "float32", "int32"])
        bad(good.to(torch.int16), says=[names[side], "int16"])
        bad(good > 1, says=[names[side], "bool"])
        bad(good[None], says=[names[side], r"rank|shape"])
        bad(good[0], says=[names[side], r"rank|shape"])
        bad(good.to("meta"), says=["meta", "device"])
        bad(good.to_sparse(), error=NotImplementedError, says=names[side])
        bad(good[:-1] if names is OFFSETS else _tensor(6), says=["1", "2"])  # another number of sequences


@pytest.mark.parametrize("side", [0, 1])
def test_values_of_offsets(side):
    good = _tensor(0, 2, 6)
    for bad, says in (
        (_tensor(1, 2, 6), "starts at 1"),
        (_tensor(-1, 2, 6), "starts at -1"),
        (_tensor(0, 5, 4), "falls from 5 to 4"),
        (_tensor(0, -1, 4), "falls from 0 to -1"),
        (_tensor(0, 2, 7), ["ends at 7", "6"]),
        (_tensor(0, 2, 2**62, dtype=torch.int64), str(2**62)),
        (_tensor(), r"shape \(0,\)"),
    ):
        refused(nf.attention, *qkv(6), says=[says, OFFSETS[side]] if isinstance(says, str) else says,
                **{OFFSETS[side]: bad, OFFSETS[1 - side]: good})  # fmt: skip


@pytest.mark.parametrize("side", [0, 1])
def test_values_of_lengths(side):
    for bad, says in (
        (_tensor(2, 5), ["7", "6"]),
        (_tensor(2, 3), ["5", "6"]),
        (_tensor(0, 0), ["0", "6"]),
        (_tensor(8, -2), ["-2", "sequence 1"]),
        (_tensor(2**40, 6, dtype=torch.int64), [str(2**40 + 6)]),
    ):
        a = {LENGTHS[side]: bad, LENGTHS[1 - side]: _tensor(2, 4)}
        for function in (nf.attention, varlen.generate_varlen_parameters):
            refused(function, *qkv(6), **a, says=[*says, LENGTHS[side]])


@pytest.mark.parametrize("name", ["max_seqlen_Q", "max_seqlen_KV"])
def test_maxima(name):
    good = {**dict.fromkeys(OFFSETS, _tensor(0, 2, 6)), "max_seqlen_Q": 4, "max_seqlen_KV": 5}
    inputs = qkv(6)
    expected = nf.attention(*inputs, **good)
    assert torch.equal(nf.attention(*inputs, **{**good, name: 100}), expected)  # an upper bound is enough
    for bad in (3, 0, -1):
        refused(
            nf.attention,
            *inputs,
            **{**good, name: bad},
            says=[name, str(bad), "4" if bad == 3 else "expected"],
        )
    for bad in (4.0, "4", True, _tensor(4)):
        refused(nf.attention, *inputs, **{**good, name: bad}, error=TypeError, says=name)


def test_batch_and_totals():
    offsets = dict.fromkeys(OFFSETS, _tensor(0, 2, 6))
    refused(nf.attention, *qkv(6, batch=2), **offsets, says=["batch 2", "batch 1"])
    lengths = dict.fromkeys(LENGTHS, _tensor(2, 4))
    refused(nf.attention, *qkv(6, batch=2), **lengths, says=["batch 2", "batch 1"])
    refused(varlen.generate_varlen_parameters, *qkv(6, batch=2), **lengths, says="batch 1")
    q, k, v = qkv(6)
    refused(varlen.generate_varlen_parameters, q, k, v[:, :5], **lengths, says=["6", "5"])
    refused(varlen.generate_varlen_parameters, q[0], k, v, **lengths, says="query")
    refused(varlen.generate_varlen_parameters, q, None, v, **lengths, error=TypeError, says="key")
    for x in (torch.zeros(()), torch.zeros(6)):
        refused(nf.attention, x, x, x, **lengths)


def test_dont_care_is_asked_of_every_sequence():
    match = refused(
        nf.attention, *qkv(6), True, nf.CausalType.DontCare,
        cumulative_seqlen_Q=_tensor(0, 2, 6), cumulative_seqlen_KV=_tensor(0, 3, 6))  # fmt: skip
    assert "2" in match[0] and "3" in match[0]


def test_a_causal_type_must_be_specified_here_too():
    with pytest.raises(ValueError, match=r"^Argument causal_type must be specified"):
        nf.attention(*qkv(6), is_causal=True, **dict.fromkeys(LENGTHS, _tensor(2, 4)))


# ------------------------------------------------------------------------------------------------
# Layouts of any rank


def test_rank():
    function = nf.multi_dimensional_attention
    for shape in ((), (3,), (1, 2, 3), (1, 2, 3, 4, 5, 6, 7)):
        x = torch.randn(shape)
        refused(function, x, x, x, says="rank")
        refused(nf.spatio_temporal_attention, x, x, x, says="rank")
    refused(nf.spatio_temporal_attention, *qkv(3, 4), says=["5", "6"])
    q, k, v = qkv(3, 4)
    refused(function, q, k[0], v, says="key of rank 4")
    refused(nf.multi_dimensional_attention_varlen, q, k, v, metadata_of([(3, 4)]), says="rank 5")


def test_windows():
    q, k, v = qkv(6, 7)
    function = nf.multi_dimensional_attention
    for bad in (0, -2, 8, (3, 8), (7, 7)):
        match = refused(function, q, k, v, bad, says="axis")
        assert "largest legal" in match[0]
    for bad in ((3,), (3, 3, 3), ()):
        refused(function, q, k, v, bad, says="window_size")
    for bad in (3.0, "3", None, True, (3, None)):
        refused(function, q, k, v, bad, error=TypeError, says="window_size")
    refused(function, q, k, v, -1, 1, 2, says=["-1", "dilation"])
    refused(function, q, k, v, (-1, 3), 1, (2, 1), says=["-1", "dilation 2", "axis 0"])
    refused(function, q, k, v, 3, 4, says="stride 4")
    refused(function, q, k, v, 3, is_causal=1, error=TypeError, says="is_causal")
    refused(function, q, k, v, 3, scale="1", error=TypeError, says="scale")
    refused(function, q, [1.0], v, error=TypeError, says="key")


def test_metadata_of_others():
    inputs = qkv(20)
    function = nf.multi_dimensional_attention_varlen
    for bad in (None, [(4, 5)], "metadata", 3):
        refused(function, *inputs, bad, error=TypeError, says="metadata")
    for bad in ({}, {"format": "another"}, {"kernel_size": 3}):
        refused(function, *inputs, bad, says="metadata")
    refused(function, *qkv(19), metadata_of([(4, 5)]), says=["20", "19"])
    refused(function, *qkv(20, batch=2), metadata_of([(4, 5)]), says="batch 2")
    refused(function, *qkv(20, keys=(25,)), metadata_of([(4, 5), (5, 1)]), says=["25", "20"])


GENERATE = "generate_multi_dim_varlen_parameters"


def test_what_generate_refuses_names_the_sequence():
    def bad(*args, says, error=ValueError, **kw):
        refused(metadata_of, *args, error=error, op=GENERATE, says=says, **kw)

    good = [(4, 5), (3, 6)]
    bad([(4, 5), (3, 6, 1)], says=r"token_layout_list\[1\]")
    bad([(4, 5), ()], says=r"token_layout_list\[1\]")
    bad([(1, 2, 3, 4)], says=r"token_layout_list\[0\]")
    bad([(4, 5), (3, -6)], says=r"token_layout_list\[1\]")
    bad([(4, 5), (3, 2**40), (2**40, 2**40)], says="extent|tokens")
    bad([(4, 5), 6], says=r"token_layout_list\[1\]", error=TypeError)
    bad([(4, 5), (3, 6.0)], says=r"token_layout_list\[1\]", error=TypeError)
    bad(None, says="token_layout_list", error=TypeError)
    bad(torch.tensor(good), says="token_layout_list", error=TypeError)
    bad(good, [(3, 3)], says=["window_size_list", "2"])
    bad(good, (3, 3, 3), says="window_size_list")
    bad(good, 3, says="window_size_list", error=TypeError)
    bad(good, [(3, 3), (3, 3, 3)], says=r"window_size_list\[1\]")
    bad(good, [(3, 3), (3, "3")], says=r"window_size_list\[1\]", error=TypeError)
    bad(good, [(3, 3), (3, 7)], says=["sequence 1", "axis 1", "7", "6"])
    bad(good, [(3, 3), (0, 3)], says="sequence 1")
    bad(good, [(-2, 3), (2, 3)], says="sequence 0")
    bad(good, [(3, 3), (2, 3)], [1, (3, 1)], says=["sequence 1", "stride 3"])
    bad(good, [(3, 3), (2, 3)], None, [1, (1, 3)], says=["sequence 1", "dilation 3"])
    bad(good, [(3, 3), (2, -1)], None, [1, (1, 2)], says=["sequence 1", "dilation 2", "-1"])
    bad(good, None, [1], says="stride_list")
    bad(good, None, None, {0: 1, 1: 1}, says="dilation_list", error=TypeError)
    bad(good, causal=(True,), says="is_causal")
    bad(good, causal=1, says="is_causal", error=TypeError)
    bad([(0, 3)], [(2, 0)], says="sequence 0")  # even without tokens a window has a form
    bad(good, head_dim=0, says="head_dim")
    bad(good, head_dim=8.0, says="head_dim", error=TypeError)
    bad(good, dtype="float32", says="dtype", error=TypeError)
    bad(good, dtype=torch.int32, says="int32")
    bad(good, device="a hill", says="device")
    bad(good, requires_grad=1, says="requires_grad", error=TypeError)


def test_an_empty_list_takes_any_rank():
    generate = nf.varlen.generate_multi_dim_varlen_parameters
    for rank in (1, 2, 3):
        metadata = generate([], 8, "cpu", torch.float32, False, is_causal=(True,) * rank)
        x = torch.zeros(1, 2, 1, 8)
        assert torch.equal(nf.multi_dimensional_attention_varlen(x, x, x, metadata), x)


def test_rank_of_space_and_time():
    x = torch.zeros(1, 2, 2, 1, 8)
    with pytest.raises(
        ValueError, match=r"^\[spatio_temporal_attention\] got query of rank 5.*rank 6, \[B, T"
    ):
        nf.spatio_temporal_attention(x, x, x)
