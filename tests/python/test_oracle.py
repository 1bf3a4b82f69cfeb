# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The oracle against the contract's golden vectors and laws, and against PyTorch's own attention."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from golden import GOLDEN, tokens_of
from oracle import attend, bias_index, dense_mask, grid_mask, visible, window_of
from philox import factors, kept, philox4x32


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_golden_vectors(case):
    rows = [
        visible(q, case.extent, case.window, case.stride, case.dilation, case.causal)
        for q in range(case.extent)
    ]
    assert rows == tokens_of(case)


@pytest.mark.parametrize("causal", [False, True])
def test_laws_of_a_window(causal):
    for extent in range(1, 15):
        for window in range(1, extent + 1):
            for stride in range(1, window + 1):
                rows = [window_of(q, extent, window, stride, causal) for q in range(extent)]
                assert all(q in row for q, row in enumerate(rows))
                assert all(a.start <= b.start and a.stop <= b.stop for a, b in itertools.pairwise(rows))
                assert set().union(*rows) == set(range(extent))
                if not causal:
                    assert all(len(row) == window and 0 <= row.start <= row.stop <= extent for row in rows)
                if window == extent:
                    assert all(row == range(0, q + 1 if causal else extent) for q, row in enumerate(rows))


def test_dense_masks():
    assert torch.equal(dense_mask(5, 7, "tl"), torch.ones(5, 7, dtype=torch.bool).tril())
    assert torch.equal(dense_mask(5, 7, "br"), torch.ones(5, 7, dtype=torch.bool).tril(2))
    assert torch.equal(dense_mask(7, 5, "br"), torch.ones(7, 5, dtype=torch.bool).tril(-2))


