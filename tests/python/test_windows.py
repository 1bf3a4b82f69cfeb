# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What a query sees, revealed by the operators themselves, against golden vectors and brute force."""

import itertools

import pytest
import torch
from cases import dense, na
from golden import GOLDEN, tokens_of
from oracle import dense_mask, grid_mask

import nearfield as nf


def _revealed(function, queries, keys, backend, *args, **kw):
    """Uniform scores and one-hot values make the output the visible set: bool [queries, keys]."""
    n = keys.numel()
    q, k = torch.zeros(1, *queries, 1, 2), torch.zeros(1, *keys, 1, 2)
    out, lse = function(
        q, k, torch.eye(n).reshape(1, *keys, 1, n), *args, backend=backend, return_lse=True, **kw
    )
    out, count = out.reshape(-1, n), lse.flatten().exp()
    torch.testing.assert_close(out.sum(-1), (count > 0).float())
    torch.testing.assert_close(out * count[:, None], (out > 0).float())
    return out > 0


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_golden_vectors(case, backend):
    size = torch.Size([case.extent])
    seen = _revealed(nf.na1d, size, size, backend, case.window, case.stride, case.dilation, case.causal)
    assert [row.nonzero().flatten().tolist() for row in seen] == tokens_of(case)


def _axes(longest):
    """Every legal (extent, window, stride, dilation, causal) up to an extent."""
    for extent in range(1, longest + 1):
        for window in range(1, extent + 1):
            for stride in range(1, window + 1):
                for dilation in range(1, extent // window + 1):
                    yield from ((extent, window, stride, dilation, causal) for causal in (False, True))


def _check_axes(longest, backend):
    for extent, *axis in _axes(longest):
        size = torch.Size([extent])
        seen = _revealed(nf.na1d, size, size, backend, *axis)
        assert torch.equal(seen, grid_mask((extent,), *((a,) for a in axis))), (extent, *axis)


def test_every_small_axis(backend):
    _check_axes(7, backend)


@pytest.mark.full
def test_every_axis(backend):
    _check_axes(17, backend)


def test_axes_do_not_mix(backend):
    """Every pair of a few axes, in both orders, and a third of them in the middle."""
    axes = [
        (5, 3, 1, 1, False),
        (4, 2, 2, 2, True),
        (6, 4, 3, 1, False),
        (3, 3, 1, 1, True),
        (1, 1, 1, 1, False),
    ]
    for pair in itertools.product(axes, repeat=2):
        for several in (pair, (pair[0], axes[1], pair[1])):
            layout, *parameters = zip(*several, strict=True)
            function = nf.na2d if len(several) == 2 else nf.na3d
            seen = _revealed(function, torch.Size(layout), torch.Size(layout), backend, *parameters)
            assert torch.equal(seen, grid_mask(layout, *parameters)), several


def test_dense_masks(backend):
    types = {None: None, "tl": nf.CausalType.TopLeft, "br": nf.CausalType.BottomRight}
    for queries, keys in itertools.product((1, 2, 3, 5, 8), repeat=2):
        for name, causal in types.items():
            seen = _revealed(
                nf.attention,
                torch.Size([queries]),
                torch.Size([keys]),
                backend,
                is_causal=causal is not None,
                causal_type=causal,
            )
            assert torch.equal(seen, dense_mask(queries, keys, name)), (queries, keys, name)
    seen = _revealed(
        nf.attention,
        torch.Size([5]),
        torch.Size([5]),
        backend,
        is_causal=True,
        causal_type=nf.CausalType.DontCare,
    )
    assert torch.equal(seen, dense_mask(5, 5, "tl"))


def test_causal_type_without_is_causal_is_ignored(backend):
    case = dense(5, 7)
    q, k, v = case.inputs()
    plain = nf.attention(q, k, v, backend=backend)
    for causal in nf.CausalType:
        assert torch.equal(plain, nf.attention(q, k, v, False, causal, backend=backend))


def test_scalars_stand_for_every_axis(backend):
    q, k, v = na((6, 7), (3, 3)).inputs()
    spelled = nf.na2d(q, k, v, (3, 3), (2, 2), (2, 2), (True, True), backend=backend)
    assert torch.equal(nf.na2d(q, k, v, 3, 2, 2, True, backend=backend), spelled)
    assert torch.equal(nf.na2d(q, k, v, [3, 3], [2, 2], [2, 2], [True, True], backend=backend), spelled)
