# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""NeighborhoodAttention1D/2D/3D against projections and a masked softmax written out."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from oracle import attend, grid_mask
from torch.utils.checkpoint import checkpoint

import nearfield as nf

MODULES = (nf.NeighborhoodAttention1D, nf.NeighborhoodAttention2D, nf.NeighborhoodAttention3D)
# layout, channels, heads, arguments of the module
CASES = [
    ((9,), 12, 3, {"kernel_size": 4, "stride": 2}),
    ((8,), 8, 2, {"kernel_size": 3, "dilation": 2, "is_causal": True, "qkv_bias": False}),
    ((5, 6), 16, 4, {"kernel_size": (3, 2), "num_kv_heads": 2}),
    ((6, 7), 8, 2, {"kernel_size": 3, "dilation": (2, 1), "is_causal": (True, False), "qk_scale": 0.7}),
    ((4, 4), 6, 1, {"kernel_size": 2, "qk_scale": 0.0}),
    ((3, 4, 5), 12, 2, {"kernel_size": (2, 3, 4), "stride": (1, 2, 3), "num_kv_heads": 1}),
]


def axes(x, rank):
    return x if isinstance(x, tuple) else (x,) * rank


def offsets_bias(table, layout, dilation):
    """[H, N, N]: table [H, 2k-1, ...] at key minus query in group units, plus k-1 (0 where out of range)."""
    tokens = list(itertools.product(*map(range, layout)))
    rows = []
    for q, k in itertools.product(tokens, tokens):
        at, legal = [], True
        for qi, ki, d, width in zip(q, k, dilation, table.shape[1:], strict=True):
            step = (ki - qi) // d + (width - 1) // 2
            legal = legal and (ki - qi) % d == 0 and 0 <= step < width
            at.append(step)
        rows.append(table[(slice(None), *at)] if legal else table.new_zeros(table.shape[0]))
    return torch.stack(rows, 1).reshape(table.shape[0], len(tokens), len(tokens))


def plain(module, x, more=(None, None)):
    """(out, lse) of the layer, from its weights and public attributes; channels in Swin's order."""
    heads, dim = module.num_heads, module.embed_dim // module.num_heads
    rank, layout = x.dim() - 2, x.shape[1:-1]
    kv = module.num_kv_heads
    y = x @ module.qkv.weight.T + (0 if module.qkv.bias is None else module.qkv.bias)
    rows = {"q": range(heads), "k": range(heads, heads + kv), "v": range(heads + kv, heads + 2 * kv)}
    q, k, v = (torch.stack([y[..., r * dim : (r + 1) * dim] for r in rows[n]], -2) for n in "qkv")
    causal = axes(module.is_causal, rank)
    mask = grid_mask(tuple(layout), module.kernel_size, module.stride, module.dilation, causal)
    if module.rpb is None:
        out, lse = attend(q, k, v, mask, module.scale, *more)
    else:
        flat = [t.flatten(1, -3).repeat_interleave(heads // t.shape[-2], -2) for t in (q, k, v)]
        scores = torch.einsum("bqhd,bkhd->bhqk", *flat[:2]) * module.scale
        scores = scores + offsets_bias(module.rpb, layout, module.dilation)
        scores = scores.masked_fill(~mask, -math.inf)
        out = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), flat[2]).unflatten(1, layout)
        lse = scores.logsumexp(-1).transpose(1, 2).unflatten(1, layout)
    return out.flatten(-2) @ module.proj.weight.T + module.proj.bias, lse


def build(case, **more):
    layout, channels, heads, arguments = case
    return MODULES[len(layout) - 1](channels, heads, **{**arguments, **more})


def sample(case, dtype=torch.float64, batch=2):
    return torch.randn(batch, *case[0], case[1], dtype=dtype)


def gradients(outputs, inputs):
    seeds = [torch.sin(torch.arange(o.numel()) + 1.0).reshape(o.shape).to(o.dtype) for o in outputs]
    return torch.autograd.grad(outputs, inputs, seeds)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rel_pos_bias", [False, True])
