# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""compat.natten.varlen: packed sequences with layouts of their own, beside a call for each."""

import pytest
import torch

import nearfield
from nearfield.compat import natten
from nearfield.compat.natten.varlen import configure_varlen, neighborhood_attention_varlen


def _qkv(tokens, value_dim=8):
    return [torch.randn(1, tokens, heads, dim) for heads, dim in ((4, 8), (2, 8), (2, value_dim))]


@pytest.mark.parametrize("lists", [False, True])
def test_packed_layouts(lists):
    layouts, windows, dilations = [(6, 5), (4, 8)], [(3, 2), (2, 4)], [(2, 1), (1, 2)]
    if lists:
        masks = {"kernel_size_list": windows, "dilation_list": dilations}
    else:
        windows, dilations = [(3, 2)] * 2, [1] * 2
        masks = {"kernel_size": (3, 2)}
    masks["is_causal"] = (True, False)
    q, k, v = _qkv(62, value_dim=4)
    metadata = configure_varlen(layouts, 8, "cpu", torch.float32, True, 4, **masks, backend="hopper-fna")
    out, lse = neighborhood_attention_varlen(q, k, v, metadata, scale=0.3, return_lse=True)
    begin = 0
    for layout, window, dilation in zip(layouts, windows, dilations, strict=True):
        end = begin + layout[0] * layout[1]
        alone = nearfield.na2d(
            *(x[:, begin:end].unflatten(1, layout) for x in (q, k, v)),
            window,
            dilation=dilation,
            is_causal=(True, False),
            scale=0.3,
            return_lse=True,
        )
        torch.testing.assert_close(
            (out[:, begin:end], lse[:, begin:end]), tuple(t.flatten(1, 2) for t in alone)
        )
        begin = end
    anew = neighborhood_attention_varlen(
        q, k, v, None, layouts, **masks, scale=0.3, q_tile_shape=(2, 2), kernel_schedule="pp"
    )
    assert torch.equal(anew, out)
    whole = neighborhood_attention_varlen(q, k, v, token_layout_list=layouts, is_causal=None)
    pairs = neighborhood_attention_varlen(
        q, k, v, token_layout_list=layouts, kernel_size=2, stride=1, dilation=1
    )
    assert torch.equal(whole, pairs)  # that package's default is a window of 2


def test_packed_layouts_refused():
    configure, run = natten.varlen.configure_varlen, neighborhood_attention_varlen
    tensors_to_come = (8, "cpu", torch.float32, False)
    with pytest.raises(
        ValueError, match=r"\[configure_varlen\] got kernel_size_list of length 1, expected 2"
    ):
        configure([(4,), (5,)], *tensors_to_come, kernel_size_list=[2])
    with pytest.raises(ValueError, match=r"\[configure_varlen\].*5.*expected"):
        configure([(4,), (9,)], *tensors_to_come, kernel_size=5)
    with pytest.raises(TypeError, match=r"\[configure_varlen\] got head_dim_v of type str"):
        configure([(4,)], *tensors_to_come, "8")
    q, k, v = _qkv(9)
    with pytest.raises(ValueError, match="got neither metadata nor token_layout_list"):
        run(q, k, v)
    with pytest.raises(ValueError, match="got backend 'flash', expected one of"):
        run(q, k, v, token_layout_list=[(9,)], backend="flash")
    with pytest.raises(TypeError, match=r"\[neighborhood_attention_varlen\] got query of type list"):
        run([q], k, v, token_layout_list=[(9,)])
