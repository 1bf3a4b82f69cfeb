# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Bad input: every rule of the contract answers `[op] got X, expected Y; hint`, nothing is touched."""

import re

import pytest
import torch

import nearfield as nf

FORM = re.compile(
    r"^\[(?P<op>\w+)\] got (?P<got>.+), expected (?P<expected>[^;]+)(; (?P<hint>.+))?$", re.DOTALL
)
FUNCTIONS = {1: nf.na1d, 2: nf.na2d, 3: nf.na3d}


def qkv(*layout, batch=1, heads=2, kv_heads=2, dim=8, value_dim=8, keys=None, dtype=torch.float32):
    """[B, *layout, H, D], [B, *keys, Hkv, D], [B, *keys, Hkv, Dv]."""
    keys = keys or layout
    shapes = (batch, *layout, heads, dim), (batch, *keys, kv_heads, dim), (batch, *keys, kv_heads, value_dim)
    return [torch.randn(s).to(dtype) for s in shapes]


def refused(function, *args, error=ValueError, op=None, says=(), **kw):
    """Calls, and returns the message, which has the one form, names the operation and `says` the words."""
    tensors = [
        x
        for x in (*args, *kw.values())
        if type(x) is torch.Tensor
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and not x.is_nested
        and x.numel() < 10**6
    ]
    before = [(x.clone(), x._version, x.grad_fn, x.requires_grad) for x in tensors]
    with pytest.raises(error) as info:
        function(*args, **kw)
    assert type(info.value) in (error if isinstance(error, tuple) else (error,)), repr(info.value)
    message = str(info.value)
    match = FORM.match(message)
    assert match, message
    assert match["op"] == (op or function.__name__), message
    for word in [says] if isinstance(says, str) else says:
        assert re.search(word, message), f"{word!r} is not in {message!r}"
    for x, (copy, version, node, grad) in zip(tensors, before, strict=True):
        assert torch.equal(x, copy) and (x._version, x.grad_fn, x.requires_grad) == (version, node, grad)
    return match


# ------------------------------------------------------------------------------------------------
# Windows


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_window_must_fit_the_layout(rank):
    layout = (7, 6, 5)[-rank:]
    for axis in range(rank):
        window = [3] * rank
        window[axis] = layout[axis] + 1
        match = refused(FUNCTIONS[rank], *qkv(*layout), tuple(window), says=str(layout[axis] + 1))
        assert re.search(rf"\b{layout[axis]}\b", match["hint"]), match[0]  # the largest legal window


def test_window_times_dilation_must_fit_the_layout():
    match = refused(nf.na1d, *qkv(10), 4, 1, 3, says=["4", "3"])
    assert re.search(r"\b3\b", match["hint"]), match[0]  # 3 * 3 <= 10
    match = refused(nf.na2d, *qkv(9, 11), (3, 4), 1, (2, 3))
    assert re.search(r"\b3\b", match["hint"]), match[0]
    refused(nf.na1d, *qkv(10), 1, 1, 11)


@pytest.mark.parametrize("window", [0, -2, -(2**40), 2**31, 2**62, 2**63 - 1])
def test_window_values(window):
    refused(nf.na1d, *qkv(10), window, says=str(window))
    refused(nf.na2d, *qkv(6, 6), (3, window), says=str(window))


@pytest.mark.parametrize("stride", [0, -1, 4, 2**31, 2**62])
def test_stride_values(stride):
    match = refused(nf.na1d, *qkv(10), 3, stride, says=str(stride))
    if stride > 3:
        assert re.search(r"\b3\b", match[0]), match[0]


@pytest.mark.parametrize("dilation", [0, -1, 6, 2**31, 2**62, 2**63 - 1])
def test_dilation_values(dilation):
    refused(nf.na1d, *qkv(10), 2, 1, dilation, says=str(dilation))


