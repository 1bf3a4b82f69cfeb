# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The drop-in for natten: its spellings, hints that change nothing, packed sequences, token permutation."""

import copy
import importlib
import inspect
import itertools

import pytest
import torch
from oracle import attend, dense_mask

import nearfield
from nearfield.compat import natten
from nearfield.compat.natten import backends, context, functional
from nearfield.compat.natten.token_permute import token_permute_operation, token_unpermute_operation
from nearfield.compat.natten.types import KernelSchedule

PEER_BACKENDS = {
    "na": ("cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna"),
    "attention": ("cutlass-fmha", "hopper-fmha", "blackwell-fmha", "flex-fmha"),
}
LAYOUTS = {1: (9,), 2: (6, 5), 3: (4, 3, 5)}


def _qkv(layout, heads=4, kv_heads=2, dim=8, value_dim=8, batch=1):
    shapes = ((heads, dim), (kv_heads, dim), (kv_heads, value_dim))
    return [torch.randn(batch, *layout, *shape) for shape in shapes]


def _na(rank):
    return getattr(natten, f"na{rank}d"), getattr(nearfield, f"na{rank}d")


# ---- spellings


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_signature_of_na(rank):
    theirs = inspect.signature(_na(rank)[0])
    assert theirs.replace(return_annotation=inspect.Signature.empty) == inspect.Signature(
        [p for p in inspect.signature(_na(rank)[1]).parameters.values() if p.kind != p.KEYWORD_ONLY]
    )


def test_signature_of_attention():
    assert " ".join(inspect.signature(natten.attention).parameters) == (
        "query key value is_causal scale seqlens_Q seqlens_KV cumulative_seqlen_Q cumulative_seqlen_KV "
        "max_seqlen_Q max_seqlen_KV backend q_tile_size kv_tile_size backward_q_tile_size "
        "backward_kv_tile_size backward_kv_splits backward_use_pt_reduction run_persistent_kernel "
        "kernel_schedule torch_compile return_lse"
    )
    assert str(inspect.signature(natten.merge_attentions)) == (
        "(outputs, lse_tensors, torch_compile=True, use_autograd_fix=True)"
    )


def test_everything_named_is_there():
    for module in ("", ".functional", ".modules", ".context", ".backends", ".token_permute", ".utils"):
        module = importlib.import_module("nearfield.compat.natten" + module)
        for name in module.__all__:
            assert getattr(module, name) is not None
    assert natten.HAS_LIBNATTEN is True
    assert natten.__version__.startswith("0.21.")
    assert issubclass(natten.NeighborhoodAttention2D, nearfield.NeighborhoodAttention2D)


def test_submodules_are_attributes():
    assert natten.utils.varlen and natten.token_permute.token_permute_operation
    imaginaire = importlib.import_module("nearfield.compat.imaginaire")
    assert imaginaire.masks.CausalType and imaginaire.varlen


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_na_passes_stride_and_dilation_on(rank):
    q, k, v = _qkv((8,) * rank)
    theirs, ours = _na(rank)
    for arguments in ({"dilation": 2}, {"stride": 2}, {"dilation": 2, "stride": 3, "is_causal": True}):
        expected = ours(q, k, v, 3, **arguments)
        assert torch.equal(theirs(q, k, v, 3, **arguments), expected)
        assert not torch.equal(theirs(q, k, v, 3), expected)


def test_switches_of_older_releases():
    from nearfield.compat.natten import context

    assert natten.has_fused_na() and natten.has_gemm() and natten.has_bfloat(0)
    assert natten.has_cuda() is torch.cuda.is_available()
    assert context.is_fna_enabled()
    natten.use_fused_na(False)
    assert not context.is_fna_enabled()
    natten.enable_fused_na()
    assert natten.is_fused_na_enabled()
    natten.use_autotuner(True, thorough_mode_forward=True)
    natten.disable_tf32()
    with pytest.raises(AttributeError):
        context.no_such_switch  # noqa: B018


