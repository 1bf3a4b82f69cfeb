# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The operators under opcheck, torch.compile, torch.export, fake and meta tensors."""

import pytest
import torch
from cases import dense, na
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import nearfield as nf

CASES = [
    na((6,), (3,), stride=2, causal=True, kv_heads=1),
    na((5, 6), (3, 3), dilation=(1, 2), additional=2, value_dim=4),
    na((3, 4, 4), (2, 3, 2)),
    dense(5, 7, "br", heads=4),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


class _Calls(TorchDispatchMode):
    """Collects the calls of our operators with their arguments."""

    def __init__(self):
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace.startswith("nearfield"):
            self.calls.append((function, args, kwargs or {}))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck(case):
    """Schema, fake implementation, autograd registration and AOT dispatch of both operators."""
    leaves = case.inputs(requires_grad=True)
    with _Calls() as recorded:
        out, lse = case.call(leaves)
        torch.autograd.grad((out, lse), leaves, case.upstream(leaves))
    names = [str(f) for f, _, _ in recorded.calls]
    assert [n.split(".")[-2] for n in names] == ["forward", "backward"], names
    (forward, args, kw), (backward, back_args, back_kw) = recorded.calls
    originals = iter(leaves)
    seen = [x.detach() if isinstance(x, torch.Tensor) else x for x in args]
    assert sum(isinstance(x, torch.Tensor) for x in args) == len(leaves)
    with_grad = [next(originals) if isinstance(x, torch.Tensor) else x for x in args]
    torch.library.opcheck(forward, tuple(with_grad), kw)
    torch.library.opcheck(forward, tuple(seen), kw)
    detached = [x.detach() if isinstance(x, torch.Tensor) else x for x in back_args]
    torch.library.opcheck(
        backward,
        tuple(detached),
        back_kw,
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


def _step(case):
    """Forward and a loss over both outputs, as a user's model would have it."""

    def step(*inputs):
        out, lse = case.call([x * 1.5 for x in inputs], "cpu")
        return out.sin(), lse.cos()

    return step


@pytest.mark.parametrize(
    "case, dynamic", [(CASES[1], False), (CASES[3], False), *((case, True) for case in CASES)], ids=str
)
def test_compile_fullgraph(case, dynamic):
    leaves = case.inputs(requires_grad=True)
    seeds = case.upstream(leaves)
    eager = _step(case)(*leaves)
    compiled = torch.compile(_step(case), fullgraph=True, dynamic=dynamic, backend="aot_eager")(*leaves)
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(
        torch.autograd.grad(compiled, leaves, seeds), torch.autograd.grad(eager, leaves, seeds), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_compile_without_gradients():
    q, k, v = CASES[0].inputs()
    f = torch.compile(lambda q, k, v: nf.na1d(q, k, v, 3, backend="cpu"), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(f(q, k, v), nf.na1d(q, k, v, 3, backend="cpu"))


def _inductor(f):
    leaves = na((8, 8), (3, 3)).inputs(requires_grad=True)
    seed = torch.randn(1, 8, 8, 2, 8)
    expected = torch.autograd.grad(f(*leaves), leaves, seed)
    got = torch.autograd.grad(torch.compile(f, fullgraph=True)(*leaves), leaves, seed)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_inductor():
    """The operators alone: inductor calls them, and has nothing to generate or compile."""
    _inductor(lambda q, k, v: nf.na2d(q, k, v, 3, is_causal=(True, False)))


@pytest.mark.full
def test_inductor_with_generated_kernels():
    _inductor(lambda q, k, v: nf.na2d(q + 1, k, v * 2, 3).relu())


@pytest.mark.parametrize("kind, train", [("na1d", False), ("na2d", True), ("attention", True)])
def test_at_most_one_recompilation_over_four_lengths(kind, train):
    """With automatic dynamic shapes and with dynamic=True, lengths and batch changing."""

    def f(q, k, v):
        if kind == "attention":
            return nf.attention(q, k, v, True, nf.CausalType.BottomRight)
        return getattr(nf, kind)(q, k, v, 3)

    for dynamic, most in ((None, 2), (True, 1)):
        torch._dynamo.reset()
        with torch._dynamo.config.patch(recompile_limit=most):  # one more graph is an error
            compiled = torch.compile(f, fullgraph=True, dynamic=dynamic, backend="aot_eager")
            for length in (5, 9, 17, 33):
                layout = (length, length + 1) if kind == "na2d" else (length,)
                leaves = [torch.randn(2, *layout, 2, 8, requires_grad=train) for _ in range(3)]
                out = compiled(*leaves)
                torch.testing.assert_close(out, f(*leaves))
                if train:
                    out.sum().backward()
                    assert all(x.grad.isfinite().all() for x in leaves)


def test_merge_compiles():
    outs, lses = [torch.randn(1, 5, 2, 4) for _ in range(2)], [torch.randn(1, 5, 2) for _ in range(2)]
    compiled = torch.compile(lambda o, e: nf.merge_attentions(o, e), fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(outs, lses), nf.merge_attentions(outs, lses), strict=True):
        torch.testing.assert_close(a, b)


def test_errors_keep_their_text_under_compile():
    q = torch.randn(1, 5, 2, 4)
    f = torch.compile(lambda q: nf.na1d(q, q, q, 9), backend="aot_eager", dynamic=False)
    with pytest.raises(Exception, match=r"\[na1d\] got .*9.*expected"):
        f(q)


class _Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, q, k, v):
        return self.function(q, k, v)


@pytest.mark.parametrize("kind", ["na1d", "attention"])
def test_export_with_dynamic_lengths(kind):
    def f(q, k, v):
        if kind == "attention":
            return nf.attention(q, k, v, True, nf.CausalType.TopLeft, return_lse=True)
        return nf.na1d(q, k, v, 3, 2, is_causal=True, return_lse=True)

    def inputs(batch, length):
        return tuple(torch.randn(batch, length, 2, 8) for _ in range(3))

    length, batch = torch.export.Dim("length", min=4, max=4096), torch.export.Dim("batch", max=64)
    shapes = ({0: batch, 1: length},) * 3
    program = torch.export.export(_Model(f), inputs(2, 16), dynamic_shapes=shapes)
    for size in ((2, 16), (1, 40), (5, 4)):
        args = inputs(*size)
        for a, b in zip(program.module()(*args), f(*args), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bounds", [{"min": 3}, {"min": 3, "max": 64}], ids=str)
def test_export_allows_a_layout_as_small_as_the_window(bounds):
    """No size is compared with the window in Python: that would bar the equal case."""
    inputs = [torch.randn(2, 8, 8, 4, 8) for _ in range(3)]
    shapes = ({1: torch.export.Dim("n", **bounds)},) * 3
    program = torch.export.export(
        _Model(lambda q, k, v: nf.na2d(q, k, v, 3)), tuple(inputs), dynamic_shapes=shapes
    )
    for n in (3, 4, 20):
        args = [torch.randn(2, n, 8, 4, 8) for _ in range(3)]
        torch.testing.assert_close(program.module()(*args), nf.na2d(*args, 3))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_meta_tensors_have_shapes_and_dtypes(case):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        inputs = case.inputs(dtype)
        real = case.call(inputs)
        for x, y in zip(case.call([x.to("meta") for x in inputs]), real, strict=True):
            assert x.device.type == "meta" and x.shape == y.shape and x.dtype == y.dtype
            assert x.stride() == y.stride()
    leaves = [x.to("meta").requires_grad_() for x in case.inputs()]
    gradients = torch.autograd.grad(sum(x.sum() for x in case.call(leaves)), leaves)
    assert all(g.shape == x.shape and g.dtype == x.dtype for g, x in zip(gradients, leaves, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fake_tensors_see_the_same_strides_as_real_ones(case):
    """Also for inputs whose strides are not dense: a wrong guess would break compiled code."""
    inputs = [x.transpose(1, -2).contiguous().transpose(1, -2) for x in case.inputs()]
    leaves = [x.requires_grad_() for x in inputs]
    real = case.call(leaves)
    real_gradients = torch.autograd.grad(real, leaves, case.upstream(leaves))
    mode = FakeTensorMode()
    fakes = [mode.from_tensor(x.detach()).requires_grad_() for x in inputs]
    seeds = [mode.from_tensor(x) for x in case.upstream(inputs)]
    with mode:
        out = case.call(fakes)
        gradients = torch.autograd.grad(out, fakes, seeds)
    for a, b in zip((*out, *gradients), (*real, *real_gradients), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()


def test_bad_input_is_refused_on_meta_too():
    q = torch.randn(1, 5, 2, 4, device="meta")
    with pytest.raises(ValueError, match=r"\[na1d\] got .*6.*expected"):
        nf.na1d(q, q, q, 6)


@pytest.mark.parametrize("kind", ["jvp", "dual", "grad", "vmap"])
def test_transforms_inside_and_around_a_compiled_function(kind):
    """Right, or refused: never a tangent of zero because a compiled operator does not know forward mode."""
    q, k, v = na((6,), (3,)).inputs()

    def f(x):
        return nf.na1d(x, k, v, 3)

    def g(x):
        if kind == "jvp":
            return torch.func.jvp(f, (x,), (torch.ones_like(x),))[1]
        if kind == "grad":
            return torch.func.grad(lambda y: f(y).sin().sum())(x)
        return torch.vmap(f)(torch.stack([x, x]))

    def dual(h):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(h(forward_ad.make_dual(q, torch.ones_like(q)))).tangent

    expected = dual(f) if kind == "dual" else g(q)
    try:
        got = dual(torch.compile(f, backend="aot_eager")) if kind == "dual" else torch.compile(
            g, backend="aot_eager")(q)  # fmt: skip
    except (RuntimeError, NotImplementedError) as error:
        assert kind == "grad", error
        return
    assert got is not None
    torch.testing.assert_close(got, expected)


def test_autocast_under_compile():
    q, k, v = na((6,), (3,)).inputs()
    compiled = torch.compile(lambda: nf.na1d(q, k, v, 3), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert compiled().dtype == torch.bfloat16
    assert compiled().dtype == torch.float32
