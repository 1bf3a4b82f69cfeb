# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`attention` of packed sequences: values, gradients, bits, bad input, and torch's machinery around it."""

import random

import pytest
import torch
from packed import of_lengths
from test_compile import _Calls
from test_errors import qkv, refused
from torch.autograd import forward_ad, gradcheck
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import nearfield as nf
from nearfield import varlen

SELF = [(5, 5), (1, 1), (7, 7)]
CROSS = [(5, 3), (1, 4), (3, 8), (6, 6)]
HOLES = [(0, 0), (4, 0), (3, 5), (0, 6), (2, 2), (0, 0)]
PACKED = [
    of_lengths(SELF),
    of_lengths(SELF, "dc", kv_heads=1, tail=(3, 3)),
    of_lengths(CROSS, "tl", heads=4, kv_heads=2, value_dim=5),
    of_lengths(CROSS, "br", dim=7, tail=(0, 2)),
    of_lengths(CROSS, scale=0.0, tail=(4, 0)),
    of_lengths(HOLES, "tl"),
    of_lengths(HOLES, "br", heads=3, kv_heads=1, tail=(2, 1)),
    of_lengths([(70, 45), (33, 130)], "br", heads=4, kv_heads=2, dim=16, value_dim=24),
    of_lengths([]),
    of_lengths([], "tl", tail=(3, 2)),
    of_lengths([(0, 0), (0, 0)], "dc"),
    of_lengths([(0, 3)]),
    of_lengths([(3, 0)], "br", tail=(1, 1)),
]
SMALL = {"heads": 2, "kv_heads": 1, "dim": 2, "value_dim": 3}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["f32", "f64", "bf16"])
@pytest.mark.parametrize("packed", PACKED, ids=str)
def test_against_the_oracle(packed, dtype, backend):
    inputs = packed.inputs(dtype)
    packed.check(inputs, backend, *packed.upstream(inputs))


@pytest.mark.parametrize("packed", PACKED, ids=str)
def test_same_bits_packed_and_alone(packed, backend):
    packed.check_bits_of_each_alone(packed.inputs(), backend)


def test_same_bits_wherever_a_sequence_lies(backend):
    """First or last, among long or short ones, with a tail or without."""
    kw = {"heads": 4, "kv_heads": 2, "dim": 16, "value_dim": 16}
    of_lengths([(40, 30), (40, 30), (3, 100), (40, 30)], "br", tail=(9, 5), **kw).check_bits_of_each_alone(
        of_lengths([(40, 30), (40, 30), (3, 100), (40, 30)], "br", tail=(9, 5), **kw).inputs(), backend
    )


@pytest.mark.parametrize("packed", [p for p in PACKED if p.tail_query == p.tail_key == 0], ids=str)
def test_lengths_and_offsets_are_the_same_call(packed, backend):
    """Lengths or offsets, int32 or int64, with or without the longest: the same bits."""
    inputs = packed.inputs()
    kw = {"backend": backend, "return_lse": True, "scale": packed.like.scale}
    if packed.like.causal:
        kw.update(is_causal=True)
        kw["causal_type"] = {"tl": nf.CausalType.TopLeft, "br": nf.CausalType.BottomRight}.get(
            packed.like.causal, nf.CausalType.DontCare
        )
    expected = packed.call(inputs, backend)
    for dtype in (torch.int32, torch.int64):
        lengths = [torch.tensor(n, dtype=dtype) for n in packed.lengths()]
        offsets = packed.offsets(dtype)
        made = varlen.generate_varlen_parameters(*inputs, *lengths)
        assert [x.tolist() for x in made[:2]] == [x.tolist() for x in offsets]
        assert all(x.dtype == torch.int32 for x in made[:2]) and all(type(n) is int for n in made[2:])
        assert made[2:] == tuple(max(n, default=0) for n in packed.lengths())
        names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
        for got in (
            nf.attention(*inputs, seqlens_Q=lengths[0], seqlens_KV=lengths[1], **kw),
            nf.attention(*inputs, cumulative_seqlen_Q=offsets[0], cumulative_seqlen_KV=offsets[1], **kw),
            nf.attention(*inputs, **dict(zip(names, made, strict=True)), **kw),
        ):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_without_lengths_nothing_is_packed():
    q, k, v = qkv(6, batch=2)
    names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
    made = varlen.generate_varlen_parameters(q, k, v)
    assert made == (None, None, 0, 0)
    assert torch.equal(nf.attention(q, k, v, **dict(zip(names, made, strict=True))), nf.attention(q, k, v))


