# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers of docs/context-parallelism.md are those of the bench; its bench works; the model's laws."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "docs")]
scaling = importlib.import_module("scaling")
make_page = importlib.import_module("make_context_parallelism")


def test_the_page_is_made_of_the_newest_results():
    text = make_page.PAGE.read_text()
    assert make_page.page(text, make_page.newest()) == text, "run python docs/make_context_parallelism.py"


def test_every_measured_row_stands_in_the_results():
    text, results = make_page.PAGE.read_text(), make_page.newest().read_text().splitlines()
    rows = [line for line in text[text.index("\n## Measured\n") :].splitlines() if line.startswith("|")]
    assert len(rows) > 40 and set(rows) <= set(results)


def test_places_and_sections_must_be_the_same(tmp_path):
    """A section that was forgotten, or one without a place, is an error, and the body is replaced whole."""
    results = tmp_path / "x-distributed.md"
    results.write_text("# Title\n\nA machine.\n\n## One\n\n| 1 |\n")
    text = "<!-- results: machine -->\nold\n<!-- end of results -->\n"
    with pytest.raises(ValueError, match="places"):
        make_page.page(text, results)
    made = make_page.page(
        text + "a\n<!-- results: One -->\nold\n\nold\n<!-- end of results -->\nb\n", results
    )
    assert "old" not in made and "A machine. [All of it](../bench/results/x-distributed.md)." in made
    assert made.endswith("a\n<!-- results: One -->\n| 1 |\n<!-- end of results -->\nb\n")


def test_the_table_of_gpus_is_what_the_model_says():
    """Its cheapest problem, for time: the others go the same way."""
    found = list(scaling.rows(scaling.GPU[2:]))
    rows = scaling.table(found).splitlines()[2:]
    results = make_page.newest().read_text().splitlines()
    assert len(rows) == 5 and set(rows) <= set(results)
    # Nobody gains from a rank more than its work, and what heads alone cut loses nothing.
    assert all(0 < efficiency <= 1 + 1e-9 for *_, efficiency, _, _, _ in found)
    assert [e for _, heads, gpus, e, *_ in found if heads == gpus] == pytest.approx([1, 1])


def test_the_agreement_of_many_ranks():
    machine = scaling.Machine(scaling.NVLINK, scaling.COPIES, scaling.INFINIBAND, 8)
    assert machine.agreement(1) == 0
    # In a node and beyond it: one message to each, of the slower link; 2 us of the host for every rank.
    assert machine.agreement(8) == pytest.approx(4e-6 + 7 * 4096 / 450e9 + 16e-6)
    assert machine.agreement(32) == pytest.approx(8e-6 + 31 * 4096 / 50e9 + 64e-6)
    # Digests, three hops in the node of 8 and 7 between 128 of them.
    assert machine.agreement(1024) == pytest.approx(3 * 4e-6 + 7 * 8e-6 + 1024 * 64 / 50e9 + 2048e-6)
    assert machine.agreement(1000) < machine.agreement(1024) < machine.agreement(1025)
    alone = scaling.Machine(scaling.NVLINK, scaling.COPIES)
    assert alone.agreement(64) == pytest.approx(6 * 4e-6 + 64 * 64 / 450e9 + 128e-6)


@pytest.mark.full
def test_the_bench_runs_to_its_end(tmp_path):
    """On tiny problems, with all sections that the page has places for, and bytes that are the halo."""
    out = tmp_path / "2000-01-01-distributed.md"
    command = [sys.executable, ROOT / "bench" / "context_parallel.py", "--quick", "--out", out]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert done.stdout == text and not re.search(r"NOT|nan|inf\b", text)
    assert text.count("the halo") == 4
    assert set(make_page.sections(out)) == set(make_page.sections(make_page.newest()))