@pytest.mark.parametrize("huge", [2**63, 2**70, -(2**63) - 1])
def test_integers_of_more_than_64_bits(huge):
    for args in ((huge,), (3, huge), (3, 1, huge)):
        refused(nf.na1d, *qkv(10), *args)


@pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation", "is_causal"])
def test_one_entry_per_axis(name):
    good = True if name == "is_causal" else 1
    for length in (0, 1, 3):
        kw = {"kernel_size": 3, name: (good,) * length}
        refused(nf.na2d, *qkv(6, 6), **kw, says=name)


@pytest.mark.parametrize(
    "bad",
    [
        "3",
        3.0,
        None,
        Ellipsis,
        (3, "3"),
        (3, None),
        (3, 2.5),
        [[3], [3]],
        {3: 3},
        True,
        (True, 3),
        torch.tensor([3, 3]),
    ],
    ids=repr,
)
def test_integers_are_integers(bad):
    for name in ("kernel_size", "stride", "dilation"):
        refused(
            nf.na2d, *qkv(6, 6), **{"kernel_size": 3, name: bad}, error=(TypeError, ValueError), says=name
        )


@pytest.mark.parametrize("bad", [1, 0, 1.0, "True", None, (True, 1), (0, False)], ids=repr)
def test_booleans_are_booleans(bad):
    refused(nf.na2d, *qkv(6, 6), 3, is_causal=bad, error=(TypeError, ValueError), says="is_causal")
    if not isinstance(bad, tuple):
        refused(nf.attention, *qkv(6), is_causal=bad, error=(TypeError, ValueError), says="is_causal")
        for name in ("return_lse", "torch_compile", "run_persistent_kernel", "backward_use_pt_reduction"):
            refused(nf.na2d, *qkv(6, 6), 3, **{name: bad}, error=(TypeError, ValueError), says=name)


# ------------------------------------------------------------------------------------------------
# Shapes


def test_rank():
    q, k, v = qkv(6, 6)
    for function, word in ((nf.na1d, "4"), (nf.na3d, "6"), (nf.attention, "4")):
        args = (3,) if function is not nf.attention else ()
        refused(function, q, k, v, *args, says=[word, "5"])
    for shape in ((), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 4, 5, 6, 7)):
        x = torch.randn(shape)
        refused(nf.na2d, x, x, x, 3)
        refused(nf.attention, x, x, x)
    refused(nf.na2d, q, k[0], v, 3)
    refused(nf.na2d, q, k, v[None], 3)


def test_matching_shapes():
    q, k, v = qkv(6, 7)
    refused(nf.na2d, q, torch.randn(2, 6, 7, 2, 8), v, 3, says="batch")
    refused(nf.na2d, q, k, torch.randn(2, 6, 7, 2, 8), 3, says="batch")
    refused(nf.na2d, q, torch.randn(1, 6, 8, 2, 8), v, 3)
    refused(nf.na2d, q, k, torch.randn(1, 5, 7, 2, 8), 3)
    refused(nf.na2d, q, *qkv(6, 8)[1:], 3, dilation=2, says=["dilation", "layouts"])  # legal with dilation 1
    refused(nf.na2d, q, k, torch.randn(1, 6, 7, 1, 8), 3, says="head")
    refused(nf.na2d, q, torch.randn(1, 6, 7, 2, 4), v, 3, says=["8", "4"])
    refused(nf.attention, *qkv(6)[:2], torch.randn(1, 5, 2, 8))
    refused(nf.attention, qkv(6)[0], *qkv(6, batch=2)[1:], says="batch")


@pytest.mark.parametrize("heads, kv_heads", [(3, 2), (2, 3), (2, 4), (5, 3)])
def test_heads_must_divide(heads, kv_heads):
    for function, layout, args in ((nf.na1d, (6,), (3,)), (nf.attention, (6,), ())):
        refused(function, *qkv(*layout, heads=heads, kv_heads=kv_heads), *args, says=["head", str(heads)])


