# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The commands of `nearfield` do what their help says, and tell a user what was wrong. No times."""

import csv
import io
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

import nearfield as nf
from nearfield import _as_command, _core
from nearfield.tools import (
    cli,
    drawing,
    optimizer,
    profile,
    profile_arguments,
    show,
    simulate,
    simulate_plot,
    tables,
)

SMALL = "na:fwd:f32:b1h2kv1d8:6x7:k3x3"


def run(capsys, *words):
    status = cli.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys, *words):
    """What a command says where it gives up: one line, without a traceback."""
    status, _, err = run(capsys, *words)
    assert status == 1 and err.startswith(f"nearfield {words[0]}: ") and err.count("\n") == 1, err
    return err


# ---- info, explain


def test_info_has_what_a_bug_report_needs(capsys):
    status, out, _ = run(capsys, "info")
    assert status == 0
    for word in (nf.__version__, torch.__version__, _core.info()["cpu_target"], "device class", "processor"):
        assert word in out
    found = json.loads(run(capsys, "info", "--json", "-")[1])
    assert found["nearfield"] == nf.__version__ and all(
        f"backend {b}" in found for b in _core.info()["backends"]
    )


def test_info_comes_with_a_tuner_file_that_cannot_be_read(capsys, monkeypatch):
    words = [sys.executable, "-m", "nearfield", "info", "--json", "-"]
    more = {"NEARFIELD_TUNER": "no_such_file"}
    done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and "[tuner] got NEARFIELD_TUNER=no_such_file" in found["fault"]
    assert found["backend cpu"].startswith("device class") and "no_such_file" in found["variables"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"NEARFIELD_CPU_TARGET": "foo"}, "nearfield: [nearfield] got NEARFIELD_CPU_TARGET=foo, expected"),
        ({"PYTHONPATH": "stopped"}, "nearfield: stopped"),
    ],
)
def test_faults_of_the_import_are_one_line_too(tmp_path, more, says):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    if "PYTHONPATH" in more:
        more = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(nf.__file__).parents[1]}"}
    words = [sys.executable, "-m", "nearfield", "info"]
    done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True)
    assert done.returncode != 0 and done.stderr.startswith(says) and done.stderr.count("\n") == 1


def test_only_the_command_speaks_in_one_line():
    assert _as_command.is_command(["/usr/bin/nearfield", "info"], [])
    assert _as_command.is_command(["-m"], ["python", "-m", "nearfield.profiler", "-i", "8"])
    assert not _as_command.is_command(["-m"], ["python", "-m", "pytest"])
    assert not _as_command.is_command(["train.py", "nearfield"], ["python", "train.py", "nearfield"])
    assert not _as_command.is_command([], [])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("alloc_cpu.cpp: can't allocate memory")])
def test_memory_that_is_not_there_is_one_line(capsys, monkeypatch, error):
    def raises(args):
        raise error

    monkeypatch.setattr(cli.info, "run", raises)
    assert "out of memory" in refused(capsys, "info")


def test_explain_has_every_backend_and_what_is_ignored(capsys):
    status, out, _ = run(capsys, "explain", SMALL, "--schedule", "pp", "--persistent")
    assert status == 0
    assert all(backend in out for backend in _core.info()["backends"])
    assert "it runs on CUDA tensors" in out and "general" in out
    assert "kernel_schedule='pp'" in out and "run_persistent_kernel=True" in out
    rows = [json.loads(x) for x in run(capsys, "explain", SMALL + "@cpu,q4x4", "--json", "-")[1].splitlines()]
    assert [r["query_tile"] for r in rows] == [[4, 4]] and rows[0]["kernel"].startswith("general")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([SMALL + "@cpu/nokernel"], "there is none of this name"),
        ([SMALL, SMALL + "@cuda_sm80"], "it runs on CUDA tensors"),
        ([SMALL, "--device", "cuda"], "it runs on CPU tensors"),
    ],
)
def test_explain_fails_where_nothing_runs_a_problem_and_says_why(capsys, words, part):
    status, out, err = run(capsys, "explain", *words)
    assert status == 1 and part in out and f"nothing runs {words[-1 if '@' in words[-1] else 0]}" in err