def test_offsets_of_any_stride():
    packed = of_lengths(CROSS, "tl")
    inputs = packed.inputs()
    queries, keys = (torch.stack([o, o + 99], 1)[:, 0] for o in packed.offsets())
    assert not queries.is_contiguous()
    got = nf.attention(
        *inputs,
        True,
        nf.CausalType.TopLeft,
        cumulative_seqlen_Q=queries,
        cumulative_seqlen_KV=keys,
        return_lse=True,
    )
    assert all(torch.equal(a, b) for a, b in zip(got, packed.call(inputs), strict=True))


def test_views_of_one_projection(backend):
    """Packed q, k and v side by side in one tensor, as a fused projection leaves them."""
    packed = of_lengths(SELF, "dc", tail=(2, 2))
    fused = torch.randn(1, 15, 3, 2, 8)
    views = list(fused.unbind(2))
    assert not views[0].is_contiguous()
    packed.check(views, backend, *packed.upstream(views))
    before = fused.clone()
    got = packed.everything(views, backend)
    expected = packed.everything([x.contiguous() for x in views], backend)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert torch.equal(fused, before)


def test_performance_arguments(backend):
    packed = of_lengths(CROSS, "br")
    inputs = packed.inputs()
    hints = {"backward_kv_splits": 2, "run_persistent_kernel": False, "kernel_schedule": "coop"}
    kwargs = {"backend": backend, **hints}
    before = dict(kwargs)
    expected = packed.call(inputs, backend)
    for got in (packed.call(inputs, backend, **hints), packed.call(inputs, None, backend_kwargs=kwargs)):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert kwargs == before


def test_dropout_counts_a_sequence_as_a_batch_entry(backend):
    """Sequences of one length drop the weights that the same batch would drop, in every derivative."""
    q, k, v = qkv(6, kv_heads=1, batch=3, dtype=torch.float64)
    packed = [x.flatten(0, 1)[None] for x in (q, k, v)]
    offsets = torch.arange(4) * 6

    def batch(*x):
        torch.manual_seed(7)
        return nf.attention(*x, backend=backend, dropout_p=0.4)

    def sequences(*x):
        torch.manual_seed(7)
        kw = {"cumulative_seqlen_Q": offsets, "cumulative_seqlen_KV": offsets, "dropout_p": 0.4}
        return nf.attention(*x, backend=backend, **kw)

    out, change = batch(q, k, v), qkv(6, kv_heads=1, batch=3, dtype=torch.float64)
    assert not torch.equal(out, nf.attention(q, k, v, backend=backend))
    assert torch.equal(sequences(*packed), out.flatten(0, 1)[None])
    seed = torch.randn_like(out)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    expected = torch.autograd.grad(batch(*leaves), leaves, seed)
    leaves = [x.requires_grad_() for x in packed]
    got = torch.autograd.grad(sequences(*leaves), leaves, seed.flatten(0, 1)[None])
    assert all(torch.equal(a, b.flatten(0, 1)[None]) for a, b in zip(got, expected, strict=True))
    expected = torch.func.jvp(batch, (q, k, v), tuple(change))[1]
    got = torch.func.jvp(sequences, tuple(packed), tuple(x.flatten(0, 1)[None] for x in change))[1]
    torch.testing.assert_close(got, expected.flatten(0, 1)[None])


