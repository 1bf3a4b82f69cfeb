# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield demo` does what its help says, on its own inputs, on a user's, and on what is no picture."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from nearfield.tools import cli

# ------------------------------------------------------------------------------------------------
# The command


def scene(shape):
    """Noise on two flat regions, about 0 to 1."""
    clean = 0.25 + 0.5 * (np.indices(shape)[0] > shape[0] // 2)
    return clean + np.random.default_rng(0).normal(0, 0.1, shape)


def picture(path, mode="L", size=(36, 30)):
    pixels = np.clip(scene((size[1], size[0], 3)) * 255, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def run_demo(capsys, *words):
    status = cli.main(["demo", *map(str, words)])
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    "name, mode", [("grey.png", "L"), ("p.gif", "P"), ("a.png", "RGBA"), ("c.jpg", "RGB")]
)
def test_own_picture(tmp_path, capsys, name, mode):
    file = picture(tmp_path / name, mode)
    before = file.read_bytes()
    status, out, _ = run_demo(capsys, "--image", file, "--out", tmp_path, "--sigma", "0.2")
    assert status == 0
    for word in ("nearfield na2d", "scikit-image, fast", "scikit-image, slow", "torch, dense", "30x36"):
        assert word in out, out
    assert file.read_bytes() == before  # although --out is where it lies
    stem = tmp_path / name.partition(".")[0]
    assert Image.open(f"{stem}-comparison.png").size[0] > 1000
    denoised = Image.open(f"{stem}-denoised.png")
    assert denoised.size == (36, 30) and denoised.mode == ("L" if mode == "L" else "RGB")


def test_sixteen_bits(tmp_path, capsys):
    file = tmp_path / "deep.png"
    Image.fromarray((np.clip(scene((24, 25)), 0, 1) * 65535).astype(np.uint16)).save(file)
    assert run_demo(capsys, "--image", file, "--out", tmp_path)[0] == 0
    shown = np.asarray(Image.open(tmp_path / "deep-denoised.png"))
    assert 0.2 * 255 < shown.mean() < 0.8 * 255


def test_as_it_is(tmp_path, capsys):
    file = picture(tmp_path / "own.png")
    status, out, _ = run_demo(capsys, "--image", file, "--no-noise", "--out", tmp_path / "new" / "folder")
    assert status == 0 and "no PSNR" in out
    assert (tmp_path / "new" / "folder" / "own-denoised.png").exists()


def test_large_pictures_shrink(tmp_path, capsys):
    file = picture(tmp_path / "large.png", size=(80, 60))
    arguments = ("--image", file, "--out", tmp_path, "--max-side")
    assert "30x40" in run_demo(capsys, *arguments, 40)[1]
    assert "60x80" in run_demo(capsys, *arguments, 0)[1]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("none.png", None, "none.png does not exist"),
        (".", None, "is a folder, expected a picture"),
        ("text.png", b"not a picture", "text.png is no picture"),
        ("cut.png", b"\x89PNG\r\n\x1a\n", "cut.png"),
    ],
)
def test_no_picture(tmp_path, capsys, name, content, message):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    status, out, err = run_demo(capsys, "--image", file, "--out", tmp_path / "out")
    assert status == 1 and out == "" and err.startswith("nearfield demo: ") and message in err
    assert err.count("\n") == 1


def test_pictures_without_use(tmp_path, capsys):
    small = picture(tmp_path / "small.png", size=(30, 10))
    assert "30 x 10 pixels, expected at least 11" in run_demo(capsys, "--image", small)[2]
    flat = tmp_path / "flat.png"
    Image.new("L", (20, 20), 90).save(flat)
    assert "has no noise" in run_demo(capsys, "--image", flat, "--no-noise")[2]
    own = picture(tmp_path / "own.png")
    (tmp_path / "file").touch()
    assert "cannot make the folder" in run_demo(capsys, "--image", own, "--out", tmp_path / "file")[2]
    assert (
        "cannot make the folder"
        in run_demo(
            capsys, "--image", own, "--out", tmp_path, "--overview", tmp_path / "file" / "overview.png"
        )[2]
    )
    assert "cannot write" in run_demo(capsys, "--image", own, "--out", tmp_path, "--overview", tmp_path)[2]
    assert "add --image" in run_demo(capsys, "--no-noise")[2]


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "COMMAND"),
        (["paint"], "invalid choice"),
        (["demo", "--sigma", "0"], "from 0.001 to 1"),
        (["demo", "--sigma", "nan"], "from 0.001 to 1"),
        (["demo", "--sigma", "x"], "'x'"),
        (["demo", "--max-side", "-1"], "whole number"),
        (["demo", "--no-noise", "--sigma", "0.1"], "not allowed with"),
    ],
)
def test_wrong_words(capsys, words, message):
    with pytest.raises(SystemExit) as exit_:
        cli.main(words)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_without_the_packages_of_the_demo(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("nearfield.tools.demo")]:
        monkeypatch.delitem(sys.modules, module)
    import nearfield.tools

    monkeypatch.delattr(nearfield.tools, "demo", raising=False)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    status, _, err = run_demo(capsys)
    assert status == 1 and "nibabel" in err and "pip install '.[demo]'" in err