def test_explain_in_python_tells_what_has_no_effect():
    assert nf.explain(SMALL) + "  without effect: torch_compile=True\n" == nf.explain(
        SMALL, torch_compile=True
    )
    assert "without effect" not in nf.explain(SMALL, torch_compile=False, kernel_schedule=None)
    with pytest.raises(ValueError, match="expected performance arguments"):
        nf.explain(SMALL, q_tile_shape=(4, 4))
    with pytest.raises(ValueError, match="backward_kv_splits"):
        nf.explain(SMALL, backward_kv_splits=0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["na:fwd"], "problem string"),
        ([SMALL + "@gpu"], "expected one of"),
        ([SMALL, "--threads", 0], "--threads"),
        ([SMALL, "--backward-kv-splits", 0], "backward_kv_splits"),
    ],
)
def test_explain_refuses(capsys, words, part):
    assert part in refused(capsys, "explain", *words)


# ---- tables


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_do_not_break_words_on_narrow_terminals(width):
    columns = (
        "problem",
        "phase",
        ">time",
        ">GFLOP/s",
        ">predicted, 1 thread",
        ">scratch, 2 threads",
        "kernel",
    )
    row = ("na:fwd:f32:b1h2kv2d32:24x24:k7x7", "backward", "~12.3 ms", "123.4", "123 us", "843 KiB", "b16")
    out = io.StringIO()
    console = Console(file=out, width=width)
    for part in tables.table("a title", columns, [row]).parts(width):
        console.print(part)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width and out.getvalue().count("a title") == 1
    for word in (*(c.lstrip(">") for c in columns), *row):
        assert any(word in line for line in lines), word
    heads = [line for line in lines if line.strip().startswith("problem")]
    assert len(heads) == sum(line.strip().startswith(row[0]) for line in lines) and (len(heads) > 1) == (
        width < 120
    )


# ---- profile

QUICK = ("--samples", 1, "--budget", 0.02, "--warmup-steps", 0, "--threads", 1)


def profiled(capsys, *words):
    status, out, err = run(capsys, "profile", *words, *QUICK, "--json", "-")
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_profile_by_the_flags_of_the_peer(capsys):
    words = "-b 2 -n 4 --heads-kv 2 -d 8 --dim-value 16 -i 6 7 -w 3 5 -s 1 2 --dilation 2 1 -c False True"
    words = [*words.split(), "--backprop", "--add-kv", 3, "--dtype", "fp32"]
    words += ["--backend", "hopper-fna", "--optimize-warmup-steps", 1]
    rows = profiled(capsys, *words)
    assert [r["direction"] for r in rows] == ["fwd", "bwd"]
    for row in rows:
        text = f"na:{row['direction']}:f32:b2h4kv2d8v16:6x7:k3x5:s1x2:d2x1:c01:add=3"
        assert row["problem"] == _core.problem(text)["problem"]
        assert 0 < row["error"] < 1e-5 and row["error_of"] == "all"
        assert row["seconds"] > 0 and row["flops"] == _core.problem(row["problem"])["flops"]
        assert 0 < row["share_of_peak"] < 1.5 and row["waste"] >= 1 and row["scratch_bytes"] > 0


@pytest.mark.parametrize(
    "word, value", [("False", "0"), ("True", "1"), ("0", "0"), ("no", "0"), ("yes", "1")]
)
def test_causal_means_what_it_says(capsys, word, value):
    parser = cli._parser()
    args = parser.parse_args(["profile", "-i", "8", "-w", "3", "-c", word])
    assert profile_arguments.problem_of(args).endswith(f":c{value}")


