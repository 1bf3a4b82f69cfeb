# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""nearfield/torch.h computes what Python computes: results, gradients, weights, errors.

run.sh builds the program (main.cc) and names it in NEARFIELD_TORCH_CPP. It runs once, on the inputs below;
the cases have the same names there. Both sides call the same operators, so the bits agree.
"""

import os
import subprocess
import zipfile

import pytest
import torch

import nearfield as nf

PROGRAM = os.environ.get("NEARFIELD_TORCH_CPP")
if not PROGRAM:
    pytest.skip("tests/torch_cpp/run.sh builds the program", allow_module_level=True)


def _qkv(query, key=None, value=None, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    key = query if key is None else key
    shapes = {"query": query, "key": key, "value": key if value is None else value}
    return {name: torch.randn(shape, generator=g, dtype=dtype) for name, shape in shapes.items()}


def _lengths(q, kv):
    return {"seqlens_Q": torch.tensor(q), "seqlens_KV": torch.tensor(kv, dtype=torch.int32)}


INPUTS = {
    "na1d": _qkv((2, 11, 4, 8), (2, 11, 2, 8), (2, 11, 2, 5)),
    "na2d": {
        **_qkv((1, 6, 7, 2, 8), value=(1, 6, 7, 2, 3)),
        "additional_keys": torch.randn(1, 5, 2, 8),
        "additional_values": torch.randn(1, 5, 2, 3),
    },
    "na3d": _qkv((1, 3, 4, 5, 1, 4), dtype=torch.float64),
    "bias and dropout": {**_qkv((2, 5, 6, 2, 4)), "bias": torch.randn(2, 5, 5)},
    "attention": _qkv((2, 9, 4, 8), (2, 7, 2, 8)),
    "lengths": {**_qkv((1, 9, 2, 4), (1, 8, 2, 4)), **_lengths([4, 0, 5], [3, 2, 3])},
    "offsets": {**_qkv((1, 9, 2, 4), (1, 8, 2, 4)), **_lengths([4, 0, 5], [3, 2, 3])},
    "multi-dimensional": _qkv((1, 4, 1, 2, 8), (1, 7, 1, 2, 8)),
    "spatio-temporal": _qkv((1, 3, 4, 5, 2, 8)),
    "layouts": _qkv((1, 24, 2, 8)),
    "merge": {
        "a": torch.randn(2, 3, 4, 2, 5),
        "b": torch.randn(2, 3, 4, 2, 5),
        "lse_a": torch.randn(2, 3, 4, 2).masked_fill(torch.rand(2, 3, 4, 2) < 0.3, -torch.inf),
        "lse_b": torch.randn(2, 3, 4, 2).masked_fill(torch.rand(2, 3, 4, 2) < 0.3, -torch.inf),
    },
    "rope": {"x": torch.randn(2, 4, 5, 3, 8)},
    "Attention rope 1-D causal": _qkv((2, 7, 24)),
    "Attention rope 2-D norm": _qkv((2, 4, 5, 24)),
    "Attention rope 3-D float64": _qkv((1, 2, 3, 4, 24), dtype=torch.float64),
    "Attention additional": _qkv((2, 7, 24))
    | {name: torch.randn(2, 3, 4, 6) for name in ("additional_keys", "additional_values")},
    "Attention dropout": _qkv((1, 4, 5, 24), (1, 3, 3, 12)),
    "NA1D": {"x": torch.randn(2, 7, 12)},
    "NA2D": {
        "x": torch.randn(1, 6, 7, 16),
        "additional_keys": torch.randn(1, 3, 2, 4),
        "additional_values": torch.randn(1, 3, 2, 4),
    },
    "NA3D": {"x": torch.randn(1, 4, 5, 6, 8)},
}


def _seeded(seed, f, *args, **kwargs):
    torch.manual_seed(seed)
    return f(*args, **kwargs)


def _offsets(query, key, value, seqlens_Q, seqlens_KV):
    parameters = nf.varlen.generate_varlen_parameters(query, key, value, seqlens_Q, seqlens_KV)
    names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
    return nf.attention(query, key, value, **dict(zip(names, parameters, strict=True)), return_lse=True)


def _layouts(query, key, value):
    metadata = nf.varlen.generate_multi_dim_varlen_parameters(
        [(3, 4), (5, 2)], 8, "cpu", torch.float32, False, [(3, 3), -1], [1, (2, 1)]
    )
    return nf.multi_dimensional_attention_varlen(query, key, value, metadata, return_lse=True)


def _rope(x):
    tables = nf.rope_tables((4, 5), 8, 100.0, factor=2)
    return (
        nf.rope(x),
        nf.rope(x, 500.0, offset=(3, 1.5)),
        nf.rope(x, factor=(2, 1), scaling="ntk"),
        nf.apply_rope(x.to(torch.bfloat16), tables).float(),
    )


def _attention(*args, **kwargs):
    module = nf.Attention(24, *args, **kwargs)
    return lambda **t: module(**t, return_lse=True)


CASES = {
    "na1d": lambda **t: nf.na1d(
        **t, kernel_size=5, dilation=2, is_causal=True, scale=0.3, return_lse=True
    ),
    "na2d": lambda **t: nf.na2d(
        **t, kernel_size=(3, 4), stride=(1, 2), dilation=(2, 1), is_causal=(False, True), return_lse=True
    ),
    "na3d": lambda **t: nf.na3d(
        **t, kernel_size=(2, 3, 3), is_causal=(True, False, False), backend="reference", return_lse=True
    ),
    "bias and dropout": lambda **t: _seeded(5, nf.na2d, **t, kernel_size=3, dropout_p=0.4, return_lse=True),
    "attention": lambda **t: _seeded(
        6, nf.attention, **t, is_causal=True, causal_type=nf.CausalType.BottomRight, dropout_p=0.2,
        return_lse=True,
    ),
    "lengths": lambda **t: nf.attention(
        **t, is_causal=True, causal_type=nf.CausalType.TopLeft, return_lse=True
    ),
    "offsets": _offsets,
    "multi-dimensional": lambda **t: nf.multi_dimensional_attention(
        **t, window_size=(-1, 3), is_causal=(True, False), return_lse=True
    ),
    "spatio-temporal": lambda **t: nf.spatio_temporal_attention(**t, window_size=(2, 3, -1), return_lse=True),
    "layouts": _layouts,
    "merge": lambda a, b, lse_a, lse_b: nf.merge_attentions([a, b], [lse_a, lse_b]),
    "rope": _rope,
    "Attention rope 1-D causal": _attention(3, False, True, True, rope_spatial_dims=[7]),
    "Attention rope 2-D norm": _attention(3, True, True, rope_base=100.0, rope_spatial_dims=(4, 5)),
    "Attention rope 3-D float64": _attention(2, False, True, rope_spatial_dims=(2, 3, 4)),
    "Attention additional": _attention(4, False, True, True, rope_spatial_dims=[7]),
    "Attention dropout": lambda **t: _seeded(
        7, _attention(4, True, False, attn_dropout=0.3, num_kv_heads=2), **t
    ),
}  # fmt: skip

WEIGHTED = {  # module, in training
    "NA1D": (
        lambda: nf.NeighborhoodAttention1D(12, 3, 3, is_causal=True, qkv_bias=False, qk_scale=0.5),
        False,
    ),
    "NA2D": (
        lambda: nf.NeighborhoodAttention2D(
            16, 4, (3, 5), (1, 2), num_kv_heads=2, proj_drop=0.5, attn_drop=0.2, rel_pos_bias=True
        ),
        True,
    ),
    "NA3D": (lambda: nf.NeighborhoodAttention3D(8, 2, (2, 3, 3), dilation=(1, 1, 2), backend="cpu"), False),
}  # fmt: skip


def _example():
    x, y = torch.zeros(1, 6, 6, 2, 4), torch.zeros(1, 6, 2, 4)
    return x, y, torch.zeros(1, 6, 24), torch.full((2,), 4, dtype=torch.int32)


def _twice():
    q = torch.ones(1, 4, 1, 2, requires_grad=True)
    (g,) = torch.autograd.grad(nf.na1d(q, q, q, 3).sum(), q, create_graph=True)
    g.sum().backward()


x, y, c, lengths = _example()
ERRORS = {
    "window": lambda: nf.na2d(x, x, x, 9),
    "rank": lambda: nf.na2d(y, y, y, 3),
    "axes": lambda: nf.na2d(x, x, x, 3, stride=(1, 1, 1)),
    "dtype": lambda: nf.na2d(x, x.double(), x, 3),
    "refused backend": lambda: nf.na2d(x, x, x, 3, backend="cuda_sm80"),
    "sparse": lambda: nf.na2d(x.to_sparse(), x, x, 3),
    "one additional": lambda: nf.na2d(x, x, x, 3, additional_keys=y),
    "tile": lambda: nf.na2d(x, x, x, 3, q_tile_shape=(0, 1)),
    "lengths alone": lambda: nf.attention(y, y, y, seqlens_Q=lengths),
    "lengths": lambda: nf.attention(y, y, y, seqlens_Q=lengths, seqlens_KV=lengths),
    "rank of a layout": lambda: nf.multi_dimensional_attention(c, c, c),
    "merge": lambda: nf.merge_attentions([y], [y[..., 0]]),
    "rope": lambda: nf.rope(torch.zeros(1, 6, 2, 3)),
    "rope base": lambda: nf.rope(y, 0.0),
    "rope base of a module": lambda: nf.Attention(24, 4, False, False, rope_base=-1.5),
    "heads": lambda: nf.NeighborhoodAttention2D(10, 3, 3),
    "kv heads": lambda: nf.NeighborhoodAttention2D(12, 4, 3, num_kv_heads=3),
    "stride": lambda: nf.NeighborhoodAttention2D(12, 4, 3, stride=4),
    "channels": lambda: nf.NeighborhoodAttention1D(12, 4, 3)(c),
    "dropout": lambda: nf.Attention(24, 4, False, False, attn_dropout=1.5),
    "no layout": lambda: nf.Attention(24, 4, False, True),
    "odd head_dim": lambda: nf.Attention(24, 4, False, True, rope_spatial_dims=(2, 3)),
    "wrong layout": lambda: nf.Attention(24, 4, False, True, rope_spatial_dims=(5,))(c, c, c),
    "second differentiation": _twice,
}
OF_CPP = {
    "backend": "ValueError:[na2d] got backend 'tpu', expected one of "
    + f'{", ".join(nf.info()["backends"])}; "" takes the best one',
    "state_dict": "ValueError:[load_state_dict] got unknown names rpb, shapes proj.bias (16,) for (24,), ",
    "no dictionary": "list.pt with the pickle opcode 93, expected a dictionary of tensors",
    "no tensor": "number.pt with an entry that is no tensor under a name, expected",
    "unwritable": "other:[save_tensors] cannot write",
    "no file": "ValueError:[load_tensors] got nowhere.pt that cannot be read, expected a dictionary",
    "no archive": "said.txt that is no file of torch.save, expected a dictionary",
    "deep": "deep.pt that is no pickle",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the program ran: inputs.pt, outputs.pt, weights, and its words in said.txt."""
    folder = tmp_path_factory.mktemp("torch_cpp")
    torch.manual_seed(2)
    for name, (make, _) in WEIGHTED.items():
        torch.save(make().state_dict(), folder / f"{name}.pt")
    torch.save(
        {f"{name}/{key}": t for name, ts in INPUTS.items() for key, t in ts.items()}, folder / "inputs.pt"
    )
    torch.save([torch.ones(2)], folder / "list.pt")
    torch.save({"epoch": 3}, folder / "number.pt")
    (folder / "said.txt").write_text("not yet")
    with zipfile.ZipFile(folder / "deep.pt", "w", zipfile.ZIP_DEFLATED) as archive:  # tuples within tuples
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data.pkl", b"\x80\x02)" + b"\x85" * 1_000_000 + b"R.")
    turned, other = (torch.complex(torch.ones(3), torch.full((3,), 2.0)).conj() for _ in range(2))
    torch.save({"conjugate": turned, "negative": other.imag}, folder / "views.pt")
    done = subprocess.run([PROGRAM, str(folder)], capture_output=True, text=True, cwd=folder)
    print(done.stdout, done.stderr)
    (folder / "said.txt").write_text(done.stdout)
    assert done.returncode == 0
    return folder


