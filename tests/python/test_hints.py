# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Performance arguments never change results, and are honoured or refused in words."""

import re

import pytest
import torch
from test_errors import qkv, refused

import nearfield as nf

HINTS = [
    {"backward_kv_splits": (1, 1)},
    {"backward_kv_splits": 2},
    {"backward_use_pt_reduction": True},
    {"run_persistent_kernel": False},
    {"kernel_schedule": "coop"},
    {"torch_compile": True},
    {"try_fuse_additional_kv": True},
]


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_hints_never_change_results(hint, backend):
    q, k, v = qkv(6, 7)
    plain = nf.na2d(q, k, v, 3, backend=backend)
    assert torch.equal(plain, nf.na2d(q, k, v, 3, backend=backend, **hint))


@pytest.mark.parametrize("hint", [h for h in HINTS if "try_fuse_additional_kv" not in h], ids=str)
def test_hints_of_attention(hint, backend):
    q, k, v = qkv(6)
    hint = {key: 2 if isinstance(x, tuple) else x for key, x in hint.items()}
    assert torch.equal(nf.attention(q, k, v, backend=backend), nf.attention(q, k, v, backend=backend, **hint))


@pytest.mark.parametrize(
    "hint",
    [
        {"backward_kv_splits": "2"},
        {"backward_kv_splits": (1, 2, 3)},
        {"backward_kv_splits": 0},
        {"backward_kv_splits": True},
        {"kernel_schedule": 3},
        {"try_fuse_additional_kv": 1},
    ],
    ids=str,
)
def test_hints_are_checked_for_form(hint):
    refused(nf.na2d, *qkv(6, 7), 3, **hint, error=(TypeError, ValueError), says=next(iter(hint)))


TILES = ("q_tile_shape", "kv_tile_shape", "backward_q_tile_shape", "backward_kv_tile_shape")


def _honoured_or_refused(run):
    """run(), or None where a ValueError says in words what is wrong with the tile and what would be right."""
    try:
        return run()
    except ValueError as error:
        assert re.search(r"\[\w+\] got .*expected", str(error)), error
        assert re.search(r"tile.*can use.*: \w+|has no tiles", str(error)), error
        return None


@pytest.mark.parametrize("name", TILES)
def test_tiles_are_honoured_or_refused_with_the_legal_ones(name, backend):
    """Whatever the shape: right results, or a message that names the shapes the backend can use."""
    leaves = [x.requires_grad_() for x in qkv(12, 13)]
    expected = nf.na2d(*leaves, 5, backend=backend)
    gradients = torch.autograd.grad(expected.sum(), leaves)
    honoured = 0
    for tile in ((4, 4), (1, 1), (2, 8), (1, 16), (8, 8), (64, 1), (3, 5), (12, 13), (1000, 1000)):

        def run(tile=tile):
            out = nf.na2d(*leaves, 5, backend=backend, **{name: tile})
            return out, *torch.autograd.grad(out.sum(), leaves)

        for got, want in zip(_honoured_or_refused(run) or (), (expected, *gradients), strict=False):
            honoured += 1
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert honoured or backend == "reference"  # the plain loops have no tiles


@pytest.mark.parametrize("name", TILES)
@pytest.mark.parametrize(
    "bad", [(0, 4), (-1, 4), (4,), (4, 4, 4), "4x4", (4, 2.0), (True, 4), 2**40], ids=repr
)
def test_tiles_of_no_form(name, bad):
    refused(nf.na2d, *qkv(6, 6), 3, **{name: bad}, error=(TypeError, ValueError), says=name)


@pytest.mark.parametrize(
    "name", ["q_tile_size", "kv_tile_size", "backward_q_tile_size", "backward_kv_tile_size"]
)
def test_tile_sizes_of_attention(name, backend):
    q, k, v = qkv(40)
    expected = nf.attention(q, k, v, backend=backend)
    for size in (1, 8, 16, 64):
        out = _honoured_or_refused(lambda n=size: nf.attention(q, k, v, backend=backend, **{name: n}))
        if out is not None:
            torch.testing.assert_close(out, expected)
    for bad in (0, -4, "8", 8.0, True, (8, 8)):
        refused(nf.attention, q, k, v, **{name: bad}, error=(TypeError, ValueError), says=name)


# ------------------------------------------------------------------------------------------------
# attention_kwargs and backend_kwargs


def _extra():
    return {"additional_keys": torch.randn(1, 2, 2, 8), "additional_values": torch.randn(1, 2, 2, 8)}


def test_attention_kwargs_hold_performance_arguments_and_backend_only():
    q, k, v = qkv(6, 6)
    for name in ("nonsense", "scale", "is_causal", "return_lse", "query", "causal_type"):
        refused(nf.na2d, q, k, v, 3, attention_kwargs={name: None}, **_extra(), says=name)
        refused(nf.attention, *qkv(6), backend_kwargs={name: None}, says=name)
    for bad in (3, "backend", [("backend", "cpu")]):
        refused(nf.na2d, q, k, v, 3, attention_kwargs=bad, error=TypeError, says="attention_kwargs")
        refused(nf.attention, *qkv(6), backend_kwargs=bad, error=TypeError, says="backend_kwargs")


