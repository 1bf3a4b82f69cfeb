# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""docs/conformance.md is true: every cell is run again, and says what happened.

After a change that moves a cell: `python tests/python/conformance_table.py --write`.
"""

import functools

import pytest
from conformance_features import FEATURES
from conformance_table import COLUMNS, PAGE, PASSED, backends, outcome, parse, reason, render

_REWRITE = "run `python tests/python/conformance_table.py --write`"


@functools.cache
def _page():
    text = PAGE.read_text(encoding="utf-8")
    return text, parse(text)


@pytest.mark.parametrize("on", backends())
@pytest.mark.parametrize("feature", FEATURES)
def test_row(feature, on):
    for column in COLUMNS:
        found, _ = outcome(feature, on, *column)
        written = _page()[1].get((on, feature, *column))
        assert found == written, (
            f"{feature}, {on}, {column}: {found!r}, the page says {written!r}; {_REWRITE}"
        )


def test_the_page_holds_every_cell_and_nothing_else():
    text, cells = _page()
    expected = {(b, f, *c) for b in backends() for f in FEATURES for c in COLUMNS}
    assert set(cells) == expected and all(cells.values())
    assert text == render(cells), f"the page was edited by hand; {_REWRITE}"


def test_host_backends_serve_everything():
    """A refusal there would be a gap of the library, to be argued for here."""
    refused = {key: cell for key, cell in _page()[1].items() if cell != PASSED and "cuda" not in key[0]}
    assert not refused


def test_reasons_are_the_cores_words():
    text = (
        "[na1d] got backend cpu, expected one that serves na:fwd:f32:b1h1kv1d8:9:k3:bias; cpu: it is Monday"
    )
    assert reason(ValueError(text), "cpu") == "it is Monday"
    assert reason(ValueError("[na1d] got X, expected Y; hint"), "cpu") == "got X, expected Y; hint"
