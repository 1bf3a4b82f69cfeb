# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield._core: problem strings, geometry and plans through the C API."""

import itertools
import math

import pytest
from oracle import visible, visible_dense

from nearfield import _core

PROBLEMS = [
    "na:fwd:f32:b1h1kv1d32:10:k3",
    "na:fwd:bf16:b1h8kv8d64:64x64:k7x7",
    "na:bwd:f32:b2h8kv2d64v48:6x7x8:k3x3x3:s1x2x1:d2x1x1:c100",
    "na:fwd:f64:b1h4kv4d16:20x21:k3x5:add=7:lse",
    "na:bwd:f16:b1h4kv4d16:20x21:k3x5:c01:q=8-16x0-21:kv=6-18x0-21:scale=0.5",
    "na:fwd:f32:b1h2kv2d8:5x6+7x8:k3x3:s1x1+2x1",
    "na:fwd:f32:b1h2kv2d8:8:k3:str=q~128,32,8,1",
    "att:fwd:f32:b1h8kv8d64:128,130",
    "att:fwd:f32:b1h8kv1d64v32:128,130:ctl",
    "att:bwd:bf16:b3h8kv1d64:7,5:cbr:lse",
    "att:fwd:f32:b1h2kv2d8:5,6+0,3+4,0:cbr:tail=2,3",
]


@pytest.mark.parametrize("text", PROBLEMS)
def test_a_problem_string_has_one_canonical_form(text):
    canonical = _core.problem(text)["problem"]
    assert _core.problem(canonical)["problem"] == canonical


def test_canonical_strings_are_their_own_form():
    for text in ("na:fwd:bf16:b1h8kv8d64:64x64:k7x7", "att:fwd:f32:b1h8kv8d64:128,130"):
        assert _core.problem(text)["problem"] == text
    defaults = "na:fwd:f32:b1h8kv8d64v64:64x64:k7x7:s1x1:d1x1:c00"
    assert _core.problem(defaults)["problem"] == "na:fwd:f32:b1h8kv8d64:64x64:k7x7"


BAD = [
    "",
    ":",
    "na",
    "xx:fwd:f32:b1h1kv1d8:10:k3",
    "na:up:f32:b1h1kv1d8:10:k3",
    "na:fwd:f31:b1h1kv1d8:10:k3",
    "na:fwd:f32:b1h1kv1:10:k3",
    "na:fwd:f32:b1h3kv2d8:10:k3",
    "na:fwd:f32:b1h1kv1d0:10:k3",
    "na:fwd:f32:b1h1kv1d8:10",
    "na:fwd:f32:b1h1kv1d8:10:k11",
    "na:fwd:f32:b1h1kv1d8:10:k0",
    "na:fwd:f32:b1h1kv1d8:10:k3x3",
    "na:fwd:f32:b1h1kv1d8:10:k3:s4",
    "na:fwd:f32:b1h1kv1d8:10:k3:d4",
    "na:fwd:f32:b1h1kv1d8:10:k3:c2",
    "na:fwd:f32:b1h1kv1d8:10:k3:wat",
    "na:fwd:f32:b1h1kv1d8:10:k3:add=-1",
    "na:fwd:f32:b1h1kv1d8:10:k3:add=1:add=1",
    "na:fwd:f32:b1h1kv1d8:10:k3:q=5-3",
    "na:fwd:f32:b1h1kv1d8:10:k3:q=0-11",
    "na:fwd:f32:b1h1kv1d8:99999999999999999999:k3",
    "na:fwd:f32:b1h1kv1d8:10x10x10x10:k3x3x3x3",
    "na:fwd:f32:b-1h1kv1d8:10:k3",
    "na:fwd:f32:b1h1kv1d8:10:k3:scale=x",
    "na:fwd:f32:b1h1kv1d8:10:k3 ",
    "att:fwd:f32:b1h1kv1d8:10",
    "att:fwd:f32:b1h1kv1d8:10,10:cxx",
    "att:fwd:f32:b1h1kv1d8:10,10:k3",
    "na:fwd:f32:b1h1kv1d8:2147483648:k3",
    "na:fwd:f32:b1h1kv1d8:10:k3:drop=2",
]


@pytest.mark.parametrize("text", BAD)
def test_errors_become_value_errors(text):
    with pytest.raises(ValueError) as info:
        _core.problem(text)
    assert len(str(info.value)) > 10


@pytest.mark.parametrize("bad", [None, 3, b"na", ["na"]], ids=repr)
def test_what_is_no_string(bad):
    with pytest.raises((TypeError, ValueError)):
        _core.problem(bad)


def test_strings_with_zero_bytes_and_unicode():
    for text in (
        "na:fwd:f32:b1h1kv1d8:10:k3\0:add=1",
        "na:fwd:f32:b1h1kv1d8:1\uff10:k3",
        "\udcff",
        "\u03ba" * 1000,
        "+" * 10**5,
    ):
        with pytest.raises(ValueError):
            _core.problem(text)


def test_info():
    info = _core.info()
    assert {"reference", "cpu"} <= {b if isinstance(b, str) else b["name"] for b in info["backends"]}
    assert info["cpu_target"] in info["cpu_targets"]
    assert info["version"].count(".") == 2


# ------------------------------------------------------------------------------------------------
# Geometry, against brute force


def _rows(answer):
    return [
        list(range(b, e, answer["dilation"])) for b, e in zip(answer["begin"], answer["end"], strict=True)
    ]


def _text(extent, window, stride, dilation, causal):
    return f"na:fwd:f32:b1h1kv1d8:{extent}:k{window}:s{stride}:d{dilation}:c{int(causal)}"