def test_modules_take_none_for_defaults():
    from nearfield.compat.natten import NeighborhoodAttention1D

    plain = repr(NeighborhoodAttention1D(16, 2, 3))
    assert repr(NeighborhoodAttention1D(16, 2, 3, None, None, None)) == plain
    assert repr(NeighborhoodAttention1D(16, 2, 3, stride=None, dilation=None, is_causal=None)) == plain
    assert repr(NeighborhoodAttention1D(16, 2, 3, 2, None, True)) == repr(
        NeighborhoodAttention1D(16, 2, 3, stride=2, is_causal=True)
    )
    assert repr(NeighborhoodAttention1D(16, 2, 3, None, (2,))) != plain


def test_modules_take_the_older_arguments():
    """(dim, num_heads, kernel_size, dilation, is_causal, rel_pos_bias, ...), and dim by name."""
    torch.manual_seed(0)
    older = natten.NeighborhoodAttention2D(8, 2, 3, 2, True, True, False, 0.5, 0.1, 0.2)
    assert (older.dilation, older.is_causal, older.stride) == ((2, 2), (True, True), (1, 1))
    assert older.rpb.shape == (2, 5, 5) and older.qkv.bias is None
    assert (older.scale, older.attn_drop, older.proj_drop.p) == (0.5, 0.1, 0.2)
    named = natten.NeighborhoodAttention1D(dim=8, num_heads=2, kernel_size=3, dilation=2)
    assert (named.embed_dim, named.dilation) == (8, (2,))
    several = natten.NeighborhoodAttention2D(8, 2, 3, 2, (True, False))
    assert (several.dilation, several.is_causal) == ((2, 2), (True, False))
    assert natten.NeighborhoodAttention1D(8, 2, 3, bias=True).rpb.shape == (2, 5)
    today = natten.NeighborhoodAttention2D(8, 2, 3, 2, 2, (True, False))
    assert (today.stride, today.dilation, today.is_causal) == ((2, 2), (2, 2), (True, False))
    with pytest.raises(TypeError, match="got num_heads twice"):
        natten.NeighborhoodAttention1D(8, 2, 3, 1, False, num_heads=2)
    assert copy.deepcopy(older).state_dict().keys() == {"rpb", "qkv.weight", "proj.weight", "proj.bias"}


def test_generic_module():
    from nearfield.compat.natten.modules import NeighborhoodAttentionGeneric

    module = NeighborhoodAttentionGeneric(2, embed_dim=8, num_heads=2, kernel_size=3)
    assert isinstance(module, natten.NeighborhoodAttention2D)
    with pytest.raises(ValueError, match="got na_dim 4, expected 1, 2 or 3"):
        NeighborhoodAttentionGeneric(4, 8, 2, 3)


# ---- neighborhood attention


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_na_is_ours_under_every_backend(rank):
    theirs, ours = _na(rank)
    q, k, v = _qkv(LAYOUTS[rank], value_dim=6)
    ak, av = torch.randn(1, 3, 2, 8), torch.randn(1, 3, 2, 6)
    causal = (True, *(False,) * (rank - 1))
    out, lse = ours(q, k, v, 3, 2, 1, causal, 0.3, ak, av, return_lse=True)
    for backend in (None, *PEER_BACKENDS["na"]):
        got, got_lse = theirs(
            q,
            k,
            v,
            3,
            2,
            1,
            causal,
            0.3,
            ak,
            av,
            {
                "backend": "cutlass-fmha",
                "q_tile_size": 12345,
                "kernel_schedule": KernelSchedule.NonPersistent,
            },
            backend,
            q_tile_shape=(77,),
            kv_tile_shape="no shape",
            backward_kv_splits=-3,
            kernel_schedule=KernelSchedule.WarpSpecializedPingpong,
            torch_compile=True,
            return_lse=True,
        )
        assert torch.equal(got, out) and torch.equal(got_lse, lse)
    assert torch.equal(
        functional.neighborhood_attention_generic(q, k, v, 3, None, None, None), ours(q, k, v, 3)
    )