@pytest.mark.full
@pytest.mark.parametrize("number", range(60))
def test_random_sequences(number, backend, threads):
    r = random.Random(number)
    threads(r.randint(1, 5))
    causal, kv = r.choice([None, "tl", "br", "dc"]), r.randint(1, 3)
    lengths = [
        (r.choice([0, 1, 7, 40, 90]) + r.randint(0, 9), r.randint(0, 60)) for _ in range(r.randint(0, 7))
    ]
    packed = of_lengths(
        [(n, n) for n, _ in lengths] if causal == "dc" else lengths,
        causal,
        tail=(r.randint(0, 5), r.randint(0, 5)),
        heads=kv * r.randint(1, 3),
        kv_heads=kv,
        dim=r.randint(1, 40),
        value_dim=r.randint(1, 40),
    )
    inputs = packed.inputs(r.choice([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    packed.check(inputs, backend, *packed.upstream(inputs))
    packed.check_bits_of_each_alone(inputs, backend)


# ------------------------------------------------------------------------------------------------
# Derivatives


def _seen(packed, out, lse):
    """lse without the rows that see nothing: finite differences of -inf are NaN."""
    return out, lse.masked_fill(lse.detach().isinf(), 0)


GRADCHECK = [
    of_lengths([(3, 2), (0, 2), (2, 4)], "br", tail=(1, 1), **SMALL),
    of_lengths([(2, 0), (2, 3)], "tl", **SMALL),
    of_lengths([(3, 3), (1, 1)], "dc", scale=-1.5, **SMALL),
]


@pytest.mark.parametrize("packed", GRADCHECK, ids=str)
def test_gradcheck(packed, backend):
    leaves = packed.inputs(torch.float64, requires_grad=True)
    assert gradcheck(lambda *x: _seen(packed, *packed.call(x, backend)), leaves)


@pytest.mark.parametrize("packed", GRADCHECK, ids=str)
def test_jvp_is_that_of_each_sequence(packed, backend):
    inputs, change = packed.inputs(torch.float64), packed.inputs(torch.float64, seed=9)

    def f(*x):
        return _seen(packed, *packed.call(x, backend))

    step = 1e-6
    plus, minus = (f(*(x + s * t for x, t in zip(inputs, change, strict=True))) for s in (step, -step))
    got = torch.func.jvp(f, tuple(inputs), tuple(change))[1]
    for a, p, m in zip(got, plus, minus, strict=True):
        torch.testing.assert_close(a, (p - m) / (2 * step), rtol=1e-6, atol=1e-8)
    with forward_ad.dual_level():  # one input alone
        out = packed.call([inputs[0], forward_ad.make_dual(inputs[1], change[1]), inputs[2]], backend)[0]
        one = forward_ad.unpack_dual(out).tangent
    zeros = [torch.zeros_like(x) for x in inputs]
    expected = torch.func.jvp(f, tuple(inputs), (zeros[0], change[1], zeros[2]))[1][0]
    torch.testing.assert_close(one, expected)
    forward = torch.func.jacfwd(lambda q: f(q, *inputs[1:])[0])(inputs[0])
    backward = torch.func.jacrev(lambda q: f(q, *inputs[1:])[0])(inputs[0])
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-12)


def test_vmap_and_its_gradients(backend):
    packed = of_lengths(CROSS, "br", **SMALL)
    stacked = [torch.stack(x) for x in zip(*(packed.inputs(torch.float64, s) for s in range(3)), strict=True)]

    def f(*x):
        return _seen(packed, *packed.call(x, backend))

    def loss(*x):
        return sum(y.sin().sum() for y in f(*x))

    for i, got in enumerate(torch.vmap(f)(*stacked)):
        expected = torch.stack([f(*x)[i] for x in zip(*stacked, strict=True)])
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    each = [torch.func.grad(loss, (0, 1, 2))(*x) for x in zip(*stacked, strict=True)]
    mapped = torch.vmap(torch.func.grad(loss, (0, 1, 2)))(*stacked)
    through = torch.func.grad(lambda *x: torch.vmap(loss)(*x).sum(), (0, 1, 2))(*stacked)
    for a, b, c in zip(mapped, through, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(c), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(b, torch.stack(c), rtol=1e-11, atol=1e-12)


def test_checkpoint_autocast_and_double_backward(backend):
    packed = of_lengths(CROSS, "tl", tail=(2, 3))
    leaves = packed.inputs(requires_grad=True)
    seeds = packed.upstream(leaves)
    expected = torch.autograd.grad(packed.call(leaves, backend), leaves, seeds)
    again = checkpoint(lambda *x: packed.call(x, backend), *leaves, use_reentrant=False)
    got = torch.autograd.grad(again, leaves, seeds)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, lse = packed.call(leaves, backend)
    low = packed.call([x.detach().bfloat16() for x in leaves], backend)
    assert torch.equal(out, low[0]) and torch.equal(lse, low[1])
    first = torch.autograd.grad(packed.call(leaves, backend)[0].sum(), leaves, create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)double backward|second|twice"):
        torch.autograd.grad(first[0].square().sum(), leaves)


# ------------------------------------------------------------------------------------------------
# Compile, export, meta


@pytest.mark.parametrize("packed", [PACKED[3], PACKED[6], PACKED[9]], ids=str)
def test_opcheck(packed):
    leaves = packed.inputs(requires_grad=True)
    with _Calls() as recorded:
        result = packed.call(leaves)
        torch.autograd.grad(result, leaves, packed.upstream(leaves))
    (forward, args, kw), (backward, back_args, back_kw) = recorded.calls
    torch.library.opcheck(forward, (*leaves, *args[3:]), kw)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    detached = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in back_args)
    torch.library.opcheck(backward, detached, back_kw, test_utils=tests)


def _attend(q, k, v, offsets_q, offsets_k, longest_q=None, longest_k=None):
    return nf.attention(
        q, k, v, True, nf.CausalType.BottomRight, cumulative_seqlen_Q=offsets_q, return_lse=True,
        cumulative_seqlen_KV=offsets_k, max_seqlen_Q=longest_q, max_seqlen_KV=longest_k)  # fmt: skip


@pytest.mark.parametrize("maxima", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_at_most_one_recompilation_over_lengths(train, maxima):
    """Totals, lengths, the number of sequences and the longest change; fullgraph, so no graph breaks."""
    for dynamic, most in ((None, 2), (True, 1)):
        torch._dynamo.reset()
        with torch._dynamo.config.patch(recompile_limit=most):  # one more graph is an error
            compiled = torch.compile(_attend, fullgraph=True, dynamic=dynamic, backend="aot_eager")
            for pairs in (CROSS, [(9, 9), (4, 2)], [(3, 5)] * 5, [(17, 30), (2, 4), (5, 5)]):
                packed = of_lengths(pairs, "br", tail=(2, 3))
                leaves = packed.inputs(requires_grad=train)
                longest = [max(n) for n in packed.lengths()] if maxima else []
                got = compiled(*leaves, *packed.offsets(), *longest)
                for a, b in zip(got, packed.call(leaves), strict=True):
                    torch.testing.assert_close(a, b)
                if train:
                    seeds = packed.upstream(leaves)
                    expected = torch.autograd.grad(packed.call(leaves), leaves, seeds)
                    for a, b in zip(torch.autograd.grad(got, leaves, seeds), expected, strict=True):
                        torch.testing.assert_close(a, b)


def test_lengths_compile_too():
    """Unread: their sum is not compared with the total, and the rest is a tail."""
    packed = of_lengths(SELF, "dc")
    inputs = packed.inputs()

    def f(q, k, v, lengths):
        return nf.attention(
            q, k, v, True, nf.CausalType.DontCare, seqlens_Q=lengths, seqlens_KV=lengths, return_lse=True
        )

    lengths = torch.tensor([5, 1, 7])
    got = torch.compile(f, fullgraph=True, backend="aot_eager")(*inputs, lengths)
    for a, b in zip(got, packed.call(inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_export_with_dynamic_totals():
    total, keys = torch.export.Dim("total", min=2, max=4096), torch.export.Dim("keys", min=2, max=4096)
    sequences = torch.export.Dim("sequences", min=2, max=64)
    first = of_lengths(CROSS, "br", tail=(2, 3))
    program = torch.export.export(
        _Model5(),
        (*first.inputs(), *first.offsets()),
        dynamic_shapes=({1: total}, {1: keys}, {1: keys}, {0: sequences}, {0: sequences}),
    )
    for packed in (first, of_lengths([(9, 12), (1, 1), (0, 3)], "br"), of_lengths([(4, 4)], "br")):
        inputs = packed.inputs()
        got = program.module()(*inputs, *packed.offsets())
        for a, b in zip(got, packed.call(inputs), strict=True):
            torch.testing.assert_close(a, b)


class _Model5(torch.nn.Module):
    def forward(self, q, k, v, offsets_q, offsets_k):
        return _attend(q, k, v, offsets_q, offsets_k)


def test_parameters_made_inside_a_compiled_function():
    """They break the graph and stay right; with fullgraph it is refused, with the reason."""
    packed = of_lengths(SELF)

    def f(q, k, v, lengths):
        made = varlen.generate_varlen_parameters(q, k, v, lengths, lengths)
        return _attend(q, k, v, *made)[0]

    inputs, lengths = packed.inputs(), torch.tensor([5, 1, 7])
    expected = f(*inputs, lengths)
    torch.testing.assert_close(torch.compile(f, backend="aot_eager")(*inputs, lengths), expected)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="before the graph"):
        torch.compile(f, backend="aot_eager", fullgraph=True)(*inputs, lengths)


@pytest.mark.parametrize("packed", [PACKED[2], PACKED[5], PACKED[6]], ids=str)
def test_flop_counter_counts_useful_work(packed):
    pairs = sum(part.mask().sum().item() for part in packed.parts)
    useful = 2 * (packed.like.dim + packed.like.value_dim) * pairs * packed.like.heads
    with FlopCounterMode(display=False) as counter:
        out, lse = packed.call(packed.inputs(requires_grad=True))
        assert counter.get_total_flops() == useful
        (out.sum() + lse.masked_fill(lse.isinf(), 0).sum()).backward()
    assert counter.get_total_flops() == int(3.5 * useful)


def test_meta_and_unread_lengths():
    packed = of_lengths(SELF)
    lengths, offsets = (
        torch.tensor([5, 1, 7], device="meta"),
        torch.zeros(4, dtype=torch.int32, device="meta"),
    )
    inputs = [x.to("meta") for x in packed.inputs()]
    for kw in (
        {"seqlens_Q": lengths, "seqlens_KV": lengths},
        {"cumulative_seqlen_Q": offsets, "cumulative_seqlen_KV": offsets},
    ):
        out, lse = nf.attention(*inputs, return_lse=True, **kw)
        assert out.shape == (1, 13, 2, 8) and lse.shape == (1, 13, 2) and out.device.type == "meta"
    refused(varlen.generate_varlen_parameters, *inputs, lengths, lengths, says="values")
