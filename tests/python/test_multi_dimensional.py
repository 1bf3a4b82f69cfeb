# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""multi_dimensional_attention, spatio_temporal_attention and the packed form: layouts of any rank."""

import copy
import pickle
import random

import pytest
import torch
from cases import NEIGHBORHOOD, Case, na
from oracle import evaluate, grid_mask
from packed import metadata_of, of_layouts
from test_compile import _Calls
from test_errors import qkv, refused
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

import nearfield as nf

FUNCTIONS = {1: nf.na1d, 2: nf.na2d, 3: nf.na3d}
PLAIN = [case for case in NEIGHBORHOOD if case.additional is None]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


def _everything(call, inputs, seed=3):
    """[out, lse, dq, dk, dv] under a fixed upstream."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out, lse = call(*leaves)
    g = torch.Generator().manual_seed(seed)
    seeds = [torch.randn(x.shape, generator=g, dtype=torch.float64).to(x.dtype) for x in (out, lse)]
    return [out, lse, *torch.autograd.grad((out, lse), leaves, seeds)]


def _same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------
# One layout


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_the_same_operation_as_with_the_rank_in_the_name(case, backend):
    inputs = case.inputs()
    causal = False if case.causal is None else case.causal

    def call(q, k, v):
        return nf.multi_dimensional_attention(
            q, k, v, case.window, case.stride, case.dilation, causal, case.scale, backend, True
        )

    assert _same(_everything(call, inputs), _everything(lambda *x: case.call(x, backend), inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("layout", [(9,), (5, 6), (3, 4, 5)], ids=str)
def test_whole_axes(layout, dtype, backend):
    """-1 everywhere is dense attention over the flattened layout; a mixture is what the oracle says."""
    inputs = Case(layout, (1,) * len(layout), kv_heads=1, value_dim=5).inputs(dtype)
    flat = [x.flatten(1, len(layout)) for x in inputs]
    out, lse = nf.multi_dimensional_attention(*inputs, backend=backend, return_lse=True)
    dense = nf.attention(*flat, backend=backend, return_lse=True)
    torch.testing.assert_close(out.flatten(1, -3), dense[0])
    torch.testing.assert_close(lse.flatten(1, -2), dense[1])
    for axis in range(len(layout)):
        window = [-1] * len(layout)
        window[axis] = 2
        whole = tuple(n if k == -1 else k for n, k in zip(layout, window, strict=True))
        causal = (False,) * axis + (True,) + (False,) * (len(layout) - axis - 1)

        def call(q, k, v, window=tuple(window), causal=causal):
            return nf.multi_dimensional_attention(
                q, k, v, window, is_causal=causal, backend=backend, return_lse=True
            )

        got = _everything(call, inputs)
        case = Case(layout, whole, causal=causal, kv_heads=1, value_dim=5)
        assert _same(got, _everything(lambda *x, case=case: case.call(x, backend), inputs))
        expected = evaluate(*inputs, grid_mask(layout, whole, causal=causal))
        expected["out"].check(got[0], "out")
        expected["lse"].check(got[1], "lse")


def test_a_whole_axis_takes_any_stride():
    q, k, v = qkv(6, 7)
    expected = nf.multi_dimensional_attention(q, k, v, (-1, 3))
    for stride in range(1, 7):
        assert torch.equal(nf.multi_dimensional_attention(q, k, v, (-1, 3), (stride, 1)), expected)
    refused(nf.multi_dimensional_attention, q, k, v, (-1, 3), (7, 1), says=["stride 7", "6"])


@pytest.mark.parametrize("ones", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)], ids=str)
def test_axes_of_extent_one_take_any_parameter(ones, backend):
    """As if they were not there, whatever their window, stride, dilation and causality."""
    layout = [5, 6, 7]
    for axis in ones:
        layout[axis] = 1
    inputs = qkv(*layout, kv_heads=1)
    rest = [a for a in range(3) if a not in ones]
    window, stride, dilation, causal = [3, 4, 3], [2, 1, 3], [1, 1, 2], [True, False, True]
    for axis in ones:
        window[axis], stride[axis], dilation[axis] = (9, -1, 0)[axis], (0, 5, 9)[axis], (-3, 4, 0)[axis]

    def call(q, k, v):
        return nf.multi_dimensional_attention(
            q, k, v, window, stride, dilation, causal, backend=backend, return_lse=True
        )

    def without(q, k, v):
        shape = (1, *(layout[a] for a in rest or [0]))
        inner = [x.reshape(*shape, *x.shape[-2:]) for x in (q, k, v)]
        kept = [[x[a] for a in rest] or [y] for x, y in
                ((window, 1), (stride, 1), (dilation, 1), (causal, False))]  # fmt: skip
        out, lse = FUNCTIONS[len(shape) - 1](*inner, *kept, backend=backend, return_lse=True)
        return out.reshape(*q.shape[:-1], -1), lse.reshape(q.shape[:-1])

    # Not the same bits: on another number of axes the planner may choose another kernel.
    for x, y in zip(_everything(call, inputs), _everything(without, inputs), strict=True):
        torch.testing.assert_close(x, y)


def test_spatio_temporal_is_causal_in_time(backend):
    inputs = qkv(4, 5, 3, kv_heads=1, batch=2)
    for args in ((), ((2, 3, -1),), ((2, 3, 3), (1, 2, 1)), (2, 1, (2, 1, 1))):
        got = _everything(
            lambda *x, a=args: nf.spatio_temporal_attention(*x, *a, backend=backend, return_lse=True), inputs
        )
        kw = dict(zip(("window_size", "stride", "dilation"), args, strict=False))
        expected = _everything(
            lambda *x, kw=kw: nf.multi_dimensional_attention(
                *x, **kw, is_causal=(True, False, False), backend=backend, return_lse=True
            ),
            inputs,
        )
        assert _same(got, expected)
    image = qkv(1, 5, 3)  # a video of one frame: not causal in anything
    flat = [x[:, 0] for x in image]
    assert torch.equal(nf.spatio_temporal_attention(*image, 3)[:, 0], nf.na2d(*flat, 3))


def test_queries_on_another_layout(backend):
    """Against the formula of the contract, key by key."""
    q, k, v = torch.randn(1, 3, 8, 2, 4), torch.randn(1, 6, 4, 1, 4), torch.randn(1, 6, 4, 1, 4)
    at = [[(2 * i + 1) * n // (2 * m) for i in range(m)] for m, n in ((3, 6), (8, 4))]
    rows = [i * 4 + j for i in at[0] for j in at[1]]
    mask = grid_mask((6, 4), (3, 2))[rows]
    got = nf.multi_dimensional_attention(q, k, v, (3, 2), backend=backend, return_lse=True)
    expected = evaluate(q, k, v, mask)
    expected["out"].check(got[0], "out")
    expected["lse"].check(got[1], "lse")


# ------------------------------------------------------------------------------------------------
# Packed layouts

TWO = [na((4, 5), (3, 3)), na((2, 6), (2, 5)), na((7, 3), (3, 1))]
MIXED = [
    na((6, 7), (3, 3), stride=(1, 2), dilation=(2, 1), causal=(True, False), kv_heads=1, value_dim=5),
    na((3, 9), (3, 2), stride=(3, 1), dilation=(1, 4), causal=(True, False), kv_heads=1, value_dim=5),
    na((1, 1), (1, 1), causal=(True, False), kv_heads=1, value_dim=5),
]
THREE = [na((2, 3, 4), (2, 3, 2)), na((3, 4, 4), (2, 1, 4), stride=(2, 1, 3)), na((2, 1, 2), (1, 1, 1))]
PACKED = [
    of_layouts(TWO),
    of_layouts(TWO, tail=4),
    of_layouts(MIXED, tail=1),
    of_layouts([na((20,), (5,), stride=2, heads=4), na((9,), (3,), heads=4), na((33,), (33,), heads=4)]),
    of_layouts([na((9,), (3,), causal=True), na((12,), (2,), stride=2, dilation=5, causal=True)], tail=3),
    of_layouts(THREE),
    of_layouts([na((0, 4), (2, 3)), na((3, 3), (2, 2)), na((5, 0), (1, 1)), na((0, 0), (4, 4))], tail=2),
    of_layouts([na((0,), (3,))]),
    of_layouts([na((0,), (3,))], tail=5),
    of_layouts([], like=na((0,), (1,))),
    of_layouts([], tail=3, like=na((0,), (1,))),
    of_layouts([na((16, 18), (7, 5), heads=4, kv_heads=1, dim=32, value_dim=32),
                na((9, 30), (7, 5), heads=4, kv_heads=1, dim=32, value_dim=32)]),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["f32", "f64", "bf16"])
@pytest.mark.parametrize("packed", PACKED, ids=str)
def test_packed_against_the_oracle(packed, dtype, backend):
    inputs = packed.inputs(dtype)
    packed.check(inputs, backend, *packed.upstream(inputs))


@pytest.mark.parametrize("packed", PACKED, ids=str)
def test_same_bits_packed_and_alone(packed, backend):
    packed.check_bits_of_each_alone(packed.inputs(), backend)


@pytest.mark.full
@pytest.mark.parametrize("number", range(60))
def test_random_packed_layouts(number, backend, threads):
    r = random.Random(number)
    threads(r.randint(1, 5))
    rank, kv = r.randint(1, 3), r.randint(1, 3)
    same = {"causal": tuple(r.random() < 0.4 for _ in range(rank)), "heads": kv * r.randint(1, 3),
            "kv_heads": kv, "dim": r.randint(1, 40), "value_dim": r.randint(1, 40)}  # fmt: skip
    parts = []
    for _ in range(r.randint(1, 5)):
        layout = tuple(r.randint(2, (50, 12, 6)[rank - 1]) for _ in range(rank))
        dilation = tuple(r.randint(1, min(3, n)) for n in layout)
        window = tuple(r.randint(1, n // d) for n, d in zip(layout, dilation, strict=True))
        stride = tuple(r.randint(1, k) for k in window)
        parts.append(na(layout, window, stride=stride, dilation=dilation, **same))
    packed = of_layouts(parts, tail=r.randint(0, 5))
    inputs = packed.inputs(r.choice([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    packed.check(inputs, backend, *packed.upstream(inputs))
    packed.check_bits_of_each_alone(inputs, backend)


def test_whole_axes_and_axes_of_extent_one_in_packed_layouts(backend):
    layouts = [(4, 5), (1, 6), (3, 1), (1, 1)]
    inputs = qkv(20 + 6 + 3 + 1)
    for windows, strides, dilations in (
        (None, None, None),
        ([(3, -1), (7, 3), (-1, 9), (5, 5)], [(2, 1), (9, 2), (1, 0), 8], [1, (4, 2), (1, 9), 7]),
        ([-1, (-1, 3), (2, -1), -1], [1, 1, (2, 4), 1], None),
    ):
        metadata = metadata_of(layouts, windows, strides, dilations, causal=(True, False))
        got = _everything(
            lambda *x, m=metadata: nf.multi_dimensional_attention_varlen(
                *x, m, backend=backend, return_lse=True
            ),
            inputs,
        )
        at = 0
        for i, layout in enumerate(layouts):
            n = layout[0] * layout[1]
            own = [x[:, at : at + n].unflatten(1, layout) for x in inputs]
            alone = nf.multi_dimensional_attention(
                *own,
                -1 if windows is None else windows[i],
                1 if strides is None else strides[i],
                1 if dilations is None else dilations[i],
                (True, False),
                backend=backend,
                return_lse=True,
            )
            assert _same([x.flatten(1, 2) for x in alone], [x[:, at : at + n] for x in got[:2]])
            at += n


def test_metadata_is_data():
    """Copied, pickled, used again, for another dtype, head dim and backend, and left as it is."""
    packed = PACKED[2]
    metadata = packed.metadata()
    kept = copy.deepcopy(metadata)
    again = metadata_of([p.layout for p in packed.parts], [p.window for p in packed.parts],
                      [p.stride for p in packed.parts], [p.dilation for p in packed.parts], (True, False),
                      head_dim=3, device="cuda:1", dtype=torch.bfloat16, requires_grad=True)  # fmt: skip
    assert again == metadata
    for backend in ("reference", "cpu"):
        for dtype in (torch.float32, torch.float64):
            inputs = packed.inputs(dtype)
            expected = packed.call(inputs, backend)
            for other in (metadata, kept, pickle.loads(pickle.dumps(metadata))):
                got = nf.multi_dimensional_attention_varlen(*inputs, other, None, backend, True)
                assert _same(got, expected)
    assert metadata == kept


@pytest.mark.parametrize("function", ["layout", "packed"])
def test_performance_arguments(function, backend):
    packed = PACKED[0]
    if function == "layout":
        q, k, v = qkv(8, 8)

        def call(**kw):
            return nf.multi_dimensional_attention(q, k, v, 3, **kw)
    else:
        q, k, v = packed.inputs()

        def call(**kw):
            return nf.multi_dimensional_attention_varlen(q, k, v, packed.metadata(), **kw)

    expected = call(backend=backend)
    kwargs = {"backend": backend, "backward_kv_splits": 2, "kernel_schedule": "coop", "torch_compile": True}
    before = dict(kwargs)
    assert torch.equal(call(backend_kwargs=kwargs), expected) and kwargs == before
    op = "multi_dimensional_attention" + ("" if function == "layout" else "_varlen")
    for name in ("q_tile_size", "window_size", "scale", "nonsense"):
        refused(call, op=op, backend_kwargs={name: None}, says=name)
    refused(call, op=op, backend_kwargs={"q_tile_shape": (1, 2, 3)}, says="q_tile_shape")
    other = "cpu" if backend == "reference" else "reference"
    refused(call, op=op, backend=backend, backend_kwargs={"backend": other}, says="backend")
    refused(call, op=op, backend="fastest", says="fastest")
    refused(call, op=op, backend_kwargs=[], error=TypeError, says="backend_kwargs")
    refused(call, op=op, return_lse=1, error=TypeError, says="return_lse")
    if backend == "reference":
        refused(call, op=op, backend=backend, backend_kwargs={"q_tile_shape": (4, 4)}, says="tile")


# ------------------------------------------------------------------------------------------------
# Derivatives, torch

SMALL = {"heads": 2, "kv_heads": 1, "dim": 2, "value_dim": 3}
SMALL_PACKED = of_layouts(
    [na((2, 3), (2, 2), stride=(1, 2), **SMALL), na((0, 2), (1, 1), **SMALL), na((1, 2), (1, 1), **SMALL)],
    tail=1,
)


def _seen(out, lse):
    return out, lse.masked_fill(lse.detach().isinf(), 0)


def test_gradcheck(backend):
    leaves = [x.requires_grad_() for x in qkv(2, 3, heads=2, kv_heads=1, dim=2, dtype=torch.float64)]
    assert gradcheck(
        lambda *x: nf.multi_dimensional_attention(
            *x, (-1, 2), is_causal=(True, False), backend=backend, return_lse=True
        ),
        leaves,
    )
    leaves = SMALL_PACKED.inputs(torch.float64, requires_grad=True)
    assert gradcheck(lambda *x: _seen(*SMALL_PACKED.call(x, backend)), leaves)


def test_jvp(backend):
    """Of a layout with whole axes and one of extent 1, and of packed layouts."""
    metadata = metadata_of(
        [(2, 3), (0, 2), (1, 4)], [(-1, 2), 1, (9, 3)], [1, 1, (7, 2)], causal=(False, True)
    )

    def layout(q, k, v):
        return nf.multi_dimensional_attention(
            q, k, v, (-1, 2, 9), is_causal=True, backend=backend, return_lse=True
        )

    def packed(q, k, v):
        return _seen(
            *nf.multi_dimensional_attention_varlen(q, k, v, metadata, backend=backend, return_lse=True)
        )

    for f, shape in ((layout, (3, 4, 1)), (packed, (12,))):
        inputs, change = (
            qkv(*shape, kv_heads=1, dtype=torch.float64),
            qkv(*shape, kv_heads=1, dtype=torch.float64),
        )
        step = 1e-6
        plus, minus = (f(*(x + s * t for x, t in zip(inputs, change, strict=True))) for s in (step, -step))
        for a, p, m in zip(torch.func.jvp(f, tuple(inputs), tuple(change))[1], plus, minus, strict=True):
            torch.testing.assert_close(a, (p - m) / (2 * step), rtol=1e-6, atol=1e-7)


def test_vmap(backend):
    packed = SMALL_PACKED
    stacked = [torch.stack(x) for x in zip(*(packed.inputs(torch.float64, s) for s in range(3)), strict=True)]

    def f(*x):
        return _seen(*packed.call(x, backend))

    def loss(*x):
        return sum(y.sin().sum() for y in f(*x))

    for i, got in enumerate(torch.vmap(f)(*stacked)):
        expected = torch.stack([f(*x)[i] for x in zip(*stacked, strict=True)])
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    each = [torch.func.grad(loss, (0, 1, 2))(*x) for x in zip(*stacked, strict=True)]
    mapped = torch.vmap(torch.func.grad(loss, (0, 1, 2)))(*stacked)
    for a, c in zip(mapped, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(c), rtol=1e-11, atol=1e-12)
    layouts = torch.randn(3, 1, 4, 5, 2, 8)
    got = torch.vmap(lambda x: nf.multi_dimensional_attention(x, x, x, (-1, 3), backend=backend))(layouts)
    alone = [nf.multi_dimensional_attention(x, x, x, (-1, 3), backend=backend) for x in layouts]
    torch.testing.assert_close(got, torch.stack(alone))


@pytest.mark.parametrize("packed", [PACKED[2], PACKED[10]], ids=str)
def test_opcheck(packed):
    leaves = packed.inputs(requires_grad=True)
    with _Calls() as recorded:
        torch.autograd.grad(packed.call(leaves), leaves, packed.upstream(leaves))
    (forward, args, kw), (backward, back_args, back_kw) = recorded.calls
    torch.library.opcheck(forward, (*leaves, *args[3:]), kw)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    detached = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in back_args)
    torch.library.opcheck(backward, detached, back_kw, test_utils=tests)


@pytest.mark.parametrize("train", [False, True])
def test_at_most_one_recompilation_over_layouts(train):
    def f(q, k, v):
        return nf.multi_dimensional_attention(q, k, v, (-1, 3), is_causal=(True, False))

    for dynamic, most in ((None, 2), (True, 1)):
        torch._dynamo.reset()
        with torch._dynamo.config.patch(recompile_limit=most):  # one more graph is an error
            compiled = torch.compile(f, fullgraph=True, dynamic=dynamic, backend="aot_eager")
            for n in (5, 9, 17):
                leaves = [torch.randn(2, n, n + 1, 2, 8, requires_grad=train) for _ in range(3)]
                out = compiled(*leaves)
                torch.testing.assert_close(out, f(*leaves))
                if train:
                    out.sum().backward()


def test_packed_layouts_compile():
    """The metadata may come in from outside the graph; other layouts, as many, cost one recompilation."""

    def f(q, k, v, metadata):
        return nf.multi_dimensional_attention_varlen(q, k, v, metadata, return_lse=True)

    with torch._dynamo.config.patch(recompile_limit=2):
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for layouts in ([(4, 5), (3, 6)], [(5, 7), (4, 4)], [(6, 3), (9, 5)], [(8, 8), (7, 3)]):
            leaves = [x.requires_grad_() for x in qkv(sum(a * b for a, b in layouts) + 2)]
            metadata = metadata_of(layouts, [(3, 3), (2, 2)])
            got, expected = compiled(*leaves, metadata), f(*leaves, metadata)
            for a, b in zip(got, expected, strict=True):
                torch.testing.assert_close(a, b)
            a, b = (torch.autograd.grad(x[0].sum(), leaves) for x in (got, expected))
            for x, y in zip(a, b, strict=True):
                torch.testing.assert_close(x, y)


def test_export():
    metadata = metadata_of([(4, 5), (2, 3)], [(3, 3), (2, -1)])

    class Model(torch.nn.Module):
        def forward(self, q, k, v):
            return nf.multi_dimensional_attention_varlen(q, k, v, metadata, return_lse=True)

    total = torch.export.Dim("total", min=26, max=4096)
    program = torch.export.export(Model(), tuple(qkv(30)), dynamic_shapes=({1: total},) * 3)
    for n in (26, 30, 41):
        inputs = qkv(n)
        for a, b in zip(program.module()(*inputs), Model()(*inputs), strict=True):
            torch.testing.assert_close(a, b)


def test_meta_and_flops():
    case = na((4, 6), (3, 3), dilation=(1, 2))
    packed = of_layouts([case, na((5, 2), (5, 2))], tail=3)
    inputs = packed.inputs()
    for x, y in zip(packed.call([x.to("meta") for x in inputs]), packed.call(inputs), strict=True):
        assert x.device.type == "meta" and x.shape == y.shape and x.dtype == y.dtype
    pairs = sum(p.mask().sum().item() for p in packed.parts)
    leaves = packed.inputs(requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        packed.call(leaves)[0].sum().backward()
    assert counter.get_total_flops() == int(3.5 * 2 * (8 + 8) * 2 * pairs)
    q, k, v = case.inputs()
    with FlopCounterMode(display=False) as counter:
        nf.multi_dimensional_attention(q, k, v, (3, -1))
    assert counter.get_total_flops() == 2 * 16 * 2 * (3 * 6 * 24)


def test_autocast(backend):
    packed = PACKED[0]
    inputs = packed.inputs()
    low = [x.bfloat16() for x in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _same(packed.call(inputs, backend), packed.call(low, backend))
        video = qkv(2, 3, 4)
        assert nf.spatio_temporal_attention(*video, backend=backend).dtype == torch.bfloat16