def test_our_backends_are_known_too():
    q, k, v = _qkv((9,))
    assert torch.equal(
        natten.na1d(q, k, v, 3, backend="reference"), nearfield.na1d(q, k, v, 3, backend="reference")
    )
    with pytest.raises(ValueError, match=r"\[na1d\] got backend 'cutlass'"):
        natten.na1d(q, k, v, 3, backend="cutlass")
    with pytest.raises(ValueError, match=r"\[na1d\] got attention_kwargs with 'dropout'"):
        natten.na1d(q, k, v, 3, attention_kwargs={"dropout": 0.5})


def test_attention_kwargs_stay_as_they_are():
    q, k, v = _qkv((9,))
    kwargs = {"backend": "flex-fmha", "q_tile_size": 64}
    natten.na1d(q, k, v, 9, attention_kwargs=kwargs)
    assert kwargs == {"backend": "flex-fmha", "q_tile_size": 64}


def test_one_layout_only():
    (q, _, _), (_, k, v) = _qkv((4, 4)), _qkv((8, 8))
    with pytest.raises(ValueError, match=r"\[na2d\] got a query layout \(4, 4\) and a key layout \(8, 8\)"):
        natten.na2d(q, k, v, 3)
    with pytest.raises(TypeError, match=r"\[na2d\] got query of type int"):
        natten.na2d(1, k, v, 3)
    with pytest.raises(ValueError, match="got a query of rank 2"):
        functional.neighborhood_attention_generic(torch.zeros(2, 2), k, v, 3)


def test_na_compiles():
    q, k, v = _qkv((6, 5))
    compiled = torch.compile(
        lambda *x: natten.na2d(*x, 3, backend="hopper-fna"), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(q, k, v), nearfield.na2d(q, k, v, 3))


def test_named_kernels_and_configs():
    q, k, v = _qkv((6, 5))
    out = nearfield.na2d(q, k, v, 3)
    for name in ("cutlass_fna", "cutlass_hopper_fna", "cutlass_blackwell_fna", "flex"):
        assert torch.equal(getattr(backends, f"na2d_{name}")(q, k, v, 3), out)
    for name in backends.get_compatible_backends(q, k, v, torch_compile=False):
        word = {"cutlass-fna": "cutlass_fna", "flex-fna": "flex_fna"}.get(name)
        word = word or f"cutlass_{name.replace('-', '_')}"
        configs = getattr(natten, f"get_configs_for_{word}")(q, k, v)
        assert getattr(backends, f"can_run_{word}".replace("flex_fna", "flex_attention"))(q, k, v)
        schedule = None
        for shapes in configs:
            if "hopper" in name:
                shapes, schedule = shapes
            q_tile, kv_tile = shapes
            assert len(q_tile) == len(kv_tile) == 2
            got = natten.na2d(
                q, k, v, 3, backend=name, q_tile_shape=q_tile, kv_tile_shape=kv_tile, kernel_schedule=schedule
            )
            assert torch.equal(got, out)
    assert configs and backends.choose_backend(q, k, v) in PEER_BACKENDS["na"]
    (q, k, v), fmha = _qkv((7,)), backends.get_compatible_fmha_backends
    for name in fmha(q, k, v, is_causal=False, is_varlen=False, torch_compile=False):
        assert torch.equal(natten.attention(q, k, v, backend=name), nearfield.attention(q, k, v))
    assert natten.get_bwd_configs_for_cutlass_hopper_fmha(q, k, v) == [(64, 64)]
    assert backends.choose_fmha_backend(q, k, v) in PEER_BACKENDS["attention"]


# ---- dense attention


