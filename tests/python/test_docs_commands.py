# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The transcripts of the documentation: every `$ nearfield ...` of a console block runs, or of a text block,
in which no line counts as a prompt because it begins with #.

Above a block stands `<!-- transcript -->`: it prints exactly what the page says, or `<!-- transcript of one
machine -->`: times or the processor decide what is printed, so that it only has to succeed and print
something.
"""

import re
import shlex
from pathlib import Path

import pytest

from nearfield.tools import cli

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(<!-- transcript( of one machine)? -->\n)?^```(?:console|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


def commands():
    """(id, command, what it prints or None)."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        for marker, machine, block in BLOCK.findall(page.read_text()):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, says = part.partition("\n")
                if command.startswith("nearfield "):
                    assert marker, f"{page.name}: `{command}` needs a marker that says what is compared"
                    yield pytest.param(command, None if machine else says, id=f"{page.stem}-{command[10:50]}")


@pytest.mark.parametrize("command, says", list(commands()))
def test_transcripts(command, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = cli.main(shlex.split(command)[1:])
    out, err = capsys.readouterr()
    assert status == 0, err
    if says is None:
        assert out.strip()
    else:
        assert [x.rstrip() for x in out.splitlines()] == says.splitlines()
