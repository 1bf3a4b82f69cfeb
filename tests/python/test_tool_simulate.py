# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield simulate` counts what the geometry has."""

import json
import math

import pytest
from commands import refused, run

from nearfield import _core
from nearfield.tools import cli, simulate_plot, simulate_sweep

TILES = ["-i", 16, "-f", 3, "--tiles", "q4,kv4"]


def test_simulate_recommends_the_cheapest_that_sees_enough(capsys, tmp_path):
    words = ["-i", 16, 16, "-f", 5, "-n", 1, "-d", 8, "--threads", 1, "--plot", tmp_path / "a.svg"]
    status, out, _ = run(capsys, "simulate", *words)
    assert status == 0 and "recommended: kernel_size=" in out and (tmp_path / "a.svg").stat().st_size > 1000
    rows = [json.loads(x) for x in run(capsys, "simulate", *words[:-2], "--json", "-")[1].splitlines()]
    best = [r for r in rows if r["recommended"]]
    enough = [r for r in rows if r["enough"]]
    assert len(best) == 1 and best[0]["seconds"] == min(r["seconds"] for r in enough)
    for row in rows:
        s, k, field = row["stride"][0], row["window"][0], row["field"][0]
        assert field <= k and row["enough"] == (field >= 5) and (s > 1 or field == k)
        assert k < 5 + s - 1 or row["enough"] or k == 16
        assert row["flops"] == _core.problem(row["problem"])["flops"]


def test_simulate_counts_whole_tiles_of_any_kernel(capsys):
    words = ["-i", 16, 16, "-f", 4, "-s", 1, 4, "--one-sided", "--tiles", "q4x4,kv4x4", "--json", "-"]
    rows = [json.loads(x) for x in run(capsys, "simulate", *words)[1].splitlines()]
    best = next(r for r in rows if r["recommended"])
    assert best["window"] == [4, 4] and best["stride"] == [4, 4] and best["waste"] == 1.0  # blocked attention
    assert all(r["waste"] >= 1 and r["computed"] > 0 and r["seconds"] is None for r in rows)


@pytest.mark.parametrize("tiles", [[], ["q4x4x4,kv4x4x4", "q2x4x8,kv2x4x8"]])
def test_simulate_plots_what_can_be_told_apart(tiles):
    words = ["-i", 8, 16, 24, "-f", 5, 5, 5, "-n", 1, "-d", 8, *(["--tiles", *tiles] if tiles else [])]
    args = cli._parser().parse_args(["simulate", *map(str, words)])
    points = simulate_sweep.sweep(args)
    assert len({p.stride for p in points}) > 20  # so the colour is how many queries share a window
    figure = simulate_plot.figure_of(
        points, simulate_sweep.recommended(points, args), args, lambda p: simulate_sweep.cost(p, args), 125
    )
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) and line.get_ls() == "None"][:-1]
    looks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(looks) == len({(math.prod(p.stride), p.tiles if tiles else "") for p in points}) == len(lines)
    assert sum(len(line.get_xdata()) for line in lines) == len(points)
    figure.canvas.draw()
    legend, data = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert legend.x0 >= data.x1 and legend.y0 >= 0  # beside the data, and whole