@pytest.mark.parametrize("backend", [None, *PEER_BACKENDS["attention"]])
def test_attention(backend):
    (q, _, _), (_, k, v) = _qkv((5,)), _qkv((7,))
    for causal in (False, True, None):
        out, lse = natten.attention(
            q, k, v, causal, 0.4, backend=backend, q_tile_size=3, kv_tile_size="x", return_lse=True
        )
        expected = attend(q, k, v, dense_mask(5, 7, "tl" if causal else None), 0.4)
        torch.testing.assert_close(out, expected[0].float())
        torch.testing.assert_close(lse, expected[1].float())


def test_the_older_order_of_attention():
    q, k, v = _qkv((5,))
    assert torch.equal(natten.attention(q, k, v, 0.25), natten.attention(q, k, v, scale=0.25))
    with pytest.raises(ValueError, match="expected one scale"):
        natten.attention(q, k, v, 0.25, 0.5)
    with pytest.raises(TypeError, match="got is_causal of type int"):
        natten.attention(q, k, v, 1)


def test_packed_attention():
    from nearfield.compat.natten.utils.varlen import generate_varlen_parameters

    lengths = torch.tensor([3, 0, 5], dtype=torch.int32)
    q, k, v = _qkv((8,))
    plain = generate_varlen_parameters(q, k, v)
    assert plain == (None, None, 0, 0)
    names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
    assert torch.equal(
        natten.attention(q, k, v, **dict(zip(names, plain, strict=True))), nearfield.attention(q, k, v)
    )
    packed = dict(zip(names, generate_varlen_parameters(q, k, v, lengths, lengths), strict=True))
    for backend in PEER_BACKENDS["attention"]:
        out = natten.attention(q, k, v, True, **packed, backend=backend)
        alone = [natten.attention(*(x[:, a:b] for x in (q, k, v)), True) for a, b in ((0, 3), (3, 8))]
        assert torch.equal(out, torch.cat(alone, 1))
    by_lengths = natten.attention(q, k, v, True, seqlens_Q=lengths, seqlens_KV=lengths)
    assert torch.equal(by_lengths, out)


def test_merge():
    (q, _, _), (_, k, v) = _qkv((5,)), _qkv((7,))
    parts = [natten.attention(q, k[:, s], v[:, s], return_lse=True) for s in (slice(3), slice(3, 7))]
    for flags in ((True, True), (False, False)):
        out, lse = natten.merge_attentions(*zip(*parts, strict=True), *flags)
        expected = natten.attention(q, k, v, return_lse=True)
        torch.testing.assert_close((out, lse), expected)


# ---- flags, helpers


@pytest.fixture
def flags():
    context.NattenContext.reset()
    yield
    context.NattenContext.reset()


def test_flags(flags):
    assert not natten.are_deterministic_algorithms_enabled()
    assert natten.is_kv_parallelism_in_fused_na_enabled()
    assert natten.is_memory_usage_default()
    natten.use_kv_parallelism_in_fused_na(False)
    assert not natten.is_kv_parallelism_in_fused_na_enabled()
    natten.use_deterministic_algorithms()
    assert natten.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="in deterministic mode"):
        natten.use_kv_parallelism_in_fused_na(True)
    for word in ("strict", "unrestricted", "default"):
        natten.set_memory_usage_preference(word)
        assert getattr(natten, f"is_memory_usage_{word}")()
        assert natten.get_memory_usage_preference().name.lower() == word
    with pytest.raises(ValueError, match="got 'lavish', expected one of default, strict, unrestricted"):
        natten.set_memory_usage_preference("lavish")
    assert not natten.is_flex_compile_allowed()
    natten.allow_flex_compile(backprop=True)
    assert natten.is_flex_compile_allowed() and natten.is_flex_compile_backprop_allowed()
    natten.disable_flex_compile_backprop()
    assert natten.is_flex_compile_allowed() and not natten.is_flex_compile_backprop_allowed()
    natten.allow_flex_compile_backprop()
    assert natten.is_flex_compile_backprop_allowed()
    natten.disable_flex_compile()
    assert not natten.is_flex_compile_allowed() and not natten.is_flex_compile_backprop_allowed()


