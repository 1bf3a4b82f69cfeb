# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The drop-in for nvsubquadratic's Attention: its tables bit for bit, its turning channel by channel."""

import copy
import pickle

import pytest
import torch

import nearfield as nf
from nearfield.compat.nvsubquadratic import Attention

CASES = [((9,), 6), ((3, 5), 8), ((2, 3, 4), 12), ((300,), 64)]  # layout, head_dim
AXES = {1: ("",), 2: ("_y", "_x"), 3: ("_z", "_y", "_x")}


def angles(extent, n, base):
    """[extent, n/2] in float32, as that package computes them."""
    theta = 1.0 / base ** (torch.arange(0, n, 2, dtype=torch.float32) / n)
    return torch.outer(torch.arange(extent, dtype=torch.float32), theta)


def turned(x, base):
    """x [B, *layout, H, D]; y_j and y_{j+h} channel by channel, from float32 cosines and sines."""
    layout = x.shape[1:-2]
    n = x.shape[-1] // len(layout)
    h, y = n // 2, torch.empty_like(x)
    for axis, extent in enumerate(layout):
        angle = angles(extent, n, base)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        tall = (extent, *(1,) * (len(layout) - axis))  # against [..., extent, later axes, H]
        for j in range(h):
            a, b = x[..., axis * n + j], x[..., axis * n + j + h]
            first, second = j // 2, (j + h) // 2
            y[..., axis * n + j] = a * cos[:, first].reshape(tall) - b * sin[:, first].reshape(tall)
            y[..., axis * n + j + h] = b * cos[:, second].reshape(tall) + a * sin[:, second].reshape(tall)
    return y


def plain(x, layout, heads, base=10000.0, norm=False, causal=False):
    """Self-attention of one tensor x [B, *layout, C] through SDPA."""
    q = x.unflatten(-1, (heads, x.shape[-1] // heads))
    v = q.flatten(1, -3).transpose(1, 2)
    q = turned(q, base).flatten(1, -3).transpose(1, 2)
    q = torch.nn.functional.normalize(q, dim=-1) if norm else q
    scale = 1.0 if norm else None
    out = torch.nn.functional.scaled_dot_product_attention(q, q, v, is_causal=causal, scale=scale)
    return out.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("layout, dim", CASES)
@pytest.mark.parametrize("base", [10000.0, 100])
def test_tables_bit_for_bit(layout, dim, base):
    module = Attention(2 * dim, 2, False, True, rope_base=base, rope_spatial_dims=list(layout))
    n = dim // len(layout)
    names = [f"rope_{f}{a}" for a in AXES[len(layout)] for f in ("cos", "sin")]
    assert list(dict(module.named_buffers())) == names and not module.state_dict()
    for axis, extent in enumerate(layout):
        angle = angles(extent, n, base)
        for name, function in zip(names[2 * axis :], (torch.cos, torch.sin), strict=False):
            table = getattr(module, name)
            assert table.shape == (extent, n) and table.dtype == torch.float32
            for j in range(n):
                assert torch.equal(table[:, j], function(angle)[:, j // 2])


@pytest.mark.parametrize("layout, dim", CASES)
@pytest.mark.parametrize("norm, causal", [(False, False), (True, True)])
def test_equals_plain_attention_with_gradients(layout, dim, norm, causal):
    """In float64, with the float32 tables: their bits would show at 1e-7."""
    module = Attention(2 * dim, 2, norm, True, causal, rope_spatial_dims=layout)
    x = torch.randn(1, *layout, 2 * dim, dtype=torch.float64, requires_grad=True)
    out, expected = module(x, x, x), plain(x, layout, 2, norm=norm, causal=causal)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    for y in (module.double()(x, x, x), module.float()(x, x, x)):
        assert torch.equal(y, out)
    seed = torch.randn_like(x)
    torch.testing.assert_close(
        torch.autograd.grad(out, x, seed)[0],
        torch.autograd.grad(expected, x, seed)[0],
        rtol=1e-9,
        atol=1e-11,
    )


def test_differs_from_the_true_rotation_in_the_turning_alone():
    x = torch.randn(1, 5, 16)
    theirs, ours = (m(16, 2, True, True, rope_spatial_dims=(5,)) for m in (Attention, nf.Attention))
    assert isinstance(theirs, nf.Attention) and not torch.allclose(theirs(x, x, x), ours(x, x, x))
    theirs, ours = (m(16, 2, True, False) for m in (Attention, nf.Attention))
    assert torch.equal(theirs(x, x, x), ours(x, x, x))
    pair = Attention(2, 1, False, True, rope_spatial_dims=(5,))  # one pair: nothing to confuse
    torch.testing.assert_close(
        pair(*[x[..., :2]] * 3), nf.Attention(2, 1, False, True, rope_spatial_dims=(5,))(*[x[..., :2]] * 3)
    )


def test_tables_follow_the_module_and_no_default_dtype():
    expected = Attention(16, 2, False, True, rope_spatial_dims=(4, 3)).rope_sin_x
    module = Attention(16, 2, False, True, rope_spatial_dims=(4, 3)).bfloat16()
    assert torch.equal(module.rope_sin_x, expected.bfloat16())
    assert torch.equal(module.double().rope_sin_x, expected.double())
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        assert torch.equal(Attention(16, 2, False, True, rope_spatial_dims=(4, 3)).rope_sin_x, expected)
    finally:
        torch.set_default_dtype(before)
    with torch.device("meta"):
        module = Attention(16, 2, False, True, rope_spatial_dims=(4, 3))
    assert module.rope_sin_x.is_meta
    assert torch.equal(module.to_empty(device="cpu").rope_sin_x, expected)


def test_signature_and_repr():
    module = Attention(16, 2, True, True, False, 0.1, 500.0, (4,), "flex")
    assert (module.attn_dropout, module.rope_base, module._rope_ndim) == (0.1, 500.0, 1)
    assert module.attn_impl == "flex" and module.extra_repr() == (
        "num_heads=2, apply_qk_norm=True, is_causal=False, attn_dropout=0.1, use_rope=True, rope_base=500.0"
    )
    x = torch.randn(2, 4, 16)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin.eval()(x, x, x), module.eval()(x, x, x))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, x, x), module(x, x, x))


@pytest.mark.parametrize(
    "error, arguments",
    [
        (AssertionError, (10, 4, False, False)),
        (AssertionError, (8, 2, False, True)),
        (AssertionError, (12, 2, False, True, False, 0.0, 1e4, (3, 3))),
        (ValueError, (48, 2, False, True, False, 0.0, 1e4, (3, 3, 3, 3))),
        (ValueError, (8, 2, False, False, False, 0.0, 1e4, None, "xla")),
    ],
)
def test_errors(error, arguments):
    with pytest.raises(error, match=r"\[Attention\] got"):
        Attention(*arguments)