def test_intervals_of_every_small_axis():
    for extent in range(1, 10):
        for window in range(1, extent + 1):
            for stride, dilation, causal in itertools.product(
                range(1, window + 1), range(1, extent // window + 1), (False, True)
            ):
                axis = (window, stride, dilation, causal)
                expected = [visible(q, extent, *axis) for q in range(extent)]
                assert _rows(_core.intervals(_text(extent, *axis), 0, 0)) == expected, (extent, *axis)


@pytest.mark.parametrize("causal", [None, "tl", "br"])
def test_intervals_of_dense_attention(causal):
    for queries, keys in itertools.product((0, 1, 3, 4, 7), repeat=2):
        text = f"att:fwd:f32:b1h1kv1d8:{queries},{keys}" + (f":c{causal}" if causal else "")
        rows = _rows(_core.intervals(text, 0, 0))
        assert rows == [visible_dense(q, queries, keys, causal) for q in range(queries)]


def test_intervals_of_every_axis_and_sequence():
    text = "na:fwd:f32:b1h1kv1d8:6x9+8x5:k3x2+4x5:s1x2+3x1:d2x3+1x1:c10+01"
    grids = [[(6, 3, 1, 2, True), (9, 2, 2, 3, False)], [(8, 4, 3, 1, False), (5, 5, 1, 1, True)]]
    for sequence, grid in enumerate(grids):
        for axis, (extent, *more) in enumerate(grid):
            expected = [visible(q, extent, *more) for q in range(extent)]
            assert _rows(_core.intervals(text, sequence, axis)) == expected


@pytest.mark.parametrize("dilation", [1, 2])
def test_intervals_of_a_shard(dilation):
    """A query sees its global window, as far as those keys are present."""
    for (a, b), (c, d) in itertools.product([(0, 12), (3, 8), (10, 12)], [(0, 12), (2, 9), (5, 6), (0, 1)]):
        text = f"na:fwd:f32:b1h1kv1d8:12:k5:s2:d{dilation}:q={a}-{b}:kv={c}-{d}"
        expected = [[j for j in visible(q, 12, 5, 2, dilation) if c <= j < d] for q in range(a, b)]
        assert _rows(_core.intervals(text, 0, 0)) == expected, text


@pytest.mark.parametrize("sequence, axis", [(1, 0), (-1, 0), (0, 1), (0, -1), (2**40, 0), (0, 2**20)])
def test_intervals_of_what_is_not_there(sequence, axis):
    with pytest.raises(ValueError):
        _core.intervals("na:fwd:f32:b1h1kv1d8:10:k3", sequence, axis)


def test_intervals_of_a_huge_axis_are_refused_not_fatal():
    """2**31 - 1 tokens are a legal axis; listing them is refused, or bounded."""
    answer = _core.problem("na:fwd:f32:b1h1kv1d8:2147483647:k3")
    assert answer["pairs"] == 3 * 2147483647


def test_pairs_are_counted_exactly():
    def of(extent, *axis):
        return sum(len(visible(q, extent, *axis)) for q in range(extent))

    text = "na:fwd:f32:b2h8kv8d16:6x7:k3x4:s2x1:d2x1:c10:add=5"
    pairs = of(6, 3, 2, 2, True) * of(7, 4, 1, 1, False) + 6 * 7 * 5
    answer = _core.problem(text)
    assert answer["pairs"] == 2 * pairs and answer["rank"] == 2 and answer["sequences"] == 1
    assert answer["flops"] == 2 * (16 + 16) * 2 * pairs * 8
    assert _core.problem(text.replace("fwd", "bwd"))["flops"] == 2.5 * answer["flops"]
    plain = _core.problem("na:fwd:f32:b2h8kv8d16:6x7:k3x4")
    assert math.isclose(plain["sparsity"], 42 / 12)
    assert _core.problem("att:fwd:f32:b1h1kv1d8:7,9")["sparsity"] == 1


@pytest.mark.parametrize(
    "case", [(12, 3, 1, 1, False), (12, 4, 3, 1, True), (13, 3, 2, 3, False), (9, 9, 1, 1, False)]
)
def test_needed_keys(case):
    """The hull of what any query of the shard sees."""
    extent, *axis = case
    for begin, end in itertools.combinations(range(extent + 1), 2):
        seen = {j for q in range(begin, end) for j in visible(q, extent, *axis)}
        (got,) = _core.needed_keys(_text(extent, *axis), [(begin, end)])
        assert list(got) == [min(seen), max(seen) + 1], (case, begin, end)


def test_needed_keys_of_several_axes():
    text = "na:fwd:f32:b1h1kv1d8:10x8:k3x5"
    assert [list(x) for x in _core.needed_keys(text, [(2, 4), (0, 8)])] == [[1, 5], [0, 8]]
    for first in ((4, 2), (-1, 4), (0, 2**62), (0, 11)):
        with pytest.raises(ValueError):
            _core.needed_keys(text, [first, (0, 8)])
    for shard in ([], [(2, 4)], [(2, 4), (0, 8), (0, 1)]):
        with pytest.raises(ValueError):
            _core.needed_keys(text, shard)


def test_explain():
    text = _core.explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7")
    assert "cpu" in text and "reference" in text
    forced = _core.explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7@reference")
    assert "reference" in forced
    for bad in ("na:fwd:f32:b1h8kv8d32:64x64:k7x7@nope", "x", "@cpu", "na:fwd:f32:b1h1kv1d8:9:k3@cpu,7"):
        with pytest.raises(ValueError):
            _core.explain(bad)
    refused = _core.explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7@cpu,q64x64")
    assert "cpu" in refused and "tile" in refused
    assert isinstance(_core.explain("na:fwd:f32:b1h8kv8d32:64x64:k7x7", device="cuda"), str)