def test_check_all_args_and_log():
    from nearfield.compat.natten.utils import check_all_args, log

    assert check_all_args(2, 3, None, (1, 2), None) == ((3, 3), (1, 1), (1, 2), (False, False))
    with pytest.raises(ValueError, match=r"\[na2d\] got kernel_size of length 3"):
        check_all_args(2, (3, 3, 3), 1, 1, False)
    assert log.get_logger("natten.test").name == "natten.test"


# ---- token permutation


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(
    "layout, tile, dilation",
    [
        ((7,), (3,), None),
        ((7,), (2,), (2,)),
        ((4, 6), (2, 3), None),
        ((5, 7), (2, 2), (2, 1)),
        ((3, 4, 5), (2, 2, 3), (1, 2, 1)),
    ],
)
def test_token_permute(layout, tile, dilation, flip):
    rank, batch = len(layout), 2
    numbers = torch.arange(1, torch.Size(layout).numel() + 1).reshape(layout)
    x = torch.stack([numbers, 1000 + numbers])[..., None, None].expand(-1, *layout, 2, 3)
    out, got_layout, padded = token_permute_operation(x, tile, dilation, flip_tiled_dims=flip)
    dilation = dilation or (1,) * rank
    assert got_layout == layout
    tiles = [-(-n // (t * d)) for n, t, d in zip(layout, tile, dilation, strict=True)]
    assert padded == tuple(n * t for n, t in zip(tiles, tile, strict=True))

    # Loops from slow to fast: batch, groups, tiles, places in a tile; axes in order, or the last one first.
    order = range(rank)[::-1] if flip else range(rank)
    loops = [range(sizes[i]) for sizes in (dilation, tiles, tile) for i in order]
    expected = []
    for b in range(batch):
        for at in itertools.product(*loops):
            parts = [dict(zip(order, at[i * rank : (i + 1) * rank], strict=True)) for i in range(3)]
            token = [(parts[1][i] * tile[i] + parts[2][i]) * dilation[i] + parts[0][i] for i in range(rank)]
            inside = all(n < extent for n, extent in zip(token, layout, strict=True))
            expected.append(int(x[(b, *token, 0, 0)]) if inside else 0)
    assert out.shape == (batch * torch.Size(dilation).numel(), torch.Size(padded).numel(), 2, 3)
    assert out[..., 0, 0].flatten().tolist() == expected
    assert torch.equal(out[..., 0, 0], out[..., 1, 2])
    back = token_unpermute_operation(out, layout, tile, dilation, flip_tiled_dims=flip)
    assert torch.equal(back, x)


def test_token_permute_has_gradients():
    x = torch.randn(1, 3, 4, 1, 2, dtype=torch.float64, requires_grad=True)

    def there_and_back(x):
        out, layout, _ = token_permute_operation(x, (2, 2), (1, 2))
        return token_unpermute_operation(out.sin(), layout, (2, 2), (1, 2))

    torch.testing.assert_close(there_and_back(x), x.sin())
    assert torch.autograd.gradcheck(there_and_back, (x,))


def test_token_permute_refuses():
    with pytest.raises(ValueError, match="got a tensor of rank 3, expected 4, 5 or 6"):
        token_permute_operation(torch.zeros(1, 2, 3), (2,))
    with pytest.raises(ValueError, match="got tile_shape of length 1, expected 2"):
        token_permute_operation(torch.zeros(1, 2, 2, 1, 1), (2,))
    with pytest.raises(ValueError, match="expected numbers from 1 on"):
        token_permute_operation(torch.zeros(1, 2, 1, 1), (0,))
    with pytest.raises(ValueError, match=r"expected \[a multiple of 2, 4, heads, head_dim\]"):
        token_unpermute_operation(torch.zeros(2, 8, 1, 1), (8,), (2,), (2,))
