# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield show` draws what the operations do."""

import itertools
import math
import re

import pytest
import torch
from commands import SMALL, refused, run

import nearfield as nf
from nearfield import _core
from nearfield.distributed import ShardPlan
from nearfield.tools import drawing, show


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


@pytest.mark.parametrize("mesh", [[4, 4], [60], [3, 20], [7, 8]])
def test_no_two_ranks_look_alike(mesh, tmp_path):
    text, ranks = "na:fwd:f32:b1h1kv1d4:60x60:k3x3", math.prod(mesh)
    picture = show.draw(text, of="shards", mesh=mesh)
    assert [what for _, what in picture.legend.values()] == [f"rank {r}" for r in range(ranks)]
    assert len({color for color, _ in picture.legend.values()}) == ranks
    rows = picture.panels[0].rows
    plan = ShardPlan((60, 60), 3, mesh_shape=tuple(mesh), shard_dims=tuple(range(len(mesh))))
    for mark, (_, what) in picture.legend.items():
        (top, bottom), (left, right) = plan.slab(int(what.split()[1]))
        assert {row[left:right] for row in rows[top:bottom]} == {mark * (right - left)}
    around = show.draw(text, of="shards", mesh=mesh, rank=ranks // 2)
    for mark, (color, what) in around.legend.items():
        if what.startswith("keys from rank"):  # by the name that it has in the other picture
            assert picture.legend[mark] == (color, what.removeprefix("keys from "))
    picture.save(str(tmp_path / "a.svg"))
    words = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())
    assert "A" in words and "A: rank 0" in words


def test_pictures_of_more_ranks_than_letters(capsys):
    text, mesh = "na:fwd:f32:b1h1kv1d4:90x90:k3x3", {"of": "shards", "mesh": [8, 9]}
    with pytest.raises(show.CommandError, match="got 72 ranks, expected at most 62"):
        show.draw(text, **mesh)
    said = [what for _, what in show.draw(text, rank=70, **mesh).legend.values()][:-3]
    assert sorted(said) == [f"keys from rank {r}" for r in (60, 61, 62, 69, 71)]
    idle = show.draw("na:fwd:f32:b1h1kv1d4:12x12:k3x3", of="shards", mesh=[80])
    assert len(idle.legend) == 12 and idle.notes == ["mesh 80; 68 of its ranks hold no tokens"]


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


def test_notes_say_what_runs_the_tiles():
    packed = "na:fwd:f32:b1h8kv8d64:64x64+12x12+1x300:k7x7+3x3+1x5"
    kernel = next(a for a in _core.plan(packed) if a["chosen"])["kernel"]
    assert kernel.count("(") > 1  # kernels of several names
    notes = "\n".join(show.draw(packed, of="tiles", sequence=1).notes)
    assert f"kernels {kernel.rpartition(', ')[0]} of cpu compute " in notes
    assert " in all sequences together" in notes
    foreign = show.draw(SMALL + "@cpu,q8x8,kv8x8", of="tile").notes
    assert any(note.startswith("no kernel here runs these tiles: cpu: query tile 8x8 is") for note in foreign)
    assert "no kernel" not in "".join(show.draw(SMALL + "@cpu,q4x4", of="tiles").notes)


@pytest.mark.parametrize("of", ["window", "mask", "tiles", "tile", "shards"])
def test_what_stands_behind_the_problem_counts_in_every_picture(capsys, of):
    words = ["--of", of, *(["--mesh", 2] if of == "shards" else [])]
    assert "got backend `foo`, expected one of" in refused(capsys, "show", SMALL + "@foo", *words)
    if of in ("tiles", "tile"):
        assert "query tile 99x99 is" in refused(capsys, "show", SMALL + "@cpu,q99x99", *words)
        return
    _, out, _ = run(capsys, "show", SMALL + "@cpu,q99x99", *words)
    assert "nothing here runs @cpu,q99x99: cpu: query tile 99x99 is none it can use" in out
    assert "nothing here" not in run(capsys, "show", SMALL + "@cpu/b16", *words)[1]


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


def test_long_sequences_are_broken_into_rows(capsys, tmp_path):
    text = "na:fwd:f32:b1h1kv1d8:2000:k31"
    panel = drawn(text, query=[1000])[0]
    assert "".join(panel.rows) == "." * 985 + "#" * 15 + "Q" + "#" * 15 + "." * 984
    assert {len(row) for row in panel.rows[:-1]} == {64} and panel.labels[1:3] == ["64", "128"]
    out = run(capsys, "show", text)[1]
    assert "\n 960 " + "." * 25 + "#" * 15 + "Q" + "#" * 15 + "." * 8 + "\n" in out
    assert drawn(text.replace("2000", "100"))[0].labels == []  # fits in one
    status, _, _ = run(capsys, "show", text, "-o", tmp_path / "a.svg")
    picture = (tmp_path / "a.svg").read_text()
    assert status == 0 and ">960</text>" in picture
    width, height = (float(re.search(f'{side}="([0-9.]+)"', picture)[1]) for side in ("width", "height"))
    assert 400 < width < 1200 and 400 < height < 1200
    assert "h13v13" in picture  # cells that can be seen


def test_words_fit_into_pictures(tmp_path):
    packed = "+".join(f"{n}x{n + 3}" for n in range(8, 40))
    show.draw(f"na:fwd:f32:b1h8kv8d64:{packed}:k7x7").save(str(tmp_path / "a.svg"))
    picture = (tmp_path / "a.svg").read_text()
    width = float(re.search('width="([0-9.]+)"', picture)[1])
    found = re.findall(r'<text x="([0-9.]+)" y="[0-9.]+"( font-weight="bold")?>([^<]*)<', picture)
    lines = [(float(x), bold, words) for x, bold, words in found]
    assert sum(bool(bold) for _, bold, _ in lines) > 2  # the heading is broken into lines
    assert "".join(w for _, b, w in lines if b).startswith("na:fwd:f32:b1h8kv8d64:" + packed)
    # Letters of DejaVu Sans, among the widest of what a browser may choose.
    assert all(x + len(words) * (8.4 if bold else 7) < width for x, bold, words in lines)


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
        (["na:fwd:f32:b1h1kv1d8:3x400:k3x3"], "--out"),
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