def test_module_is_the_command():
    words = [sys.executable, "-m", "nearfield", "demo", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "usage: nearfield demo" in shown.stdout and "--image FILE" in shown.stdout


# ------------------------------------------------------------------------------------------------
# The demo's own inputs


@pytest.fixture(scope="module")
def inputs():
    from nearfield.tools.demo_inputs import builtin_inputs

    return {source.name: source for source in builtin_inputs() if not source.is_part}


def test_inputs_are_noised_as_they_say(inputs):
    assert set(inputs) == {"camera", "cat", "MRI"}
    for source in inputs.values():
        assert source.noisy.dtype == source.clean.dtype == np.float32
        noise = source.noisy - source.clean
        assert noise.std() == pytest.approx(source.sigma, rel=0.02)
        assert abs(noise.mean()) < 5 * source.sigma / np.sqrt(noise.size)


def test_noise_follows_the_seed():
    from nearfield.tools.demo_inputs import builtin_inputs

    first, again, other = (builtin_inputs(seed=seed)[0].noisy for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["camera", "cat"])
def test_noise_is_estimated(inputs, name):
    from nearfield.tools.demo_inputs import estimate_sigma

    assert estimate_sigma(inputs[name].noisy) == pytest.approx(inputs[name].sigma, rel=0.1)


@pytest.mark.parametrize(
    "name, box, setting",
    [
        ("camera", np.s_[90:154, 200:264], (11, 1)),
        ("cat", np.s_[80:128, 120:184], (11, 1)),
        ("MRI", np.s_[48:64, 40:56, 4:16], (5, 1)),
        ("camera", np.s_[90:154, 200:264], (11, 2)),
        ("MRI", np.s_[48:64, 40:56, 4:16], (5, 2)),
    ],
)
def test_methods_agree(inputs, name, box, setting):
    from nearfield.tools import demo, demo_methods

    source = inputs[name].part(box, (setting,))
    results = {result.method: result for result in demo_methods.planned(source)}
    for result in results.values():
        demo_methods.run(result)
    ours = next(result for result in results.values() if result.is_ours)
    dense = results[demo_methods.kDense]
    assert np.abs(ours.pixels - dense.pixels).max() < 1e-4  # both float32, sigma as in the demo
    assert ours.psnr > demo_methods.psnr(source.clean, source.noisy) + 2.5
    if setting[1] == 1:
        assert ours.psnr > results[demo_methods.kSlow].psnr - 1.0
        assert ours.psnr > results[demo_methods.kFast].psnr - 1.0
    assert ours.method in str([column._cells for column in demo.results_table(results.values()).columns])


def test_dense_attention_is_refused_where_it_would_not_fit(inputs):
    from nearfield.tools.demo_methods import kDense, planned

    dense = [result for result in planned(inputs["camera"]) if result.method == kDense]
    assert len(dense) == 1 and dense[0].note == "needs 344 GB"  # 512^4 (1 + 4) bytes


def test_pictures_of_all_kinds(inputs, tmp_path):
    from rich.console import Console

    from nearfield.tools import demo

    small = [
        inputs["camera"].part(np.s_[:40, :40], ((11, 1),)),
        inputs["cat"].part(np.s_[:40, :30], ((11, 1),)),
        inputs["MRI"].part(np.s_[40:56, 40:56, 8:16], ((5, 1),)),
    ]
    small = [dataclasses.replace(s, is_part=False, name=str(i)) for i, s in enumerate(small)]
    results = demo.denoise_all(small, Console(quiet=True))
    written = demo.write_pictures(small, results, tmp_path)
    written.append(demo.write_overview(small, results, tmp_path / "overview.png"))
    assert len(written) == 4
    for path in written:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[1] > 800 and pixels.std() > 20  # something is drawn
    assert written[-1].stat().st_size < 400_000