def test_zero_heads_and_dims():
    for kw in ({"heads": 0}, {"kv_heads": 0}, {"heads": 0, "kv_heads": 0}, {"dim": 0}, {"value_dim": 0}):
        refused(nf.na1d, *qkv(6, **kw), 3, says="0")
        refused(nf.attention, *qkv(6, **kw), says="0")


def test_empty_layout_has_no_window():
    refused(nf.na1d, *qkv(0), 1)
    refused(nf.na2d, *qkv(3, 0), 1)


# ------------------------------------------------------------------------------------------------
# Kinds of tensors


def test_dtypes():
    q, k, v = qkv(6)
    refused(nf.na1d, q.double(), k, v, 3, says=["float64", "float32"])
    refused(nf.na1d, q, k.bfloat16(), v, 3, says="bfloat16")
    refused(nf.attention, q, k, v.half(), says="float16")
    kinds = [
        torch.int32,
        torch.int64,
        torch.bool,
        torch.uint8,
        torch.complex64,
        torch.complex128,
        torch.float8_e4m3fn,
    ]
    for dtype in kinds:
        x = torch.zeros(1, 6, 2, 8, dtype=dtype)
        refused(nf.na1d, x, x, x, 3, says=str(dtype).removeprefix("torch."))
        refused(nf.attention, x, x, x)


def test_devices():
    q, k, v = qkv(6)
    refused(nf.na1d, q.to("meta"), k, v, 3, says=["meta", "cpu", "device"])
    refused(nf.na1d, q, k, v.to("meta"), 3, says=["meta", "cpu"])
    refused(nf.attention, q, k.to("meta"), v, says="meta")
    ak = torch.randn(1, 2, 2, 8)
    refused(nf.na1d, q, k, v, 3, additional_keys=ak.to("meta"), additional_values=ak, says="meta")


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("bad", [None, 3, "q", [[1.0]], (1,), Ellipsis], ids=repr)
def test_what_is_no_tensor(place, bad):
    inputs = qkv(6)
    inputs[place] = bad
    refused(nf.na1d, *inputs, 3, error=TypeError, says=["query", "key", "value"][place])
    refused(nf.attention, *inputs, error=TypeError)


def test_numpy_arrays_are_no_tensors():
    numpy = pytest.importorskip("numpy")
    q, _, v = qkv(6)
    refused(nf.na1d, q, numpy.zeros((1, 6, 2, 8)), v, 3, error=TypeError)


def test_sparse_and_nested_tensors():
    q, k, v = qkv(6)
    csr = torch.eye(4).to_sparse_csr()
    jagged = torch.nested.nested_tensor([torch.randn(3, 2, 8), torch.randn(4, 2, 8)], layout=torch.jagged)
    strided = torch.nested.nested_tensor([torch.randn(3, 2, 8), torch.randn(4, 2, 8)])
    for bad in (q.to_sparse(), csr, jagged, strided, q.to_mkldnn()):
        refused(nf.na1d, bad, k, v, 3, error=NotImplementedError)
        refused(nf.na1d, q, k, bad, 3, error=NotImplementedError)
        refused(nf.attention, bad, bad, bad, error=NotImplementedError)


# ------------------------------------------------------------------------------------------------
# Additional keys and values


def test_additional_keys_and_values():
    q, k, v = qkv(6, 6, value_dim=4)
    ak, av = torch.randn(1, 3, 2, 8), torch.randn(1, 3, 2, 4)

    def bad(keys, values, **kw):
        return refused(nf.na2d, q, k, v, 3, additional_keys=keys, additional_values=values, **kw)

    bad(ak, None, says="additional")
    bad(None, av, says="additional")
    bad(ak, av[:, :2])
    bad(ak.expand(2, -1, -1, -1), av.expand(2, -1, -1, -1), says="batch")
    bad(ak[..., :4], av)
    bad(ak, av[..., :3])
    bad(ak[:, :, :1], av[:, :, :1], says="head")
    bad(ak.double(), av.double(), says="float64")
    bad(ak[0], av[0])
    bad(3, av, error=TypeError)
    bad(ak, [1.0], error=TypeError)
    bad(ak.to_sparse(), av, error=NotImplementedError)