def test_equals_plain_attention_with_gradients(case, rel_pos_bias):
    module = build(case, dtype=torch.float64, rel_pos_bias=rel_pos_bias)
    if rel_pos_bias:
        module.rpb.data.normal_()
    x = sample(case).requires_grad_()
    results = module(x, return_lse=True)
    expected = plain(module, x)
    inputs = [x, *module.parameters()]
    for a, b in zip(results, expected, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(gradients(results, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b)
    alone = module(x)
    assert isinstance(alone, torch.Tensor) and torch.equal(alone, results[0])


def test_additional_keys_and_values():
    case = CASES[2]
    module, x = build(case, dtype=torch.float64), sample(case).requires_grad_()
    more = [torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True) for _ in "kv"]
    results = module(x, True, *more)
    expected = plain(module, x, more)
    for a, b in zip(results, expected, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(gradients(results, [x, *more]), gradients(expected, [x, *more]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_state_dict_is_that_of_swin(case):
    module = build(case)
    channels, heads, kv = case[1], case[2], case[3].get("num_kv_heads", case[2])
    width = (heads + 2 * kv) * (channels // heads)
    shapes = {"qkv.weight": (width, channels), "qkv.bias": (width,)}
    shapes |= {"proj.weight": (channels, channels), "proj.bias": (channels,)}
    if not case[3].get("qkv_bias", True):
        del shapes["qkv.bias"]
    state = module.state_dict()
    assert {n: tuple(t.shape) for n, t in state.items()} == shapes
    assert kv != heads or width == 3 * channels
    other = build(case)
    assert not torch.equal(other(sample(case, torch.float32)), module(sample(case, torch.float32)))
    other.load_state_dict(state)
    x = sample(case, torch.float32)
    assert torch.equal(other(x), module(x))
    biased = build(case, rel_pos_bias=True)
    offsets = tuple(2 * k - 1 for k in axes(case[3]["kernel_size"], len(case[0])))
    assert tuple(biased.state_dict()["rpb"].shape) == (heads, *offsets)
    assert 0 < biased.rpb.abs().max() < 0.2
    assert biased.load_state_dict(state, strict=False).missing_keys == ["rpb"]


def test_attributes_and_repr():
    module = nf.NeighborhoodAttention2D(12, 3, 3, (1, 2), is_causal=(False, True), proj_drop=0.25)
    assert (module.na_dim, module.embed_dim, module.num_heads, module.head_dim) == (2, 12, 3, 4)
    assert (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 2), (1, 1))
    assert module.is_causal == (False, True) and module.scale == 0.5 and module.proj_drop.p == 0.25
    assert module.extra_repr() == (
        "head_dim=4, num_heads=3, kernel_size=(3, 3), stride=(1, 2), dilation=(1, 1), is_causal=(False, True)"
    )
    more = nf.NeighborhoodAttention1D(
        8, 4, 3, num_kv_heads=2, attn_drop=0.5, rel_pos_bias=True, backend="cpu", qk_scale=0.0
    )
    assert more.scale == 0.0 and more.extra_repr().endswith(
        "num_kv_heads=2, attn_drop=0.5, rel_pos_bias=True, backend='cpu'"
    )


def test_reset_parameters_and_init():
    module = nf.NeighborhoodAttention1D(8, 2, 3, rel_pos_bias=True)
    torch.manual_seed(3)
    plain_linears = [torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)]
    torch.manual_seed(3)
    module.reset_parameters()
    for ours, theirs in zip((module.qkv, module.proj), plain_linears, strict=True):
        assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
    before = module.rpb.clone()
    module.reset_parameters()
    assert not torch.equal(before, module.rpb)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_backend_is_passed_on(backend):
    case = CASES[3]
    module, x = build(case, dtype=torch.float64, backend=backend), sample(case)
    torch.testing.assert_close(module(x), plain(module, x)[0])
    with pytest.raises(ValueError, match="cuda_sm90"):
        build(case, backend="cuda_sm90", dtype=torch.float64)(x)


@pytest.mark.parametrize("rel_pos_bias", [False, True])
def test_copies(rel_pos_bias):
    case = CASES[2]
    module, x = build(case, rel_pos_bias=rel_pos_bias), sample(case, torch.float32)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x)) and repr(twin) == repr(module)
        twin.qkv.weight.data.zero_()
        assert module.qkv.weight.abs().max() > 0


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[5]], ids=str)
@pytest.mark.parametrize("rel_pos_bias", [False, True])
def test_meta_device_then_real(case, rel_pos_bias):
    with torch.device("meta"):
        module = build(case, rel_pos_bias=rel_pos_bias)
    assert all(p.is_meta for p in module.parameters())
    out, lse = module(sample(case, torch.float32).to("meta"), return_lse=True)
    assert out.is_meta and out.shape == (2, *case[0], case[1]) and lse.shape == (2, *case[0], case[2])
    module.to_empty(device="cpu").reset_parameters()
    x = sample(case, torch.float32)
    torch.testing.assert_close(module(x), plain(module.double(), x.double())[0].float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rel_pos_bias", [False, True])
def test_autocast_and_16_bit_parameters(dtype, rel_pos_bias):
    case = CASES[2]
    module, x = build(case, rel_pos_bias=rel_pos_bias), sample(case, torch.float32)
    expected = module(x)
    with torch.autocast("cpu", dtype=dtype):
        y = module(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in module.parameters())
    low = module.to(dtype)(x.to(dtype))
    assert low.dtype == dtype
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("rank, rel_pos_bias", [(1, False), (2, True), (3, False)])
def test_compiles_and_exports(rank, rel_pos_bias):
    module = MODULES[rank - 1](8, 2, 3, is_causal=True, rel_pos_bias=rel_pos_bias)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=1):  # one more graph is an error
        compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
        for n in (4, 6, 9):
            x = torch.randn(2, *(n,) * rank, 8, requires_grad=True)
            for a, b in zip(
                gradients([compiled(x)], [x, *module.parameters()]),
                gradients([module(x)], [x, *module.parameters()]),
                strict=True,
            ):
                torch.testing.assert_close(a, b)
    dims = {0: torch.export.Dim("b", max=64), 1: torch.export.Dim("n", min=3, max=64)}
    x = torch.randn(2, *(4,) * rank, 8)
    program = torch.export.export(module, (x,), dynamic_shapes=(dims,)).module()
    for shape in ((1, 3, *(4,) * (rank - 1), 8), (3, 7, *(4,) * (rank - 1), 8)):
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), module(x))


