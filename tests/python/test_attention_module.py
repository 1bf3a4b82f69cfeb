# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The module Attention against its definition in plain torch: heads, rotation, norm, softmax."""

import copy
import io
import math
import pickle

import pytest
import torch

import nearfield as nf

ROPE = [((7,), 2), ((3, 4), 8), ((2, 3, 2), 6)]  # layout, head_dim
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def turned(x, base):
    """x [B, *layout, H, D] as complex pairs (j, j + n/2) per axis slice, times exp(i p base**(-2m/n))."""
    layout, parts = x.shape[1:-2], []
    n = x.shape[-1] // len(layout)
    for axis, extent in enumerate(layout):
        real, imag = x[..., axis * n : (axis + 1) * n].unflatten(-1, (2, n // 2)).unbind(-2)
        theta = torch.tensor([base ** (-2 * m / n) for m in range(n // 2)], dtype=torch.float64)
        angles = torch.arange(extent).double()[:, None] * theta
        turn = torch.polar(torch.ones_like(angles), angles)
        turn = turn.reshape(extent, *(1,) * (len(layout) - axis), n // 2)
        z = torch.complex(real, imag) * turn
        parts += [z.real, z.imag]
    return torch.cat(parts, -1)


def plain(module, query, key, value):
    """(out, lse) in float64."""
    dim = module.head_dim
    q, k, v = (x.unflatten(-1, (x.shape[-1] // dim, dim)) for x in (query, key, value))
    if module.use_rope:
        q, k = turned(q, module.rope_base), turned(k, module.rope_base)
    scale = dim**-0.5
    if module.apply_qk_norm:
        q, k, scale = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True), 1.0
    layout, groups = query.shape[:-1], q.shape[-2] // k.shape[-2]
    q, k, v = (x.flatten(1, -3) for x in (q, k, v))
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
    if module.is_causal:
        later = torch.ones(scores.shape[-2:]).triu(1).bool()
        scores = scores.masked_fill(later, -math.inf)
    out = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
    return out.reshape(query.shape), scores.logsumexp(-1).transpose(1, 2).reshape(*layout, -1)


def sample(layout, channels, dtype=torch.float64, batch=2):
    return torch.randn(batch, *layout, channels, dtype=torch.float64).to(dtype)


def check(results, expected, inputs, rtol=1e-7, atol=1e-9):
    seeds = [torch.sin(torch.arange(o.numel()) + 1.0).reshape(o.shape).double() for o in expected]
    pairs = list(zip(results, expected, strict=True))
    pairs += zip(
        torch.autograd.grad(results, inputs, seeds),
        torch.autograd.grad(expected, inputs, seeds),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("layout, dim", ROPE)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_plain_attention_with_gradients(layout, dim, norm, rope, causal):
    dims = list(layout) if rope else None
    module = nf.Attention(3 * dim, 3, norm, rope, causal, rope_base=50.0, rope_spatial_dims=dims)
    inputs = [sample(layout, 3 * dim).requires_grad_() for _ in "qkv"]
    results = module(*inputs, return_lse=True)
    check(results, plain(module, *inputs), inputs)
    assert torch.equal(module(*inputs), results[0])


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_heads(kv_heads):
    module = nf.Attention(16, 4, True, True, rope_spatial_dims=(3, 2), num_kv_heads=kv_heads)
    inputs = [sample((3, 2), c).requires_grad_() for c in (16, 4 * kv_heads, 4 * kv_heads)]
    check(module(*inputs, return_lse=True), plain(module, *inputs), inputs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries, keys", [((5,), (9,)), ((3, 2), (7,)), ((2, 3, 2), (3, 3)), ((9,), (2, 2))])
def test_cross_attention_without_rope(causal, queries, keys):
    """Causal is by raster order from the first token on, whatever the two layouts are."""
    module = nf.Attention(8, 2, False, False, causal)
    inputs = [sample(s, 8).requires_grad_() for s in (queries, keys, keys)]
    check(module(*inputs, return_lse=True), plain(module, *inputs), inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("moved", [False, True])
def test_dtypes_of_inputs_and_of_the_module(dtype, moved):
    """Tables are computed anew for a new dtype: a module made in float32 is exact in float64."""
    module = nf.Attention(16, 2, True, True, rope_spatial_dims=(9, 3))
    if moved:
        module.to(dtype)
    inputs = [sample((9, 3), 16, dtype) for _ in "qkv"]
    out = module(*inputs)
    assert out.dtype == dtype
    expected = plain(module, *(x.double() for x in inputs))[0]
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=8 * eps, atol=16 * eps)


def test_tables():
    names = {1: ["rope_cos", "rope_sin"], 2: [], 3: []}
    for axes, letters in ((2, "yx"), (3, "zyx")):
        names[axes] = [f"rope_{f}_{a}" for a in letters for f in ("cos", "sin")]
    for layout, dim in ROPE:
        module = nf.Attention(2 * dim, 2, False, True, rope_spatial_dims=layout)
        tables = dict(module.named_buffers())
        assert list(tables) == names[len(layout)] and module._rope_ndim == len(layout)
        assert not module.state_dict() and module.load_state_dict({}) is not None
        for i, pair in enumerate(nf.rope_tables(layout, dim)):
            for name, table in zip(names[len(layout)][2 * i :], pair, strict=False):
                assert torch.equal(tables[name], table) and table.dtype == torch.float32
        exact = nf.rope_tables(layout, dim, dtype=torch.float64)[0][0]
        assert torch.equal(next(module.double().buffers()), exact)
        assert torch.equal(next(module.bfloat16().buffers()), exact.float())
    assert not list(nf.Attention(4, 2, False, False).buffers())
    assert not hasattr(nf.Attention(4, 2, False, False), "_rope_ndim")
    made = nf.Attention(8, 2, False, True, rope_spatial_dims=(3,), dtype=torch.float64)
    assert made.rope_cos.dtype == torch.float64


def test_attributes_and_repr():
    module = nf.Attention(48, 8, True, True, rope_spatial_dims=(5,))
    assert module.extra_repr() == (
        "num_heads=8, apply_qk_norm=True, is_causal=False, attn_dropout=0.0, use_rope=True, rope_base=10000.0"
    )
    assert (module.hidden_dim, module.num_heads, module.head_dim, module.scale) == (48, 8, 6, 6**-0.5)
    assert (module.apply_qk_norm, module.use_rope, module.is_causal) == (True, True, False)
    assert (module.attn_dropout, module.rope_base, module.rope_spatial_dims) == (0.0, 10000.0, (5,))
    more = nf.Attention(8, 4, False, False, num_kv_heads=2, backend="cpu")
    assert more.extra_repr().endswith(", num_kv_heads=2, backend='cpu'")


@pytest.mark.parametrize("dims", [[3, 4], (3, 4), torch.Size((3, 4)), range(3, 5), iter((3, 4))])
def test_any_sequence_of_ints_is_a_layout(dims):
    module = nf.Attention(8, 2, False, True, rope_spatial_dims=dims)
    assert module.rope_spatial_dims == (3, 4) and module(*[sample((3, 4), 8)] * 3).shape == (2, 3, 4, 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rope", [False, True])
def test_zero_and_extreme_vectors_stay_finite_under_the_norm(dtype, rope):
    module = nf.Attention(8, 2, True, rope, rope_spatial_dims=(6,) if rope else None)
    big, small = torch.finfo(dtype).max ** 0.75, torch.finfo(dtype).tiny ** 0.4
    x = sample((6,), 8, dtype)
    x[:, 1], x[:, 2], x[:, 3] = 0, x[:, 2] * big / x.abs().max(), x[:, 3] * small
    inputs = [x.clone().requires_grad_() for _ in "qk"] + [sample((6,), 8, dtype).requires_grad_()]
    out = module(*inputs)
    assert out.isfinite().all()
    out.double().sin().sum().backward()
    assert all(t.grad.isfinite().all() for t in inputs[1:]) and inputs[0].grad[:, :2].isfinite().all()
    zero = torch.zeros(2, 6, 8, dtype=dtype)
    uniform = module(zero, zero, inputs[2])
    torch.testing.assert_close(
        uniform, inputs[2].mean(1, keepdim=True).expand_as(uniform), rtol=0.02, atol=0.02
    )


def test_copies_and_saves():
    module = nf.Attention(8, 2, True, True, True, rope_spatial_dims=(3, 4))
    inputs = [sample((3, 4), 8, torch.float32) for _ in "qkv"]
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(twin(*inputs), module(*inputs)) and repr(twin) == repr(module)


@pytest.mark.parametrize("way", ["context", "argument", "to"])
def test_meta_device_then_real(way):
    """to_empty() leaves memory unfilled; there is no state_dict to fill the tables from."""
    arguments = {"rope_spatial_dims": (3, 4)}
    if way == "context":
        with torch.device("meta"):
            module = nf.Attention(8, 2, True, True, **arguments)
    else:
        module = nf.Attention(8, 2, True, True, **arguments, device="meta" if way == "argument" else None)
        module.to("meta")
    inputs = [sample((3, 4), 8, torch.float32) for _ in "qkv"]
    assert module.rope_cos_y.is_meta and module(*(x.to("meta") for x in inputs)).is_meta
    module.to_empty(device="cpu")
    expected = nf.Attention(8, 2, True, True, **arguments)
    assert torch.equal(module(*inputs), expected(*inputs))
    module.rope_cos_y.zero_()
    module.reset_parameters()
    assert torch.equal(module(*inputs), expected(*inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    module = nf.Attention(8, 2, True, True, rope_spatial_dims=(3, 4))
    q, k, v = (sample((3, 4), 8, torch.float32) for _ in "qkv")
    with torch.autocast("cpu", dtype=dtype):
        out = module(q, k.to(dtype), v.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), module(q, k, v), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("rope", [False, True])
def test_compiles_and_exports(rope):
    dims = (3, 4) if rope else None
    module = nf.Attention(8, 2, True, rope, True, rope_spatial_dims=dims)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=1):  # one more graph is an error
        compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
        for batch, height in ((2, 3), (3, 3 if rope else 5), (5, 3 if rope else 2)):
            inputs = [sample((height, 4), 8, torch.float32, batch).requires_grad_() for _ in "qkv"]
            expected = module(*inputs)
            torch.testing.assert_close(compiled(*inputs), expected)
            for a, b in zip(
                torch.autograd.grad(compiled(*inputs).sin().sum(), inputs),
                torch.autograd.grad(expected.sin().sum(), inputs),
                strict=True,
            ):
                torch.testing.assert_close(a, b)
    dim = {0: torch.export.Dim("b", max=64)} | ({} if rope else {1: torch.export.Dim("n", max=64)})
    inputs = tuple(sample((3, 4), 8, torch.float32) for _ in "qkv")
    program = torch.export.export(module, inputs, dynamic_shapes=(dim, dim, dim)).module()
    inputs = [sample((3 if rope else 7, 4), 8, torch.float32, 5) for _ in "qkv"]
    torch.testing.assert_close(program(*inputs), module(*inputs))


def test_vmap_gradcheck_and_forward_mode():
    module = nf.Attention(8, 2, True, True, True, rope_spatial_dims=(2, 2))
    inputs = [sample((2, 2), 8, batch=1).requires_grad_() for _ in "qkv"]
    assert torch.autograd.gradcheck(module, inputs)
    stacked = [torch.stack([x, 2 * x, -x]).detach() for x in inputs]
    torch.testing.assert_close(
        torch.vmap(module)(*stacked), torch.stack([module(*xs) for xs in zip(*stacked, strict=True)])
    )
    tangents = tuple(torch.randn_like(x) for x in inputs)
    primals = tuple(x.detach() for x in inputs)
    got = torch.func.jvp(module, primals, tangents)[1]
    expected = torch.func.jvp(lambda *x: plain(module, *x)[0], primals, tangents)[1]
    torch.testing.assert_close(got, expected)


def test_dropout_trains_reproducibly_and_rests_in_eval():
    module = nf.Attention(8, 2, False, False, attn_dropout=0.4)
    inputs = [sample((4, 4), 8).requires_grad_() for _ in "qkv"]

    def draw(seed):
        torch.manual_seed(seed)
        out = module(*inputs)
        return out, *torch.autograd.grad(out.sin().sum(), inputs)

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    with torch.no_grad():
        expected = plain(module, *inputs)[0]
        draws = torch.stack([module(*inputs) for _ in range(400)])
    error = (draws.mean(0) - expected).abs() / (draws.std(0) / 20 + 1e-9)
    assert error.mean() < 1.2 and error.max() < 6  # the expectation over masks is the undropped output
    before = torch.get_rng_state()
    torch.testing.assert_close(module.eval()(*inputs), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_strides_aliases_and_no_tokens():
    module = nf.Attention(8, 2, True, True, rope_spatial_dims=(4, 3))
    x = sample((3, 4), 8, torch.float32).transpose(1, 2)
    before = x.clone()
    y = module(x, x, x)
    assert torch.equal(x, before) and torch.equal(y, module(*[x.contiguous()] * 3))
    assert module(x[:0], x[:0], x[:0]).shape == (0, 4, 3, 8)
    free = nf.Attention(8, 2, False, False)
    assert free(x[:, :0], x, x).shape == (2, 0, 3, 8)
    assert torch.equal(free(x, x[:, :0], x[:, :0]), torch.zeros_like(x))


class Group:
    """As much of a process group as the module asks for."""

    def __init__(self, ranks):
        self.ranks = ranks

    def size(self):
        return self.ranks


def test_process_groups():
    module, x = nf.Attention(8, 2, False, False), sample((5,), 8)
    assert torch.equal(module(x, x, x, Group(1)), module(x, x, x, cp_group=None))
    for wrong in ("ranks", torch.zeros(2)):
        with pytest.raises(TypeError, match=r"^\[Attention\] got cp_group of type .*a process group"):
            module(x, x, x, wrong)
    with pytest.raises(ValueError, match=r"^\[Attention\] got a mesh without torch.distributed"):
        module(x, x, x, Group(2))


@pytest.mark.parametrize(
    "error, text, arguments, more",
    [
        (AssertionError, r"^\[Attention\] got hidden_dim 10 and num_heads 4", (10, 4, False, False), {}),
        (ValueError, "num_heads 0", (8, 0, False, False), {}),
        (TypeError, "hidden_dim of type float", (8.0, 2, False, False), {}),
        (TypeError, "apply_qk_norm", (8, 2, 1, False), {}),
        (TypeError, "use_rope", (8, 2, False, None), {}),
        (TypeError, "is_causal", (8, 2, False, False, "yes"), {}),
        (ValueError, "attn_dropout 1.5", (8, 2, False, False, False, 1.5), {}),
        (ValueError, "attn_dropout nan", (8, 2, False, False, False, math.nan), {}),
        (TypeError, "rope_base of type str", (8, 2, False, False, False, 0.0, "1e4"), {}),
        (ValueError, "base 0", (8, 2, False, True), {"rope_base": 0, "rope_spatial_dims": (3,)}),
        (AssertionError, "without rope_spatial_dims", (8, 2, False, True), {}),
        (AssertionError, "multiple of 2", (6, 2, False, True), {"rope_spatial_dims": (3,)}),
        (AssertionError, "multiple of 4", (12, 2, False, True), {"rope_spatial_dims": (3, 3)}),
        (AssertionError, "multiple of 6", (16, 2, False, True), {"rope_spatial_dims": (3, 3, 3)}),
        (ValueError, "1, 2 or 3 axes", (48, 2, False, True), {"rope_spatial_dims": (3, 3, 3, 3)}),
        (ValueError, "1, 2 or 3 axes", (48, 2, False, True), {"rope_spatial_dims": ()}),
        (ValueError, "extents from 0", (8, 2, False, True), {"rope_spatial_dims": (-3,)}),
        (TypeError, "rope_spatial_dims of type int", (8, 2, False, True), {"rope_spatial_dims": 3}),
        (TypeError, "entry of type float", (8, 2, False, True), {"rope_spatial_dims": (3.0,)}),
        (ValueError, "num_kv_heads 3", (8, 4, False, False), {"num_kv_heads": 3}),
        (ValueError, "backend 'tpu'", (8, 4, False, False), {"backend": "tpu"}),
    ],
)
def test_constructor_errors(error, text, arguments, more):
    with pytest.raises(error, match=text) as caught:
        nf.Attention(*arguments, **more)
    assert type(caught.value) is error


X, Y = torch.randn(1, 3, 4, 8), torch.randn(1, 4, 3, 8)
PLAIN, TURNED = (
    nf.Attention(8, 2, False, False),
    nf.Attention(8, 2, False, True, rope_spatial_dims=(3, 4)),
)


@pytest.mark.parametrize(
    "error, text, module, inputs",
    [
        (TypeError, "got key of type list", PLAIN, (X, [X], X)),
        (NotImplementedError, "sparse", PLAIN, (X, X, X.to_sparse())),
        (AssertionError, "1 or 2 or 3 axes", PLAIN, (X[0, 0], X, X)),
        (AssertionError, "got value of shape", PLAIN, (X, X, X[None, None])),
        (AssertionError, "with 2 axes", TURNED, (X[:, 0], X, X)),
        (AssertionError, "with 2 axes", TURNED, (X, X[None], X)),
        (ValueError, "expected 8 channels", PLAIN, (X[..., :4], X, X)),
        (ValueError, "got value .*expected 8 channels", TURNED, (X, X, X[..., :4])),
        (ValueError, "query of layout \\(4, 3\\), expected \\(3, 4\\)", TURNED, (Y, X, X)),
        (ValueError, "key of layout \\(2, 4\\)", TURNED, (X, X[:, :2], X)),
        (ValueError, "expected one layout", PLAIN, (X, X, Y)),
        (ValueError, r"\[attention\] got .*batch", PLAIN, (X, X.repeat(2, 1, 1, 1), X.repeat(2, 1, 1, 1))),
        (ValueError, r"\[attention\] got .*float64", PLAIN, (X, X, X.double())),
    ],
)
def test_forward_errors(error, text, module, inputs):
    with pytest.raises(error, match=text) as caught:
        module(*inputs)
    assert type(caught.value) is error


@pytest.mark.parametrize("base", [0, -1, float("inf"), float("nan")])
def test_rope_base(base):
    for use_rope in (False, True):
        with pytest.raises(ValueError, match=r"^\[Attention\] got rope_base"):
            nf.Attention(16, 2, True, use_rope, rope_base=base, rope_spatial_dims=(4,))


@pytest.mark.parametrize("is_causal", [False, True])
def test_additional_keys(is_causal):
    """As if attention to them were merged in: neither turned nor normalised, and not masked."""
    module = nf.Attention(16, 2, True, True, is_causal, rope_spatial_dims=(3, 4), num_kv_heads=1)
    x = torch.randn(2, 3, 4, 16, dtype=torch.float64, requires_grad=True)
    kv = x[..., :8]
    more_keys, more_values = (torch.randn(2, 5, 1, 8, dtype=torch.float64, requires_grad=True) for _ in "kv")
    out, lse = module(x, kv, kv, return_lse=True, additional_keys=more_keys, additional_values=more_values)

    query = nf.rope(x.unflatten(-1, (2, 8))).flatten(1, 2)
    query = query / query.norm(dim=-1, keepdim=True)
    parts = [
        module(x, kv, kv, return_lse=True),
        nf.attention(query, more_keys, more_values, scale=1.0, return_lse=True),
    ]
    outs = [t.reshape(2, 12, 2, 8) for t, _ in parts]
    lses = [t.reshape(2, 12, 2) for _, t in parts]
    expected, expected_lse = nf.merge_attentions(outs, lses)
    torch.testing.assert_close(out.reshape(2, 12, 2, 8), expected)
    torch.testing.assert_close(lse.reshape(2, 12, 2), expected_lse)
    leaves = (x, more_keys, more_values)
    got = torch.autograd.grad(out.square().sum() + lse.sum(), leaves, retain_graph=True)
    want = torch.autograd.grad(expected.square().sum() + expected_lse.sum(), leaves)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(TypeError, match=r"^\[Attention\] got additional_keys of type str"):
        module(x, kv, kv, additional_keys="keys", additional_values=more_values)
    with pytest.raises(ValueError, match="additional_keys without additional_values"):
        module(x, kv, kv, additional_keys=more_keys)