@pytest.mark.parametrize(
    "problem",
    [
        "att:bwd:f32:b1h2kv1d8v4:9,12+7,5:cbr:tail=2,1",
        "na:fwd:f32:b1h2kv2d8:4x5+5x5:k3x3",
        "na:fwd:f32:b1h1kv1d4:" + "+".join(f"4x{n}" for n in range(3, 90)) + ":k3x3",  # no name of a file
        "na:bwd:f32:b1h2kv1d8:7x7:k3x3:add=3:bias",
        "na:bwd:f64:b1h1kv1d4:9:k5:lse:scale=0.3",
        "na:fwd:f32:b1h1kv1d8:20:k5:qgrid=5",
        "na:fwd:bf16:b1h2kv2d16:24:k5:prec=bf16",
        SMALL + "@cpu/general",
        SMALL + "@cpu,q2x8",
        SMALL + "@reference",
    ],
)
def test_profile_runs_any_problem_that_python_can_call(capsys, problem):
    row = profiled(capsys, problem)[0]
    assert row["problem"] == problem and 0 <= row["error"] < (2e-2 if "bf16" in problem else 1e-5)


def test_profile_compares_with_peers_and_says_who_is_missing(capsys, tmp_path):
    words = [
        "na:bwd:f32:b1h2kv2d8:6x7:k3x3",
        SMALL.replace("k3", "k3") + ":add=2",
        "--compare",
        "sdpa,masked-sdpa,flex",
    ]
    backward, more = profiled(capsys, *words)
    assert set(backward["peers"]) == {"sdpa", "masked-sdpa"} and "backward" in backward["absent"]["flex"]
    assert more["peers"] == {} and set(more["absent"]) == {"sdpa", "masked-sdpa", "flex"}
    words = [
        SMALL,
        "na:bwd:f32:b1h2kv1d8:6x7:k3x3",
        *QUICK,
        "--compare",
        "sdpa",
        "--csv",
        tmp_path / "rows.csv",
    ]
    status, out, _ = run(capsys, "profile", *words)
    assert status == 0 and "x sdpa" in out and "both" in out and f"nearfield profile {SMALL}" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [r["direction"] for r in rows] == ["fwd", "bwd"] and float(rows[0]["seconds"]) > 0


def test_profile_after_compare_stands_a_problem():
    for words in (["--compare", SMALL], [SMALL, "--compare"]):
        args = cli._parser().parse_args(["profile", *words])
        assert profile_arguments.calls_of(args)[0] == [SMALL] and args.compare == "sdpa,flex"


def test_profile_knows_the_whole_axis_and_both_passes(capsys):
    rows = profiled(capsys, "-i", 6, 7, "-w", -1, 3, "-d", 8)
    assert [r["problem"] for r in rows] == ["na:fwd:f32:b1h1kv1d8:6x7:k6x3"]
    rows = profiled(capsys, SMALL, "--backprop")
    assert [r["problem"] for r in rows] == [SMALL, SMALL.replace("fwd", "bwd")]


def test_profile_says_how_to_repeat_a_row(capsys, monkeypatch):
    """With the kernel that --optimize chose, and the threads."""
    line = optimizer.Line(SMALL, "cpu/m16", "cpu/b16", 1.0, 2.0, SMALL, 1, 2)
    monkeypatch.setattr(profile.optimizer, "search", lambda *rest, **more: [line])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    words = ["-i", 6, 7, "-w", 3, "-n", 2, "-d", 8, "--heads-kv", 1, "--optimize", "--backward-q-tile", 2, 2]
    status, out, err = run(capsys, "profile", *words, *QUICK, "--warmup-steps", 10**11)
    assert status == 0, err
    assert f"nearfield profile {SMALL}@cpu/m16 --threads 1\n" in out and "cpu m16" in out
    assert "tiles of the backward pass have no effect" in out


def test_profile_dry_run_lists_what_could_run(capsys):
    status, out, _ = run(capsys, "profile", SMALL, "--dry-run", "--max-configs", 2)
    assert status == 0 and "more: --max-configs 0" in out
    status, out, _ = run(capsys, "profile", SMALL, "--dry-run", "--max-configs", 0)
    assert status == 0 and f"{SMALL}@cpu/general" in out and f"{SMALL}@cpu,q4x4" in out and "more:" not in out