def windows(extent, k, s, causal):
    """The keys of every query of one dilation group, by the formulas of docs/semantics.md."""
    for q in range(extent):
        if causal:
            leader = min(q // s * s + s - 1, extent - 1)
            yield q, range(max(leader - (k - 1), 0), q + 1)
        else:
            begin = min(max(min(q // s * s + s // 2, extent - 1) - k // 2, 0), extent - k)
            yield q, range(begin, begin + k)


def field(extent, k, s, d, causal):
    """The largest F of which every query sees what the layout has of the F tokens around it."""
    groups = [list(windows(len(range(g, extent, d)), k, s, causal)) for g in range(d)]

    def seen(f):
        before, behind = (f - 1, 0) if causal else (f // 2, (f - 1) // 2)
        return all(
            max(q - before, 0) in keys and min(q + behind, len(group) - 1) in keys
            for group in groups
            for q, keys in group
        )

    return max(f for f in range(1, k + 1) if seen(f))


@pytest.mark.parametrize("causal", [False, True])
def test_simulate_counts_the_field_that_every_query_sees(causal):
    for extent in range(1, 21):
        for d in range(1, extent + 1):
            for k in range(1, extent // d + 1):
                for s in range(1, k + 1):
                    text = f"na:fwd:f32:b1h1kv1d8:{extent}:k{k}:s{s}:d{d}:c{int(causal)}"
                    assert simulate_sweep.field_of(text, 0, causal, False) == field(
                        extent, k, s, d, causal
                    ), text
                    assert causal or simulate_sweep.field_of(text, 0, causal, True) == k


def test_simulate_gives_the_field_on_every_axis(capsys):
    words = ["-i", 16, 20, "-f", 13, 6, "--dilation", 1, 2, "-c", 0, 1, "-n", 1, "-d", 8, "--json", "-"]
    rows = [json.loads(x) for x in run(capsys, "simulate", *words)[1].splitlines()]
    for row in rows:
        (k0, k1), (s0, s1) = row["window"], row["stride"]
        assert row["field"] == [field(16, k0, s0, 1, False), field(20, k1, s1, 2, True)]
        assert row["enough"] == (row["field"][0] >= 13 and row["field"][1] >= 6)
    assert any(r["window"][0] == 13 and r["stride"][0] == 4 and not r["enough"] for r in rows)
    assert any(r["stride"] == [2, 4] and r["enough"] for r in rows)  # strides get the window that they take


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-i", 16, 16, "-f", 17], "expected 1 to 16"),
        (["-i", 16, 16, "-f", 3, 3, 3], "--field"),
        (["-i", 16, "-f", 3, "-s", 99], "got -s 99, expected strides from 1 to 16 "),
        (["-i", 64, "-f", 13, "-s", 0], "got -s 0, expected strides from 1 to 64 "),
        (["-i", 64, "-f", 13, "-s", 4, 0], "got -s 4 0, expected"),
        (["-i", -64, "-f", 13], "got -i with -64, expected numbers of tokens from 1 on"),
        (["-i", 16, "-f", 3, "--dilation", 17], "got --dilation 17 on an axis of 16, expected 1 to 16"),
        (["-i", 16, "-f", 3, "--tiles", "8,8"], "got --tiles 8,8, expected a qTILE and a kvTILE, such as"),
        (["-i", 16, "-f", 3, "--tiles", "q8"], "got --tiles q8, expected a qTILE and a kvTILE, such as"),
        (["-i", 16, "-f", 3, "--tiles", "q8x8,kv4"], "per axis"),
        ([*TILES, "--budget", 3], "got --budget with --tiles, which counts the forward pass's pairs"),
        ([*TILES, "--backprop"], "got --backprop with --tiles"),
        ([*TILES, "--threads", 2], "got --threads with --tiles"),
        (["-i", 16, "-f", 3, "--budget", 0], "--budget"),
        (["-i", 16, "-f", 3, "--budget", "nan"], "--budget nan"),
        (["-i", 16, "-f", 3, "--threads", 100000], "--threads 100000"),
        (["-i", 16, "-f", 3, "--plot", "a.nope", "-s", 1], "expected a name that ends with"),
        (["-i", 16, "-f", 3, "--plot", "/no/such/folder/a.svg"], "there is no folder"),
        (["-i", 16, "-f", 3, "--csv", "/no/such/folder/a"], "there is no folder"),
    ],
)
def test_simulate_refuses(capsys, words, part):
    assert part in refused(capsys, "simulate", *words)


def test_simulate_fails_when_nothing_fits(capsys):
    status, out, err = run(capsys, "simulate", "-i", 64, "-f", 31, "--budget", 1e-6)
    assert status == 1 and "combinations" in out and "recommended:" not in out
    assert (
        err.startswith("nearfield simulate: got --budget 1e-06 ms, expected about ") and err.count("\n") == 1
    )
    words = ["-i", 64, "-f", 13, "-s", 40, "--json", "-"]
    status, out, _ = run(capsys, "simulate", *words)
    assert status == 0 and json.loads(out.splitlines()[0])["stride"] == [40]  # more than the field
    none = refused(capsys, "simulate", "-i", 7, "-f", 3, "--dilation", 2, "-s", 3)
    assert "the sweep has no combination that gives every query a field of 3" in none


def test_simulate_says_what_is_of_both_passes(capsys):
    words = ["-i", 16, "-f", 3, "-s", 1, "--threads", 1]
    note = "predicted: forward and backward pass together; all else is of the forward pass alone"
    assert note in run(capsys, "simulate", *words, "--backprop")[1]
    assert note not in run(capsys, "simulate", *words)[1]