@pytest.mark.parametrize("rel_pos_bias", [False, True])
def test_vmap_grad_and_ensembles(rel_pos_bias):
    case = CASES[2]
    models = [build(case, rel_pos_bias=rel_pos_bias) for _ in range(3)]
    x = sample(case, torch.float32)
    torch.testing.assert_close(torch.vmap(models[0])(torch.stack([x, 2 * x]))[1], models[0](2 * x))
    parameters, buffers = torch.func.stack_module_state(models)

    def call(p, b, x):
        return torch.func.functional_call(models[0], (p, b), (x,))

    together = torch.vmap(call, (0, 0, None))(parameters, buffers, x)
    torch.testing.assert_close(together, torch.stack([m(x) for m in models]))
    weights = dict(models[0].named_parameters())
    found = torch.func.grad(lambda p: call(p, {}, x).sin().sum())(weights)
    expected = torch.autograd.grad(models[0](x).sin().sum(), list(weights.values()))
    for a, b in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_forward_mode():
    case = CASES[1]
    module, x = build(case, dtype=torch.float64), sample(case, batch=1)
    tangent = torch.randn_like(x)
    got = torch.func.jvp(module, (x,), (tangent,))[1]
    torch.testing.assert_close(got, torch.func.jvp(lambda x: plain(module, x)[0], (x,), (tangent,))[1])


def test_projection_dropout():
    module = nf.NeighborhoodAttention1D(8, 2, 3, proj_drop=0.5)
    x = torch.randn(4, 32, 8)
    zeros = (module(x) == 0).float().mean()
    assert 0.4 < zeros < 0.6 and (module.eval()(x) != 0).all()