def test_profile_reads_traces_and_bench_files(capsys, tmp_path):
    file = tmp_path / "trace.txt"
    file.write_text(f"# a comment\nt1 {SMALL}\nt1 {SMALL}\nt2 att:fwd:f32:b1h1kv1d8:9,9\n")
    assert [r["problem"] for r in profiled(capsys, file)] == [SMALL, "att:fwd:f32:b1h1kv1d8:9,9"]
    file.write_text("t1\n")
    assert "expected NAME PROBLEM" in refused(capsys, "profile", file)
    file.write_text("")
    assert "at least one problem" in refused(capsys, "profile", file)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "expected problem strings, or -i"),
        ([SMALL, "-i", 8], "and not both"),
        (["-i", 8, 8, "-w", 3, 3, 3], "one per axis"),
        (["-i", 8, 8, 8, 8], "1 to 3"),
        (["-i", 8, "-w", 9], "largest legal kernel_size"),
        (["-i", 8, 8, "-w", 3, "--q-tile", 64, 64], "at most 16 tokens"),
        (["-i", 8, 8, "-w", 3, "--q-tile", 4], "--q-tile"),
        (["-i", 8, "--backend", "gpu"], "expected one of"),
        (["-i", 8, "--samples", 0], "--samples"),
        (["-i", 8, "--dry-run", "--optimize"], "expected one of them"),
        ([SMALL, "--compare", "x"], "expected some of sdpa"),
        (["-i", 9999999, 9999, "-w", 7], "of memory"),
        (["-i", 10, "--budget", "nan"], "--budget nan"),
        (["-i", 10, "--budget", "inf"], "--budget inf"),
        ([SMALL + ":q=0-2x0-7"], "nearfield-bench"),
        (["att:fwd:f32:b1h1kv1d8:var=4,100,120,40,50"], "offsets known only on the device"),
        (["no_such_file"], "got 'no_such_file', expected a problem string such as na:fwd"),
        ([""], "expected a problem string such as na:fwd"),
        ([SMALL, "-w", 3, "--add-kv", 2], "a problem string and --window-size, --add-kv"),
        ([SMALL, "--json", "/no/such/folder/a"], "there is no folder"),
        ([SMALL, "--csv", "."], "it is a folder"),
    ],
)
def test_profile_refuses(capsys, words, part):
    assert part in refused(capsys, "profile", *words)


# ---- show


def drawn(problem, **more):
    return show.draw(problem, **more).panels


