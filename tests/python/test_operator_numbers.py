# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What the operator is told by numbers: packed sequences, shards, whole-axis windows. Against the oracle."""

import pytest
import torch
from operator_cases import multi_dimensional, packed_attention, packed_layouts, shard

DROPOUT = {"seed": torch.tensor([-(2**40) + 3]), "dropout_p": 0.4}
ONE, NO = (1, 1), (False, False)
CASES = [
    packed_attention([(5, 5)]),
    packed_attention([]),
    packed_attention([], tail=(3, 2)),
    packed_attention([(5, 9), (0, 3), (7, 0), (0, 0), (30, 33)]),
    packed_attention([(5, 9), (8, 3), (0, 2), (33, 34)], "tl", tail=(2, 5)),
    packed_attention([(5, 9), (8, 3), (0, 2), (33, 34)], "br", tail=(0, 1)),
    packed_attention([(5, 9), (8, 3)], "br", maxima=(8, 9)),
    packed_attention([(5, 9), (8, 3)], maxima=(100, 9)),
    packed_attention([(5, 6), (0, 4), (7, 0), (3, 9)], "tl", tail=(1, 1), **DROPOUT),
    packed_layouts([((9,), (3,), (1,), (1,), (False,))]),
    packed_layouts([((9,), (-1,), (4,), (1,), (True,)), ((5,), (2,), (1,), (2,), (False,))], tail=3),
    packed_layouts([((6, 7), (3, -1), ONE, (2, 1), NO), ((4, 3), (2, 3), (2, 1), ONE, (True, False))]),
    packed_layouts([((1, 7), (55, 3), (9, 1), (7, 1), (True, False)), ((3, 1), (-1, -1), ONE, ONE, NO)]),
    packed_layouts([((6, 5), (3, 3), ONE, ONE, NO), ((0, 4), (2, 2), ONE, ONE, NO)], tail=2),
    packed_layouts([((2, 3, 4), (2, 3, 2), (1, 2, 1), (1, 1, 2), (True, False, False))] * 2, **DROPOUT),
    packed_layouts([((6, 5), (3, 2), ONE, (1, 2), NO), ((4, 4), (-1, 2), ONE, ONE, NO)], tail=2, **DROPOUT),
    multi_dimensional((9,), (-1,)),
    multi_dimensional((9,), (-1,), causal=(True,), stride=(5,)),
    multi_dimensional((6, 7), (-1, 3), causal=(True, False)),
    multi_dimensional((6, 7), (-1, -1)),
    multi_dimensional((6, 1), (3, 77), (1, 99), (2, 13), (False, True)),
    multi_dimensional((1, 1), (-1, -5), (-1, 9), (0, 13), (True, True)),
    multi_dimensional((3, 4, 5), (-1, 3, -1), causal=(True, False, False)),
    multi_dimensional((3, 8), (-1, 3), key_layout=(6, 4), causal=(False, True)),
    multi_dimensional((3, 8), (-1, 3), key_layout=(1, 4)),
    multi_dimensional((3, 8), (-1, 3), **DROPOUT),
    shard((40,), (7,), [range(10, 20)], [range(7, 23)]),
    shard((40,), (7,), [range(10, 20)], [range(10, 20)]),
    shard((40,), (7,), [range(10, 20)], [range(30, 40)]),  # nothing visible
    shard((40,), (7,), [range(33, 40)], [range(34, 34)]),  # no keys
    shard((40,), (4,), [range(11, 29)], [range(2, 20)], (3,), (5,), (True,), batch=2),
    shard((20, 12), (5, 3), [range(8, 16), range(12)], [range(6, 18), range(12)], (2, 1), (1, 2)),
    shard((20, 12), (5, 3), [range(8, 16), range(3, 7)], [range(10, 12), range(4, 8)], batch=2, **DROPOUT),
    shard((6, 7, 8), (3, 3, 3), [range(2, 5), range(7), range(4, 8)], [range(6), range(1, 6), range(3, 8)]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, dtype, backend):
    case.check(backend, dtype, backward=True)


def test_automatic_choice():
    for case in (CASES[4], CASES[11], CASES[22], CASES[31]):
        case.check(None, torch.float32, backward=False)


# ------------------------------------------------------------------------------------------------
# Refusals


def _refused(case, *words):
    with pytest.raises(ValueError, match=r"^\[\w+\] got ") as e:
        case.results(None, torch.float32, backward=False)
    for word in words:
        assert word in str(e.value), str(e.value)


def test_windows_that_are_refused():
    # The mask of a refused case is of no interest: a legal window stands in for it.
    def case(window, dilation=(1, 1), layout=(6, 7), **more):
        legal = multi_dimensional(layout, (1, 1))
        axes = tuple(n for w, d in zip(window, dilation, strict=True) for n in (w, 1, d, 0))
        legal.config.update(axes=axes, **more)
        return legal

    _refused(case((-1, 3), (2, 1)), "-1", "dilation")
    for window in ((0, 3), (-2, 3), (7, 3), (3, 8)):
        _refused(case(window), "window_size")
    _refused(case((3, 3), (3, 1)), "dilation")
    for function, window in ((1, (-1, 3)), (1, (0, 3))):  # na2d knows no -1
        _refused(case(window, function=function), "kernel_size")
    case((77, 3), (9, 1), layout=(1, 7)).results(None, torch.float32, backward=False)


def test_maxima_below_the_true_ones():
    _refused(packed_attention([(5, 9), (8, 3)], maxima=(7, 9)), "8", "max_seqlen")
    _refused(packed_attention([(5, 9), (8, 3)], maxima=(8, 8)), "9", "max_seqlen")
    _refused(packed_attention([(5, 9), (8, 3)], maxima=(-1, 9)), "max_seqlen")


@pytest.mark.parametrize(
    "offsets",
    [[1, 5, 13], [0, 6, 5], [0, 5, 14], [0, -1, 13], [], [[0, 5], [5, 13]], [0.0, 5.0, 13.0], [0, 5, 13, 13]],
    ids=str,
)
def test_offsets_that_are_wrong(offsets):
    case = packed_attention([(5, 9), (8, 3)])
    kind = torch.float32 if offsets and isinstance(offsets[0], float) else torch.int32
    case.config["offsets_query"] = torch.tensor(offsets, dtype=kind)
    _refused(case)


def test_offsets_come_in_twos():
    case = packed_attention([(5, 9), (8, 3)])
    del case.config["offsets_key"]
    _refused(case)


def test_layouts_beyond_the_packed_tokens():
    good = packed_layouts([((3, 4), (3, 3), ONE, ONE, NO)])
    case = packed_layouts([((3, 4), (3, 3), ONE, ONE, NO)] * 2)
    case.config.update(grids=case.config["grids"] + good.config["grids"])
    _refused(case)
    case.config.update(grids=case.config["grids"][:-1])
    _refused(case)
