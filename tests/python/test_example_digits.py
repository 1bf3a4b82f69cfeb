# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The digits example on few pictures: it learns, draws, repeats itself, and runs on either import."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nearfield.compat

FOLDER = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def train(monkeypatch):
    """The module train.py, as the script sees its neighbours; all settings come back after the test."""
    for name in ("model", "picture", "train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(FOLDER))
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield importlib.import_module("train")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    nearfield.compat.uninstall("natten")
    for name in ("model", "picture", "train"):
        sys.modules.pop(name, None)


def numbers(runs):
    return [(run.model, run.parameters, run.train_loss, run.test_loss, run.accuracy) for run in runs]


def test_learns_and_draws(train, tmp_path, capsys):
    runs = train.main(["--pictures", "320", "--epochs", "6", "--seeds", "1", "--out", str(tmp_path / "new")])
    shown = capsys.readouterr().out
    for run in runs:
        assert run.model in shown and f"{run.parameters:,}" in shown
        assert len(run.train_loss) == len(run.test_loss) == 6
        assert run.train_loss[-1] < 0.8 * run.train_loss[0], run
    pixels = np.asarray(Image.open(tmp_path / "new" / "digits.png").convert("RGB")).astype(int)
    assert pixels.shape[1] > 800
    for colour in ((0x0B, 0x6F, 0xB8), (0xD9, 0x5F, 0x02)):  # both curves are drawn
        assert (np.abs(pixels - colour).max(-1) < 8).sum() > 200


def test_accuracy_is_that_of_the_test_pictures_after_training_on_the_others(train, monkeypatch):
    """Both models learn most of it in four epochs; what train() reads is counted, and so are the hits."""
    data = train.load_data()
    (pictures, _), (test_pictures, test_labels) = data
    known = {tuple(p.flatten().tolist()) for p in pictures}
    warped, models = train.warped, []

    def watched(batch, generator):
        assert all(tuple(p.flatten().tolist()) in known for p in batch)
        return warped(batch, generator)

    monkeypatch.setattr(train, "warped", watched)
    for build in (train.NeighborhoodTransformer, train.ConvolutionalNet):
        run = train.train("", lambda build=build: models.append(build()) or models[-1], 0, 4, data)
        with torch.no_grad():
            hits = (models[-1].eval()(test_pictures).argmax(1) == test_labels).sum().item()
        assert run.accuracy == pytest.approx(hits / len(test_labels)) and run.accuracy > 0.95, run


def test_attention_is_in_use(train):
    torch.manual_seed(0)
    model = train.NeighborhoodTransformer()
    model(torch.rand(4, 1, 8, 8)).square().sum().backward()
    attention = [p.grad.abs().max() for name, p in model.named_parameters() if "qkv.weight" in name]
    assert len(attention) == 4 and min(attention) > 0


def test_models_are_of_equal_size(train):
    sizes = [
        sum(p.numel() for p in build().parameters())
        for build in (train.NeighborhoodTransformer, train.ConvolutionalNet)
    ]
    assert abs(sizes[0] / sizes[1] - 1) < 0.05


def test_repeats_itself_and_either_import_gives_the_same(train, tmp_path):
    words = ["--pictures", "64", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path)]
    first, again = numbers(train.main(words)), numbers(train.main(words))
    natten = numbers(train.main([*words, "--compat", "natten"]))
    assert first == again == natten


def test_another_seed_is_another_training(train):
    data = train.load_data(32)
    runs = [train.train("", train.NeighborhoodTransformer, seed, 1, data) for seed in (0, 1)]
    assert runs[0].train_loss != runs[1].train_loss


def test_model_file_runs_after_a_change_of_import(train, tmp_path):
    theirs, changes = re.subn(
        "^from nearfield import NeighborhoodAttention2D$",
        "from natten import NeighborhoodAttention2D",
        (FOLDER / "model.py").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert changes == 1
    (tmp_path / "theirs.py").write_text(theirs, encoding="utf-8")
    nearfield.compat.install("natten")
    spec = importlib.util.spec_from_file_location("theirs", tmp_path / "theirs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    pictures, outputs = torch.rand(3, 1, 8, 8), []
    for build in (train.NeighborhoodTransformer, module.NeighborhoodTransformer):
        torch.manual_seed(0)
        model = build()
        logits = model(pictures)
        logits.square().sum().backward()
        outputs.append((logits, *(p.grad for p in model.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_no_test_picture_is_trained_on(train):
    (pictures, labels), (test_pictures, test_labels) = train.load_data()
    assert len(labels) + len(test_labels) == 1797 and len(test_labels) == train.TEST_PICTURES
    distance = torch.cdist(pictures.flatten(1), test_pictures.flatten(1))
    assert distance.min() > 0
    few = train.load_data(100)
    assert torch.equal(few[0][0], pictures[:100]) and torch.equal(few[1][0], test_pictures)


def test_warps_are_small_and_their_own(train):
    pictures = torch.zeros(64, 1, 8, 8)
    pictures[:, :, 3:5, 3:5] = 1.0
    warped = train.warped(pictures, torch.Generator().manual_seed(0))
    assert warped.shape == pictures.shape
    assert warped[:, 0].sum((1, 2)).sub(4).abs().max() < 1.5  # nothing is lost
    assert len({tuple(w.flatten().tolist()) for w in warped}) == 64
    assert warped.mean(0).sub(pictures[0]).abs().max() < 0.5  # to no side


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--epochs", "0"], ["--compat", "torch"]])
def test_wrong_words(train, words):
    with pytest.raises(SystemExit) as exit_:
        train.main(words)
    assert exit_.value.code == 2
