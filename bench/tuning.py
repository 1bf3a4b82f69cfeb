# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The best settings of a peer, per problem and direction: tried out in one process, kept for the others."""

from __future__ import annotations

import json
from pathlib import Path

from nearfield.tools.measure import seconds
from nearfield.tools.peers import Absent

PATIENCE_S = 10  # for the calls of all settings of a peer on a problem, first calls (compilation) aside


class Settings:
    """{peer: {problem: {direction: setting}}} in a JSON file. A setting with `skip` says why a peer is left
    out from now on."""

    def __init__(self, path: str | None):
        self.path = Path(path) if path else None
        exists = self.path is not None and self.path.exists()
        self.known = json.loads(self.path.read_text()) if exists else {}

    def get(self, peer: str, problem: str, direction: str) -> dict | None:
        return self.known.get(peer, {}).get(problem, {}).get(direction)

    def put(self, peer: str, problem: str, direction: str, setting: dict) -> None:
        self.known.setdefault(peer, {}).setdefault(problem, {})[direction] = setting
        if self.path is not None:
            self.path.write_text(json.dumps(self.known, indent=1))


def best(kind, problem, tensors, directions) -> dict[str, dict]:
    """{direction: setting} of the fastest candidates. Raises Absent."""
    fastest: dict[str, tuple[float, dict]] = {}
    why, spent = None, 0.0
    candidates = kind.candidates(problem)
    for setting in candidates:
        if spent > PATIENCE_S:
            break
        try:
            peer = kind(problem, **setting).load(*tensors)
        except Absent as absent:
            why = absent
            continue
        if len(candidates) == 1:
            return dict.fromkeys(directions, setting)
        for direction in directions:
            call = peer.forward if direction == "fwd" else peer.backward
            call()
            time_s = seconds(call)
            spent += time_s
            if time_s < PATIENCE_S / 10:
                time_s = min(time_s, seconds(call), seconds(call))
            if direction not in fastest or time_s < fastest[direction][0]:
                fastest[direction] = time_s, setting
    if not fastest:
        raise why or Absent("no setting works")
    return {d: setting for d, (_, setting) in fastest.items()}
