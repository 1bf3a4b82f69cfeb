# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""transformers' DiNAT, unchanged, on the drop-in for natten: outputs and gradients as with dense masks."""

import itertools
import subprocess
import sys

import pytest
import torch

import nearfield

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def dinat():
    """transformers' module of DiNAT. Whether natten is there was decided when transformers was imported,
    by which time other tests may have run: so it is asked again, by its own function."""
    nearfield.compat.install("natten")
    from transformers.utils import import_utils

    before = import_utils._natten_available
    import_utils._natten_available = import_utils._is_package_available("natten")
    assert import_utils._natten_available
    sys.modules.pop("transformers.models.dinat.modeling_dinat", None)
    from transformers.models.dinat import modeling_dinat

    yield modeling_dinat
    import_utils._natten_available = before
    sys.modules.pop("transformers.models.dinat.modeling_dinat", None)
    nearfield.compat.uninstall("natten")


def _tokens(extent, window, dilation):
    """For each token of an axis, the tokens that it sees, in order: of every dilation-th token the `window`
    nearest, shifted inwards at the borders."""
    rows = []
    for i in range(extent):
        group = list(range(i % dilation, extent, dilation))
        place = group.index(i)
        nearest = min(range(len(group) - window + 1), key=lambda b: abs(b + window // 2 - place))
        rows.append(group[nearest : nearest + window])
    return rows


class Dense:
    """The two operations over all pairs of tokens under a mask: logits [B, H, X, Y, X * Y]."""

    @staticmethod
    def mask_and_bias(layout, rpb, window, dilation):
        mask = torch.zeros(*layout, *layout, dtype=torch.bool)
        rows = [_tokens(n, window, dilation) for n in layout]
        at = torch.zeros(2, *layout, *layout, dtype=torch.long)
        for x, y in itertools.product(*map(range, layout)):
            for u, v in itertools.product(rows[0][x], rows[1][y]):
                mask[x, y, u, v] = True
                at[:, x, y, u, v] = torch.tensor([(u - x) // dilation, (v - y) // dilation]) + window - 1
        return mask.flatten(2), rpb[:, at[0], at[1]].flatten(3)

    @staticmethod
    def qkrpb(query, key, rpb, window, dilation):
        mask, bias = Dense.mask_and_bias(query.shape[2:4], rpb, window, dilation)
        logits = torch.einsum("bhxyd,bhnd->bhxyn", query, key.flatten(2, 3)) + bias
        return logits.masked_fill(~mask, -torch.inf)

    @staticmethod
    def av(weights, value, window, dilation):
        return torch.einsum("bhxyn,bhnd->bhxyd", weights, value.flatten(2, 3))


def _config(dinat, **kwargs):
    return dinat.DinatConfig(
        patch_size=4,
        embed_dim=8,
        depths=[2, 1],
        num_heads=[2, 4],
        kernel_size=3,
        dilations=[[1, 3], [2]],
        mlp_ratio=2.0,
        drop_path_rate=0.0,
        layer_scale_init_value=0.5,
        num_labels=5,
        **kwargs,
    )


def _run(model, pixels, read):
    model.zero_grad()
    out = read(model(pixels))
    weights = [torch.randn(o.shape, generator=torch.Generator().manual_seed(i)) for i, o in enumerate(out)]
    sum((o * w).sum() for o, w in zip(out, weights, strict=True)).backward()
    return [o.detach() for o in out], {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


CASES = {
    "DinatModel": lambda o: [o.last_hidden_state, o.pooler_output],
    "DinatBackbone": lambda o: list(o.feature_maps),
    "DinatForImageClassification": lambda o: [o.logits],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(48, 40), (28, 28)], ids=["whole", "padded"])
def test_model(dinat, monkeypatch, name, size):
    extra = {"out_features": ["stage1", "stage2"]} if name == "DinatBackbone" else {}
    model = getattr(dinat, name)(_config(dinat, **extra))
    with torch.no_grad():
        for parameter in model.parameters():  # biases, norms and rpb begin at constants
            parameter.add_(0.2 * torch.randn_like(parameter))
    pixels = torch.randn(2, 3, *size)
    out, gradients = _run(model, pixels, CASES[name])
    monkeypatch.setattr(dinat, "natten2dqkrpb", Dense.qkrpb)
    monkeypatch.setattr(dinat, "natten2dav", Dense.av)
    expected, expected_gradients = _run(model, pixels, CASES[name])
    for actual, other in zip(out, expected, strict=True):
        torch.testing.assert_close(actual, other, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    assert sum("rpb" in n for n in gradients) == 3
    for n, gradient in gradients.items():
        scale = expected_gradients[n].abs().max().item()
        torch.testing.assert_close(
            gradient,
            expected_gradients[n],
            rtol=1e-3,
            atol=1e-5 * max(scale, 1),
            msg=lambda m, n=n: f"{n}: {m}",
        )
    assert all(g.abs().sum() > 0 for n, g in gradients.items() if "rpb" in n)


def test_imports_from_the_drop_in(dinat):
    assert dinat.natten2dqkrpb is nearfield.compat.natten.functional.natten2dqkrpb
    assert transformers.utils.is_natten_available()


def test_attentions_and_autocast(dinat):
    model = dinat.DinatModel(_config(dinat)).eval()
    pixels = torch.randn(1, 3, 48, 48)
    plain = model(pixels, output_attentions=True)
    assert [tuple(a.shape) for a in plain.attentions] == [(1, 2, 12, 12, 9), (1, 4, 6, 6, 9)]
    for weights in plain.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(pixels).last_hidden_state
    torch.testing.assert_close(half.float(), plain.last_hidden_state, rtol=0.1, atol=0.1)


def test_in_a_fresh_process():
    """Nothing but install() before transformers is imported; drop-ins are loaded on demand."""
    code = (
        "import importlib.util, sys\n"
        "import nearfield, torch\n"
        "assert importlib.util.find_spec('natten') is None\n"
        "assert not any(m.startswith('nearfield.compat.natten') for m in sys.modules)\n"
        "nearfield.compat.install('natten')\n"
        "assert 'nearfield.compat.imaginaire' not in sys.modules\n"
        "from transformers import DinatConfig, DinatModel\n"
        "config = DinatConfig(embed_dim=8, depths=[1], num_heads=[2], kernel_size=3, dilations=[[2]])\n"
        "model = DinatModel(config)\n"
        "model(torch.randn(1, 3, 32, 32)).last_hidden_state.sum().backward()\n"
        "assert all(p.grad is not None for p in model.encoder.parameters())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
