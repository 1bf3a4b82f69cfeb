# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding against complex multiplication in float64, and its laws."""

import math

import pytest
import torch
from torch.autograd import forward_ad

import nearfield as nf

LAYOUTS = [((7,), 2), ((9,), 10), ((3, 4), 8), ((2, 3, 4), 18)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def turned(x, base=10000.0, offset=None, factor=None, ntk=False):
    """The definition: a pair of channels is a complex number, turned by exp(i p theta_m). In float64."""
    layout = x.shape[1:-2]
    axes, n = len(layout), x.shape[-1] // len(layout)
    out = torch.empty(x.shape, dtype=torch.float64)
    for place in torch.cartesian_prod(*(torch.arange(e) for e in layout)).reshape(-1, axes).tolist():
        at = (slice(None), *place)
        for axis, token in enumerate(place):
            p, f = token + (offset[axis] if offset else 0), factor[axis] if factor else 1
            for m in range(n // 2):
                if ntk:
                    theta = (base * f ** (n / (n - 2))) ** (-2 * m / n)
                else:
                    theta = base ** (-2 * m / n) / f
                c, s = math.cos(p * theta), math.sin(p * theta)
                i, j = axis * n + m, axis * n + m + n // 2
                a, b = x[at][..., i].double(), x[at][..., j].double()
                out[at][..., i], out[at][..., j] = a * c - b * s, b * c + a * s
    return out


def sample(layout, dim, dtype=torch.float64, batch=2, heads=3):
    return torch.randn(batch, *layout, heads, dim, dtype=torch.float64).to(dtype)


def close(actual, expected, dtype):
    """Rounded once to dtype; the table and the sum in the working dtype before."""
    work = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    largest = expected.abs().max() if expected.numel() else 0
    bound = torch.finfo(dtype).eps * expected.abs() + 32 * work * (1 + largest)
    bound += torch.finfo(dtype).smallest_normal
    assert actual.dtype == dtype and ((actual.double() - expected).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout, dim", LAYOUTS)
def test_equals_complex_multiplication(layout, dim, dtype):
    x = sample(layout, dim, dtype)
    before, version = x.clone(), x._version
    y = nf.rope(x)
    close(y, turned(x), dtype)
    assert torch.equal(x, before) and x._version == version and y.data_ptr() != x.data_ptr()
    close(nf.rope(x, 100), turned(x, 100), dtype)
    tables = nf.rope_tables(layout, dim, dtype=dtype)
    assert [t.shape for pair in tables for t in pair] == [
        (n, dim // len(layout)) for n in layout for _ in "cs"
    ]
    work = nf.rope_tables(layout, dim, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(nf.apply_rope(x, work), y)
    assert torch.equal(nf.apply_rope(x, [list(pair) for pair in work]), y)


@pytest.mark.parametrize("layout, dim", LAYOUTS[1:])
def test_offset_and_factor(layout, dim):
    x, axes = sample(layout, dim), len(layout)
    offset, factor = tuple(range(5, 5 + axes)), tuple(1.5 + a for a in range(axes))
    close(nf.rope(x, offset=offset), turned(x, offset=offset), x.dtype)
    close(nf.rope(x, offset=-2.5), turned(x, offset=(-2.5,) * axes), x.dtype)
    both = {"offset": offset, "factor": factor}
    close(nf.rope(x, **both), turned(x, **both), x.dtype)
    close(nf.rope(x, factor=3, scaling="linear"), turned(x, factor=(3,) * axes), x.dtype)
    close(nf.rope(x, scaling="ntk", **both), turned(x, ntk=True, **both), x.dtype)
    close(nf.apply_rope(x, nf.rope_tables(layout, dim, dtype=x.dtype, **both)), turned(x, **both), x.dtype)


def test_a_shard_is_a_slice_of_the_whole():
    x = sample((6, 8), 8)
    assert torch.equal(nf.rope(x)[:, 2:5, 3:], nf.rope(x[:, 2:5, 3:], offset=(2, 3)))


def test_scores_depend_on_the_difference_of_positions_and_lengths_stay():
    q, k = torch.randn(2, 1, 1, 1, 1, 12, dtype=torch.float64).expand(2, 1, 5, 6, 1, 12)
    x = sample((5, 6), 12)
    torch.testing.assert_close(nf.rope(x).norm(dim=-1), x.norm(dim=-1))
    q, k = nf.rope(q)[0, :, :, 0], nf.rope(k)[0, :, :, 0]
    for i in range(4):
        for j in range(5):
            for di in range(-i, 5 - i):
                if 0 <= 1 + di < 5:
                    shifted = (q[i + di, j] * k[1 + di, 2]).sum()
                    torch.testing.assert_close((q[i, j] * k[1, 2]).sum(), shifted)


def test_factor_interpolates_between_the_old_positions():
    x = sample((4, 3), 12)
    fine = x.repeat_interleave(2, 1).repeat_interleave(3, 2)
    torch.testing.assert_close(nf.rope(fine, factor=(2, 3))[:, ::2, ::3], nf.rope(x))


def test_ntk_keeps_the_fastest_channels_and_interpolates_the_slowest():
    n = 8
    cos, sin = nf.rope_tables((50,), n, factor=4, scaling="ntk", dtype=torch.float64)[0]
    plain = nf.rope_tables((50,), n, dtype=torch.float64)[0][0]
    linear = nf.rope_tables((50,), n, factor=4, dtype=torch.float64)[0][1]
    torch.testing.assert_close(cos[:, 0], plain[:, 0])
    torch.testing.assert_close(sin[:, n // 2 - 1], linear[:, n // 2 - 1])
    two = [nf.rope_tables((5,), 2, factor=f, scaling="ntk")[0][0] for f in (1, 4)]
    assert torch.equal(*two)  # a single frequency, 1, whatever the base


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tables_are_rounded_once_even_far_out(dtype):
    """A float32 angle of 1e6 would be off by 0.06."""
    cos, sin = nf.rope_tables((40,), 16, offset=1_000_000, dtype=dtype)[0]
    for m in range(8):
        for p in range(40):
            angle = (1_000_000 + p) * 10000.0 ** (-2 * m / 16)
            for table, exact in ((cos, math.cos(angle)), (sin, math.sin(angle))):
                for column in (m, m + 8):
                    error = abs(table[p, column].item() - exact)
                    assert error <= 0.5001 * torch.finfo(dtype).eps * abs(exact) + 1e-7 * (
                        dtype != torch.float32
                    )


def test_any_floating_dtype_strides_and_no_tokens():
    x = torch.randn(2, 5, 3, 8).to(torch.float8_e4m3fn)
    y = nf.rope(x)
    assert y.dtype == x.dtype and torch.equal(y.float(), nf.rope(x.float()).to(x.dtype).float())
    x = sample((4, 6), 8).transpose(1, 2)
    assert torch.equal(nf.rope(x), nf.rope(x.contiguous()))
    for shape in ((0, 4, 2, 4), (2, 0, 2, 4), (2, 0, 3, 1, 8)):
        assert nf.rope(torch.randn(shape)).shape == shape
    assert nf.rope(torch.randn(1, 3, 2, 4, device="meta")).device.type == "meta"


def test_derivatives():
    x = sample((2, 3), 4, batch=1, heads=2).requires_grad_()

    def f(x):
        return nf.rope(x, offset=(1, 2), factor=1.5)

    assert torch.autograd.gradcheck(f, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(f, x)
    tangent = torch.randn_like(x)
    torch.testing.assert_close(torch.func.jvp(f, (x,), (tangent,))[1], f(tangent))
    with forward_ad.dual_level():
        dual = f(forward_ad.make_dual(x.detach(), tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, f(tangent))


def test_vmap():
    x = torch.randn(3, 2, 4, 5, 1, 8)
    torch.testing.assert_close(torch.vmap(nf.rope)(x), torch.stack([nf.rope(t) for t in x]))
    torch.testing.assert_close(
        torch.vmap(nf.rope, 2, 2)(x), torch.stack([nf.rope(t) for t in x.unbind(2)], 2)
    )
    tables = nf.rope_tables((4, 5), 8)
    assert torch.equal(torch.vmap(lambda t: nf.apply_rope(t, tables))(x), torch.vmap(nf.rope)(x))


@pytest.mark.parametrize("dynamic, most", [(None, 3), (True, 2)])
def test_compiles_for_changing_lengths_and_offsets(dynamic, most):
    """A step of decoding moves the offset: an int that becomes symbolic, and no graph per step."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=most):
        compiled = torch.compile(
            lambda x, at: nf.rope(x, offset=at), fullgraph=True, dynamic=dynamic, backend="aot_eager"
        )
        for length, at in ((4, 5), (5, 7), (8, 12), (9, 13), (17, 30)):
            x = torch.randn(2, length, 3, 8, requires_grad=True)
            y = compiled(x, at)
            torch.testing.assert_close(y, nf.rope(x, offset=at))
            y.sum().backward()
            torch.testing.assert_close(x.grad, torch.autograd.grad(nf.rope(x, offset=at).sum(), x)[0])


def test_rope_with_attention_equals_plain_scores():
    q, k, v = (sample((5,), 8, batch=1, heads=2) for _ in "qkv")
    weights = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", turned(q), turned(k)) * 8**-0.5, -1)
    expected = torch.einsum("bhqk,bkhd->bqhd", weights, v)
    torch.testing.assert_close(nf.attention(nf.rope(q), nf.rope(k), v), expected)


X = torch.randn(1, 4, 2, 8)
X2 = torch.randn(1, 3, 4, 2, 8)


@pytest.mark.parametrize(
    "error, text, call",
    [
        (TypeError, r"\[rope\] got x of type list", lambda: nf.rope([1.0])),
        (NotImplementedError, "sparse", lambda: nf.rope(X.to_sparse())),
        (ValueError, "dtype torch.int64", lambda: nf.rope(X.long())),
        (ValueError, "dtype torch.complex64", lambda: nf.rope(X.to(torch.complex64))),
        (ValueError, "rank 3", lambda: nf.rope(X[0])),
        (ValueError, "rank 7", lambda: nf.rope(X[None, None, None])),
        (ValueError, "head_dim 7, expected a multiple of 2", lambda: nf.rope(X[..., :7])),
        (ValueError, "head_dim 6, expected a multiple of 4", lambda: nf.rope(X2[..., :6])),
        (ValueError, "head_dim 8, expected a multiple of 6", lambda: nf.rope(X2[:, None])),
        (ValueError, "head_dim 0", lambda: nf.rope(X[..., :0])),
        (ValueError, "base 0.0", lambda: nf.rope(X, 0)),
        (ValueError, "base nan", lambda: nf.rope(X, math.nan)),
        (TypeError, "base of type str", lambda: nf.rope(X, "1e4")),
        (ValueError, "offset of length 2, expected 1", lambda: nf.rope(X, offset=(1, 2))),
        (ValueError, "offset inf", lambda: nf.rope(X, offset=math.inf)),
        (TypeError, "offset of type bool", lambda: nf.rope(X, offset=True)),
        (ValueError, "factor 0, expected positive", lambda: nf.rope(X, factor=0)),
        (ValueError, r"factor \(2, -1\)", lambda: nf.rope(X2, factor=(2, -1))),
        (ValueError, "scaling 'yarn', expected one of linear, ntk", lambda: nf.rope(X, scaling="yarn")),
        (TypeError, r"\[rope_tables\] got layout of type int", lambda: nf.rope_tables(4, 8)),
        (ValueError, "expected 1, 2 or 3 axes", lambda: nf.rope_tables((), 8)),
        (ValueError, r"layout \(4, -1\)", lambda: nf.rope_tables((4, -1), 8)),
        (TypeError, "entry of type float", lambda: nf.rope_tables((4.0,), 8)),
        (TypeError, "head_dim of type float", lambda: nf.rope_tables((4,), 8.0)),
        (ValueError, "dtype torch.int32", lambda: nf.rope_tables((4,), 8, dtype=torch.int32)),
        (ValueError, "got 2 tables", lambda: nf.apply_rope(X, nf.rope_tables((4, 4), 8))),
        (ValueError, r"shape \(5, 8\)", lambda: nf.apply_rope(X, nf.rope_tables((5,), 8))),
        (ValueError, r"shape \(4, 4\)", lambda: nf.apply_rope(X, nf.rope_tables((4,), 4))),
        (ValueError, "table on meta", lambda: nf.apply_rope(X, nf.rope_tables((4,), 8, device="meta"))),
        (TypeError, "form", lambda: nf.apply_rope(X, torch.ones(4, 8))),
        (TypeError, "cos of type list", lambda: nf.apply_rope(X, [([1.0], [1.0])])),
    ],
)
def test_errors(error, text, call):
    with pytest.raises(error, match=text) as caught:
        call()
    assert type(caught.value) is error


@pytest.mark.parametrize("offset", [2**62, -(2**70), 1e300, float("nan")])
def test_offsets_beyond_reason(offset):
    with pytest.raises(ValueError, match=r"^\[rope\] got offset"):
        nf.rope(torch.zeros(1, 3, 1, 4), offset=offset)


@pytest.mark.parametrize("factor", [1e308, 1e-320, 0, float("inf")])
def test_factors_beyond_reason(factor):
    for scaling in ("linear", "ntk"):
        with pytest.raises(ValueError, match=r"^\[rope\] got factor"):
            nf.rope(torch.zeros(1, 3, 1, 8), factor=factor, scaling=scaling)