def test_attention_dropout_trains_reproducibly_and_rests_in_eval():
    module, x = (
        nf.NeighborhoodAttention2D(8, 2, 3, attn_drop=0.4, dtype=torch.float64),
        torch.randn(2, 6, 6, 8),
    )
    x = x.double().requires_grad_()
    still = nf.NeighborhoodAttention2D(8, 2, 3, dtype=torch.float64)
    still.load_state_dict(module.state_dict())

    def draw(seed):
        torch.manual_seed(seed)
        out, lse = module(x, return_lse=True)
        return out, lse, *torch.autograd.grad(out.sin().sum(), [x, *module.parameters()])

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and torch.equal(first[1], other[1])
    expected, lse = still(x, return_lse=True)
    assert not torch.allclose(first[0], expected) and torch.allclose(first[1], lse)
    with torch.no_grad():  # the expectation over masks is the undropped output
        draws = torch.stack([module(x) for _ in range(400)])
    error = (draws.mean(0) - expected).abs() / (draws.std(0) / 20 + 1e-9)
    assert error.mean() < 1.2 and error.max() < 6
    assert torch.equal(module.eval()(x), expected)
    torch.manual_seed(1)  # eval draws nothing from the generator
    before = torch.get_rng_state()
    module(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_replayed_by_compiled_code_and_checkpoints():
    module, x = (
        nf.NeighborhoodAttention2D(8, 2, 3, attn_drop=0.4),
        torch.randn(2, 6, 6, 8, requires_grad=True),
    )
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")

    def gradient(call):
        torch.manual_seed(1)
        return torch.autograd.grad(call(x).sin().sum(), x)[0]

    expected = gradient(module)
    torch.testing.assert_close(gradient(compiled), expected)
    assert torch.equal(gradient(lambda x: checkpoint(module, x, use_reentrant=False)), expected)


def test_caller_tensors_stay_and_strides_are_free():
    case = CASES[3]
    module, x = build(case), sample(case, torch.float32)
    before = x.clone()
    y = module(x)
    assert torch.equal(x, before)
    assert torch.equal(module(x.transpose(1, 2).contiguous().transpose(1, 2)), y)
    assert module(x[:0]).shape == (0, *case[0], case[1])


@pytest.mark.parametrize(
    "error, text, arguments",
    [
        (ValueError, r"^\[NeighborhoodAttention2D\] got embed_dim 10 and num_heads 4", ((10, 4, 3), {})),
        (ValueError, "num_heads 0", ((8, 0, 3), {})),
        (ValueError, "embed_dim 0", ((0, 2, 3), {})),
        (TypeError, "embed_dim of type float", ((8.0, 2, 3), {})),
        (TypeError, "num_heads of type bool", ((8, True, 3), {})),
        (ValueError, "num_kv_heads 3", ((8, 4, 3), {"num_kv_heads": 3})),
        (ValueError, "num_kv_heads 0", ((8, 4, 3), {"num_kv_heads": 0})),
        (TypeError, "kernel_size of type float", ((8, 2, 3.0), {})),
        (ValueError, "kernel_size of length 3, expected 2", ((8, 2, (3, 3, 3)), {})),
        (ValueError, r"\[NeighborhoodAttention2D\] got kernel_size 0", ((8, 2, 0), {})),
        (ValueError, r"\[NeighborhoodAttention2D\] got stride 4 on axis 1", ((8, 2, 3, (1, 4)), {})),
        (ValueError, r"\[NeighborhoodAttention2D\] got dilation 0", ((8, 2, 3, 1, 0), {})),
        (TypeError, "is_causal", ((8, 2, 3, 1, 1, 1), {})),
        (TypeError, "qkv_bias", ((8, 2, 3), {"qkv_bias": 1})),
        (TypeError, "qk_scale of type str", ((8, 2, 3), {"qk_scale": "1"})),
        (ValueError, "proj_drop 1.5, expected", ((8, 2, 3), {"proj_drop": 1.5})),
        (ValueError, "proj_drop nan, expected", ((8, 2, 3), {"proj_drop": float("nan")})),
        (TypeError, "proj_drop of type str", ((8, 2, 3), {"proj_drop": "a"})),
        (ValueError, "attn_drop 1.0, expected 0 <= attn_drop < 1", ((8, 2, 3), {"attn_drop": 1.0})),
        (TypeError, "rel_pos_bias", ((8, 2, 3), {"rel_pos_bias": None})),
        (ValueError, "backend 'cuda'", ((8, 2, 3), {"backend": "cuda"})),
    ],
)
def test_constructor_errors(error, text, arguments):
    with pytest.raises(error, match=text) as caught:
        nf.NeighborhoodAttention2D(*arguments[0], **arguments[1])
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "error, text, call",
    [
        (TypeError, r"\[NeighborhoodAttention2D\] got x of type list", lambda m, x: m([1.0])),
        (ValueError, r"got x of shape \(1, 6, 8\)", lambda m, x: m(x[0])),
        (ValueError, r"expected \[B, \*layout, 8\]", lambda m, x: m(x[..., :4])),
        (NotImplementedError, "sparse", lambda m, x: m(x.to_sparse())),
        (ValueError, r"\[na2d\] got kernel_size 3 .*axis 1", lambda m, x: m(x[:, :, :2])),
        (TypeError, "return_lse", lambda m, x: m(x, 1)),
        (ValueError, "additional", lambda m, x: m(x, False, torch.randn(1, 2, 2, 4))),
    ],
)
def test_forward_errors(error, text, call):
    module, x = nf.NeighborhoodAttention2D(8, 2, 3), torch.randn(1, 1, 6, 8).expand(1, 6, 6, 8)
    with pytest.raises(error, match=text) as caught:
        call(module, x if "1, 6, 8" not in text else x[:, 0][None])
    assert type(caught.value) is error