@pytest.fixture(scope="module")
def outputs(folder):
    return torch.load(folder / "outputs.pt", weights_only=True)


@pytest.fixture(scope="module")
def said(folder):
    lines = (folder / "said.txt").read_text().splitlines()
    return [line.split(":", 2) for line in lines if line.startswith(("error:", "repr:"))]


def _same(name, outputs, expected):
    found = {key.split("/")[1]: t for key, t in outputs.items() if key.startswith(name + "/")}
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(
            found[key], tensor.detach(), rtol=0, atol=0, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("name", CASES)
def test_function(name, outputs):
    given = {key: t.clone().requires_grad_(t.is_floating_point()) for key, t in INPUTS[name].items()}
    results = CASES[name](**given)
    finite = [r.masked_fill(r.isinf(), 0).double() for r in results]
    sum((f * f.detach().cos()).sum() for f in finite if f.requires_grad).backward()
    expected = {str(i): r for i, r in enumerate(results)}
    expected |= {f"d{key}": t.grad for key, t in given.items() if t.grad is not None}
    assert any(key.startswith("d") for key in expected)
    _same(name, outputs, expected)


@pytest.mark.parametrize("name", WEIGHTED)
def test_module(name, folder, outputs):
    make, train = WEIGHTED[name]
    module = make().train(train)
    module.load_state_dict(torch.load(folder / f"{name}.pt"))
    torch.manual_seed(8)
    out, lse = module(**INPUTS[name], return_lse=True)
    (out.square().sum() + lse.sum()).backward()
    gradients = {key: p.grad for key, p in module.named_parameters()}
    _same(name, outputs, {str(i): t for i, t in enumerate([out, lse, *gradients.values()])})


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_come_back(name, folder):
    there = torch.load(folder / f"{name}.pt")
    back = torch.load(folder / f"{name}.back.pt", weights_only=True)
    assert back.keys() == there.keys()
    assert all(torch.equal(back[key], there[key]) for key in there)
    WEIGHTED[name][0]().load_state_dict(back)


def test_lazily_negated_and_conjugated_tensors(folder, outputs):
    """Their files hold other numbers, and a word that says so."""
    _same("views", outputs, torch.load(folder / "views.pt", weights_only=True))


def test_fresh_weights_agree(folder):
    torch.manual_seed(9)
    mine = nf.NeighborhoodAttention1D(12, 3, 3, num_kv_heads=1).state_dict()
    its = torch.load(folder / "fresh.pt", weights_only=True)
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[key], its[key]) for key in mine)