def _sdpa(q, k, v, mask, scale):
    """[B, *layout, H, D] through torch's attention in float64."""
    flat = [x.double().reshape(x.shape[0], -1, *x.shape[-2:]).transpose(1, 2) for x in (q, k, v)]
    flat[1:] = [x.repeat_interleave(q.shape[-2] // x.shape[1], 1) for x in flat[1:]]
    out = F.scaled_dot_product_attention(*flat, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).reshape(*q.shape[:-1], v.shape[-1])


@pytest.mark.parametrize("scale", [None, 0.0, -0.4])
def test_values_and_gradients_agree_with_torch(scale):
    g = torch.Generator().manual_seed(3)
    mask = grid_mask((5, 6), (3, 2), (2, 1), (1, 2), (True, False))
    q, k, v = (torch.randn(2, 5, 6, h, 8, generator=g, requires_grad=True) for h in (4, 2, 2))
    out, lse = attend(q, k, v, mask, scale)
    theirs = _sdpa(q, k, v, mask, scale)
    torch.testing.assert_close(out, theirs, rtol=1e-12, atol=1e-12)
    d_out = torch.randn(out.shape, generator=g, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(out, (q, k, v), d_out), torch.autograd.grad(theirs, (q, k, v), d_out), strict=True
    ):
        torch.testing.assert_close(a, b)
    logits = (
        torch.einsum("bxynd,bzwnd->bnxyzw", q.double(), k.double().repeat_interleave(2, 3))
        .flatten(4)
        .flatten(2, 3)
    )
    logits = (logits * (8**-0.5 if scale is None else scale)).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(lse, torch.logsumexp(logits, -1).transpose(1, 2).reshape(lse.shape))


def test_additional_keys_are_keys_that_everybody_sees():
    g = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, 6, 2, 4, generator=g) for _ in range(3))
    ak, av = (torch.randn(1, 3, 2, 4, generator=g) for _ in range(2))
    mask = torch.cat([grid_mask((6,), (3,)), torch.ones(6, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(
        attend(q, k, v, mask[:, :6], None, ak, av)[0],
        _sdpa(q, torch.cat([k, ak], 1), torch.cat([v, av], 1), mask, None),
    )


def test_a_query_that_sees_nothing():
    q, k, v = (torch.randn(1, n, 1, 4, dtype=torch.float64, requires_grad=True) for n in (3, 2, 2))
    out, lse = attend(q, k, v, dense_mask(3, 2, "br"))
    assert out[0, 0].eq(0).all() and lse[0, 0].item() == -torch.inf
    for gradient in torch.autograd.grad(out.sum() + lse[0, 1:].sum(), (q, k, v)):
        assert gradient.isfinite().all()


def test_queries_on_another_layout():
    """Twice as fine: children see what their parent sees. Half as fine: the window of the middle child."""
    for window in range(1, 8):
        own = grid_mask((7,), (window,), (max(window // 2, 1),), None, (window % 2 == 0,))
        fine = grid_mask((7,), (window,), (max(window // 2, 1),), None, (window % 2 == 0,), (14,))
        assert torch.equal(fine, own.repeat_interleave(2, 0))
    assert torch.equal(grid_mask((8,), (3,), queries=(4,)), grid_mask((8,), (3,))[1::2])
    assert torch.equal(grid_mask((6, 7), (3, 2), queries=(6, 7)), grid_mask((6, 7), (3, 2)))
    assert grid_mask((6, 7), (3, 2), queries=(2, 20)).sum(1).eq(6).all()


def test_bias_of_pairs():
    """Pair by pair, from the definition; and it is added to the scores."""
    layout, window, dilation = (7, 6), (3, 2), (2, 3)
    index, mask = bias_index(layout, window, dilation), grid_mask(layout, window, None, dilation)
    for q, k in mask.nonzero().tolist():
        offsets = [(k // 6 - q // 6) / 2, (k % 6 - q % 6) / 3]
        assert all(o == int(o) for o in offsets)
        assert index[q, k] == (offsets[0] + 2) * 3 + offsets[1] + 1
    q, k, v = (torch.randn(1, 7, 6, 2, 4, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(2, 5, 3, dtype=torch.float64)
    added = bias.flatten(1)[:, index].masked_fill(~mask, -torch.inf)
    flat = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
    theirs = F.scaled_dot_product_attention(*flat, attn_mask=added, scale=0.3).transpose(1, 2)
    ours = attend(q, k, v, mask, 0.3, bias=bias, index=index)[0].flatten(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_philox_known_answers():
    """Those that Random123 ships."""
    for counter, key, answer in (
        ("00000000" * 4, "00000000" * 2, "6627e8d5e169c58dbc57ac4c9b00dbd8"),
        ("ffffffff" * 4, "ffffffff" * 2, "408f276d41c83b0ea20bc7c66d5451fd"),
        ("243f6a8885a308d313198a2e03707344", "a4093822299f31d0", "d16cfe0994fdcceb5001e42024126ea1"),
    ):
        words = [[int(text[i : i + 8], 16) for i in range(0, len(text), 8)] for text in (counter, key)]
        drawn = philox4x32([torch.tensor(word) for word in words[0]], words[1])
        assert "".join(f"{word:08x}" for word in drawn) == answer


@pytest.mark.parametrize("seed", [0, 7, -3, 2**62 + 5])
def test_dropout_keeps_its_share(seed):
    p = 0.3
    mask = kept(seed, p, range(2), range(3), range(40), range(50))
    assert mask.shape == (2, 3, 40, 50)
    assert abs(mask.double().mean() - (1 - p)) < 4 * (p * (1 - p) / mask.numel()) ** 0.5
    assert torch.equal(kept(seed, p, [1], [2], [7, 9], [11]), mask[1:, 2:, [7, 9], 11:12])
    assert factors(seed, p, [0], [0], [0], range(50)).unique().tolist() == [0, 1 / (1 - p)]
    assert not torch.equal(kept(seed + 2**32, p, [0], [0], range(9), range(9)), mask[:1, :1, :9, :9])