# ------------------------------------------------------------------------------------------------
# Numbers and names


def test_scale():
    for bad in ("1", [1.0], Ellipsis, 1j):
        refused(nf.na1d, *qkv(6), 3, scale=bad, error=TypeError, says="scale")
        refused(nf.attention, *qkv(6), scale=bad, error=TypeError, says="scale")
    assert nf.na1d(*qkv(6), 3, scale=1).shape == (1, 6, 2, 8)  # an int is a number


def test_dropout():
    for bad in (-0.1, 1.5, float("nan"), float("inf")):
        refused(nf.na1d, *qkv(6), 3, dropout_p=bad)
        refused(nf.attention, *qkv(6), dropout_p=bad)
    refused(nf.na1d, *qkv(6), 3, dropout_p="0.1", error=TypeError)


def test_bias():
    refused(nf.na1d, *qkv(6), 3, bias=3, error=TypeError, says="bias")
    refused(nf.na1d, *qkv(6), 3, bias=torch.zeros(2, 3), says=["bias", "(2, 5)"])
    refused(nf.na1d, *qkv(6), 3, bias=torch.zeros(2, 5).double(), says=["bias", "float64"])


def test_unknown_backend():
    for name in ("fastest", "", "CPU", "cutlass-fna"):
        match = refused(nf.na2d, *qkv(6, 6), 3, backend=name)
        assert "reference" in match[0] and "cpu" in match[0]
        refused(nf.attention, *qkv(6), backend=name)
    for bad in (3, True, b"cpu", ["cpu"]):
        refused(nf.na2d, *qkv(6, 6), 3, backend=bad, error=(TypeError, ValueError))


def test_backend_of_another_device():
    for name in ("cuda_sm80", "cuda_sm90"):
        refused(nf.na2d, *qkv(6, 6), 3, backend=name, says=name)
        refused(nf.attention, *qkv(6), backend=name, says=name)


def test_causal_type_must_be_specified():
    q, k, v = qkv(6)
    for bad in (None, "top_left", 1, True):
        with pytest.raises(ValueError, match=r"^Argument causal_type must be specified") as info:
            nf.attention(q, k, v, is_causal=True, causal_type=bad)
        assert str(bad) in str(info.value)


def test_dont_care_needs_equal_lengths():
    match = refused(nf.attention, *qkv(6, keys=(7,)), True, nf.CausalType.DontCare)
    assert "6" in match[0] and "7" in match[0]


# ------------------------------------------------------------------------------------------------
# Merge


def test_merge():
    out, lse = torch.randn(1, 5, 2, 4), torch.randn(1, 5, 2)

    def bad(outs, lses, **kw):
        return refused(nf.merge_attentions, outs, lses, **kw)

    bad([out], [lse], says="two")
    bad([], [])
    bad([out, out], [lse])
    bad([out, out, out], [lse, lse])
    bad([out, out[:, :4]], [lse, lse])
    bad([out, out], [lse, lse[:, :4]])
    bad([out, out], [lse, lse[..., None]])
    bad([out, out.double()], [lse, lse])
    bad([out, out.to("meta")], [lse, lse])
    bad([out.long(), out.long()], [lse, lse])
    bad([out, 3], [lse, lse], error=TypeError)
    bad(out, lse, error=TypeError)
    bad([out, None], [lse, lse], error=TypeError)
    bad([out.to_sparse(), out], [lse, lse], error=NotImplementedError)
    bad([out, out], [lse, lse], torch_compile=1, error=(TypeError, ValueError))