def test_attention_kwargs_are_never_modified():
    q, k, v = qkv(6, 6)
    given = {"backend": "cpu", "run_persistent_kernel": False, "backward_kv_splits": 1}
    kept = dict(given)
    nf.na2d(q, k, v, 3, attention_kwargs=given, **_extra())
    nf.na2d(q, k, v, 6, attention_kwargs=given)
    nf.attention(*qkv(6), backend_kwargs=given)
    assert given == kept


def test_attention_kwargs_may_not_contradict_the_direct_arguments():
    q, k, v = qkv(6, 6)
    refused(
        nf.na2d,
        q,
        k,
        v,
        3,
        backend="cpu",
        attention_kwargs={"backend": "reference"},
        **_extra(),
        says="backend",
    )
    refused(nf.attention, *qkv(6), backend="cpu", backend_kwargs={"backend": "reference"}, says="backend")
    same = nf.na2d(q, k, v, 3, backend="cpu", attention_kwargs={"backend": "cpu"}, **_extra())
    assert same.shape == q.shape


def test_backend_kwargs_are_arguments_like_the_direct_ones():
    """Checked for form, honoured or refused, and never against what was said directly."""
    bad = [
        {"q_tile_size": "8"},
        {"kv_tile_size": 0},
        {"run_persistent_kernel": 3},
        {"backward_kv_splits": "x"},
    ]
    for kwargs in (*bad, {"kernel_schedule": 3}, {"torch_compile": 1}, {"backend": 3}):
        error = (TypeError, ValueError)
        refused(nf.attention, *qkv(6), backend_kwargs=kwargs, error=error, says=next(iter(kwargs)))
    for kwargs, direct in (
        ({"q_tile_size": 8}, {"q_tile_size": 16}),
        ({"kernel_schedule": "a"}, {"kernel_schedule": "b"}),
        ({"backward_kv_splits": 1}, {"backward_kv_splits": 2}),
    ):
        refused(nf.attention, *qkv(6), backend_kwargs=kwargs, **direct, says=next(iter(kwargs)))
    with pytest.raises(ValueError, match="tile"):  # as q_tile_size=1000 itself is
        nf.attention(*qkv(6), backend="cpu", backend_kwargs={"q_tile_size": 1000})


def test_backend_of_attention_kwargs_stands_in_for_none():
    q, k, v = qkv(6, 6)
    refused(nf.na2d, q, k, v, 6, attention_kwargs={"backend": "nope"}, says="nope")
    refused(nf.na2d, q, k, v, 3, attention_kwargs={"backend": "nope"}, **_extra(), says="nope")
    refused(nf.attention, *qkv(6), backend_kwargs={"backend": "nope"}, says="nope")
    for name in ("cpu", "reference"):
        assert torch.equal(
            nf.na2d(q, k, v, 6, attention_kwargs={"backend": name}), nf.na2d(q, k, v, 6, backend=name)
        )
    # A window that leaves something out and nothing additional: the arguments have no effect.
    assert torch.equal(nf.na2d(q, k, v, 3, attention_kwargs={"backend": "reference"}), nf.na2d(q, k, v, 3))


def test_empty_attention_kwargs():
    q, k, v = qkv(6, 6)
    assert torch.equal(nf.na2d(q, k, v, 3, attention_kwargs={}), nf.na2d(q, k, v, 3))


def test_signatures_are_the_contract():
    """Names and order of the arguments, and their defaults."""
    import inspect

    na = (
        "query key value kernel_size stride=1 dilation=1 is_causal=False scale=None additional_keys=None "
        "additional_values=None attention_kwargs=None backend=None q_tile_shape=None kv_tile_shape=None "
        "backward_q_tile_shape=None backward_kv_tile_shape=None backward_kv_splits=None "
        "backward_use_pt_reduction=False run_persistent_kernel=True kernel_schedule=None torch_compile=False "
        "try_fuse_additional_kv=False return_lse=False * bias=None dropout_p=0.0"
    )
    attention = (
        "query key value is_causal=False causal_type=None scale=None seqlens_Q=None seqlens_KV=None "
        "cumulative_seqlen_Q=None cumulative_seqlen_KV=None max_seqlen_Q=None max_seqlen_KV=None "
        "backend=None return_lse=False backend_kwargs=None * q_tile_size=None kv_tile_size=None "
        "backward_q_tile_size=None backward_kv_tile_size=None backward_kv_splits=None "
        "backward_use_pt_reduction=False run_persistent_kernel=True kernel_schedule=None "
        "torch_compile=False dropout_p=0.0"
    )
    merge = "outputs lse_tensors torch_compile=True"
    for function, text in (
        (nf.na1d, na),
        (nf.na2d, na),
        (nf.na3d, na),
        (nf.attention, attention),
        (nf.merge_attentions, merge),
    ):
        parameters = list(inspect.signature(function).parameters.values())
        words = [p.name + ("" if p.default is p.empty else f"={p.default!r}") for p in parameters]
        kinds = [p.kind for p in parameters]
        if inspect.Parameter.KEYWORD_ONLY in kinds:
            words.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
        assert " ".join(words) == text, function.__name__