@pytest.mark.parametrize("problem", ["12:k5:s2", "6x9:k3x5:s1x3:c01", "4x5x6:k2x3x4:d2x1x1", "10:k3:d3"])
def test_pictures_are_what_the_operation_does(problem):
    """Where every value is a unit vector of its own, the output of a query is its row of the mask."""
    text = f"na:fwd:f32:b1h1kv1d4:{problem}"
    axes = _core.problem(text)["fields"]["layouts"][0]
    extent, n = axes["extent"], torch.Size(axes["extent"]).numel()
    function = (nf.na1d, nf.na2d, nf.na3d)[len(extent) - 1]
    q = torch.zeros(1, *extent, 1, 4)
    window = tuple(axes["window"]), tuple(axes["stride"]), tuple(axes["dilation"])
    eye = torch.eye(n).reshape(1, *extent, 1, n)
    seen = (
        function(q, q, eye, *window, tuple(map(bool, axes["causal"])), backend="reference").reshape(n, n) > 0
    )
    assert drawn(text, of="mask")[0].rows == [
        "".join("#" if x else "." for x in row) for row in seen.tolist()
    ]
    for query in (0, n // 2, n - 1):
        place = [int(i) for i in torch.unravel_index(torch.tensor(query), extent)]
        cells = "".join(row for panel in drawn(text, query=place) for row in panel.rows)
        keys = seen[query]
        assert cells[query] == "Q"
        assert all((c in "#oQ") >= k for c, k in zip(cells, keys.tolist(), strict=True))
        same = (seen == keys).all(1)
        assert [c in "oQ" for c in cells] == same.tolist()
        assert [c == "#" for c in cells] == (keys & ~same).tolist()


def test_pictures_of_shards_are_those_of_the_plan():
    text, mesh = "na:fwd:f32:b1h1kv1d4:8x12:k3x5", {"of": "shards", "mesh": [2, 2]}
    rows = drawn(text, **mesh)[0].rows
    assert rows == ["AAAAAABBBBBB"] * 4 + ["CCCCCCDDDDDD"] * 4
    rows = drawn(text, rank=0, **mesh)[0].rows
    assert rows[:3] == ["####++BB...."] * 3 and rows[3] == "++++++BB...." and rows[4] == "CCCCCCDD...."
    assert rows[5:] == ["............"] * 3
    assert drawn(text, of="shards", mesh=[3], cut=[1])[0].rows == ["AAAABBBBCCCC"] * 8


def test_pictures_of_tiles_cover_the_mask():
    text = "na:fwd:f32:b1h1kv1d4:8x9:k3x5@cpu,q2x3,kv4x3"
    mask = drawn("na:fwd:f32:b1h1kv1d4:8x9:k3x5", of="mask")[0].rows
    rows = drawn(text, of="tiles")[0].rows
    tiles = (
        [(y, x) for y in range(0, 8, 2) for x in range(0, 9, 3)],
        [(y, x) for y in (0, 4) for x in (0, 3, 6)],
    )
    for row, (qy, qx) in zip(rows, tiles[0], strict=True):
        for mark, (ky, kx) in zip(row, tiles[1], strict=True):
            pairs = [
                mask[(qy + a) * 9 + qx + b][(ky + c) * 9 + kx + d]
                for a in range(2)
                for b in range(3)
                for c in range(4)
                for d in range(3)
            ]
            assert (
                mark == ("#" if set(pairs) == {"#"} else "." if set(pairs) == {"."} else "+") or mark == "+"
            )
    around = "".join(drawn(text, of="tile", query=[4, 4])[0].rows)
    assert around.count("Q") == 6 and set(around) <= set("Q+#.")


@pytest.mark.parametrize(
    "problem", ["24:k7@cpu,q4,kv4", "23:k5:s2@cpu,q4,kv3", "7x11:k3x3:d2x3@cpu,q2x2,kv2x3", "9x8:k3x5"]
)
def test_pairs_of_tiles_are_those_of_the_layout(problem):
    """Counted token by token: a pair counts where the tiles that its query and its key are in see each other,
    and they are in one dilation group."""
    call = f"na:fwd:f32:b1h1kv1d8:{problem}"
    axes = _core.problem(call.partition("@")[0])["fields"]["layouts"][0]
    found = _core.tiles(call)
    d, tiles = axes["dilation"], (found["query_tile"], found["key_tile"])
    tokens = list(itertools.product(*map(range, axes["extent"])))

    def tile(token, side):
        return tuple((t % n, t // n // size) for t, n, size in zip(token, d, tiles[side], strict=True))

    mask = show.draw(call.partition("@")[0], of="mask").panels[0].rows
    pairs = [(q, k, mask[i][j] == "#") for i, q in enumerate(tokens) for j, k in enumerate(tokens)]
    seen = {(tile(q, 0), tile(k, 1)) for q, k, sees in pairs if sees}
    computed = sum((tile(q, 0), tile(k, 1)) in seen for q, k, _ in pairs)
    useful = sum(sees for _, _, sees in pairs)
    notes = show.draw(call, of="tiles").notes
    assert f"the tiles that are not skipped have {computed / useful:.2f} pairs for each useful one" in notes
    chosen = [a for a in _core.plan(call) if a["chosen"]]  # none where no kernel takes these tiles
    said = [f"of cpu computes {a['waste']:.2f}" for a in chosen]
    assert [note[note.index("of cpu") :] for note in notes if note.startswith("kernel ")] == said


@pytest.mark.parametrize("kind", ["svg", "png", "txt"])
@pytest.mark.parametrize("of", ["window", "mask", "tiles", "tile"])
def test_pictures_are_written(capsys, tmp_path, of, kind):
    file = tmp_path / f"a.{kind}"
    problem = "na:fwd:f32:b1h1kv1d4:3x6x6:k3x3x3@cpu,q1x2x2,kv1x2x2"
    assert run(capsys, "show", problem, "--of", of, "-o", file)[0] == 0
    data = file.read_bytes()
    assert data.startswith({"svg": b"<svg", "png": b"\x89PNG", "txt": b"na:fwd"}[kind]) and len(data) > 300


def test_show_prints(capsys):
    status, out, _ = run(capsys, "show", "na:fwd:f32:b1h1kv1d8:5x6:k3x3", "-q", 0, 5)
    assert status == 0 and "...#oQ\n...#oo\n...###\n......" in out and "query 0 5 sees 9 keys" in out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["na:fwd"], "problem string"),
        ([SMALL.replace("6x7", "2000000000x2000000000")], "[problem string] got layouts of 4e+18 tokens"),
        ([SMALL, "-q", 6, 0], "expected a place in the layout"),
        ([SMALL, "-q", 1], "expected a place in the layout"),
        ([SMALL, "--sequence", 1], "--sequence"),
        ([SMALL + ":q=0-2x0-7"], "part of a layout"),
        ([SMALL, "-o", "a.gif"], "expected a name that ends with"),
        ([SMALL, "-o", "/no/such/folder/a.svg"], "cannot write"),
        ([SMALL.replace("6x7", "60x70"), "--of", "mask"], "too many for a mask"),
        (["na:fwd:f32:b1h1kv1d8:400:k3"], "--out"),
        ([SMALL + "@reference", "--of", "tiles"], "works in tiles"),
        ([SMALL.replace("6x7", "100000x100000")], "10000000000 tokens are too many for a picture"),
        ([SMALL, "--mesh", 2], "expected --of shards"),
        ([SMALL, "--of", "tile", "--rank", 0], "expected --of shards"),
        ([SMALL, "--of", "mask", "-q", 1, 1], "expected --of window or --of tile"),
        ([SMALL, "--of", "shards"], "expected --mesh"),
        ([SMALL, "--of", "shards", "--mesh", 2, "--cut", 5], "shard_dims"),
        ([SMALL, "--of", "shards", "--mesh", 2, "--rank", 2], "--rank 2"),
        (["att:fwd:f32:b1h1kv1d8:8,8", "--of", "shards", "--mesh", 2], "none that ShardPlan cuts"),
    ],
)
def test_show_refuses(capsys, words, part):
    assert part in refused(capsys, "show", *words)


def test_without_matplotlib_it_says_what_to_install():
    with pytest.raises(drawing.CommandError, match="nearfield\\[plot\\]"), drawing.needs_matplotlib():
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")


# ---- simulate


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
    points = simulate.sweep(args)
    assert len({p.stride for p in points}) > 20  # so the colour is how many queries share a window
    figure = simulate_plot.figure_of(
        points, simulate.recommended(points, args), args, lambda p: simulate.cost(p, args), 125
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
                    assert simulate._field(text, 0, causal, False) == field(extent, k, s, d, causal), text
                    assert causal or simulate._field(text, 0, causal, True) == k


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
        (["-i", 16, "-f", 3, "-s", 99], "-s [99]"),
        (["-i", 16, "-f", 3, "--tiles", "8,8"], "qTILE or kvTILE"),
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


def test_simulate_says_when_nothing_fits(capsys):
    status, out, _ = run(capsys, "simulate", "-i", 64, "-f", 31, "--budget", 1e-6)
    assert status == 0 and "none that the budget has room for" in out