@pytest.mark.parametrize("name", ERRORS)
def test_error(name, said):
    with pytest.raises((ValueError, NotImplementedError, AssertionError)) as error:
        ERRORS[name]()
    kind = "NotImplementedError" if error.type is NotImplementedError else "ValueError"
    assert [text for what, of, text in said if (what, of) == ("error", name)] == [f"{kind}:{error.value}"]


@pytest.mark.parametrize("name", OF_CPP)
def test_error_of_its_own(name, said):
    (text,) = [text for what, of, text in said if (what, of) == ("error", name)]
    assert OF_CPP[name] in text


def test_representation(said):
    its = {of: text for what, of, text in said if what == "repr"}
    modules = {
        "NA1D": nf.NeighborhoodAttention1D(12, 3, 3),
        "NA2D": nf.NeighborhoodAttention2D(
            16, 4, (3, 5), is_causal=(True, False), num_kv_heads=2, attn_drop=0.2, rel_pos_bias=True,
            backend="cpu",
        ),
        "Attention": nf.Attention(24, 4, False, False, num_kv_heads=2),
    }  # fmt: skip
    for name, module in modules.items():
        assert its[name].startswith(f"nearfield::{type(module).__name__}({module.extra_repr()})")


def test_the_example_learns_and_saves(folder):
    losses = [
        float(line.split()[-1]) for line in (folder / "said.txt").read_text().splitlines() if "loss" in line
    ]
    assert losses[-1] < 0.5 * losses[0]
    nf.NeighborhoodAttention2D(16, 2, 5).load_state_dict(torch.load(folder / "blur.pt"))
