# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What every sharded call does first: each rank tells all others what it was called with.

The message has one length whatever it says, so ranks that disagree about the call still understand each
other, and all of them raise the same error. The texts are small and compared as bytes; what follows from
them is computed once and cached.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections import Counter

import torch

from ._team import Team

_LENGTH = 4096  # bytes; more than any call says
_HEADER = 24  # its own length, whether it is an error, a seed
_PAIRWISE = 32  # ranks up to which messages go from each to each, so that a missing one has a name


def agree(team: Team, common: dict, own: dict, seed: int = 0, device=None) -> tuple[tuple[bytes, ...], int]:
    """(what every rank said, rank 0's seed), after a check that all ranks said the same in `common`.

    common: names and values (JSON) that must be equal on all ranks; own: what may differ.

    Raises:
        ValueError: on every rank, naming the rank and what differed.
        PeerError: a rank does not answer.
    """
    order = zlib.crc32(repr(team.members).encode())  # two ranks of one group may order its ranks differently
    common = {"op": team.op, "order of the ranks": order, **common}
    text = json.dumps([common, own], separators=(",", ":")).encode()
    said, seeds = _tell(team, text, False, seed, device)
    _compare(team.op, said)
    return said, seeds[0]


def refuse(team: Team, error: Exception, device=None) -> None:
    """Tells all other ranks that this one cannot make the call; they raise too. The error is the caller's to
    raise here."""
    _tell(team, str(error).encode(), True, 0, device)


def said_by(said: tuple[bytes, ...]) -> list[tuple[dict, dict]]:
    """(common, own) of every rank."""
    return [tuple(json.loads(text)) for text in said]


def _tell(team: Team, text: bytes, is_error: bool, seed: int, device):
    if len(text) > _LENGTH - _HEADER:
        if not is_error:
            raise ValueError(f"[{team.op}] got arguments of {len(text)} bytes, expected fewer than {_LENGTH}")
        text = text[: _LENGTH - _HEADER]
    header = b"".join(n.to_bytes(8, "little", signed=True) for n in (len(text), int(is_error), seed))
    message = torch.frombuffer(bytearray((header + text).ljust(_LENGTH, b"\0")), dtype=torch.uint8)
    heard = _from_all(team, message if device is None else message.to(device))
    said, errors, seeds = [], {}, []
    for rank, words in enumerate(heard):
        length, failed, its_seed = (
            int.from_bytes(words[i : i + 8], "little", signed=True) for i in (0, 8, 16)
        )
        words = words[_HEADER : _HEADER + length]
        said.append(words)
        seeds.append(its_seed)
        if failed:
            errors[rank] = words.decode(errors="replace")
    if errors and not is_error:
        rank, words = min(errors.items())
        raise ValueError(f"[{team.op}] got an error on rank {rank}, expected none; there: {words}")
    return tuple(said), seeds


def _from_all(team: Team, message) -> list[bytes]:
    if team.size == 1:
        return [message.cpu().numpy().tobytes()]
    if team.size > _PAIRWISE:
        heard = team.gather(message)
    else:
        heard = torch.empty(team.size, _LENGTH, dtype=torch.uint8, device=message.device)
        others = [place for place in range(team.size) if place != team.rank]
        heard[team.rank] = message
        team.exchange("arguments", [(p, message) for p in others], [(p, heard[p]) for p in others]).wait()
    words = heard.cpu().numpy()
    return [row.tobytes() for row in words]


@functools.lru_cache(1024)
def _compare(op: str, said: tuple[bytes, ...]) -> None:
    tables = [common for common, _ in said_by(said)]
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [json.dumps(table.get(name)) for table in tables]
        expected, count = Counter(values).most_common(1)[0]
        if count == len(values):
            continue
        if count * 2 <= len(values):
            expected = values[0]
        rank = next(r for r, value in enumerate(values) if value != expected)
        other = values.index(expected)
        raise ValueError(
            f"[{op}] got {name} {_shown(values[rank])} on rank {rank}, expected {_shown(expected)}, that of "
            f"rank {other}; all ranks make the same call"
        )


def _shown(value: str) -> str:
    return value.replace("null", "None").replace("true", "True").replace("false", "False").strip('"')


class telling:
    """A context: what is raised inside is told to the other ranks, so that they raise as well."""

    def __init__(self, team: Team, device=None):
        self._team, self._device = team, device

    def __enter__(self):
        return self

    def end(self) -> None:
        """What follows tells its errors itself."""
        self._team = None

    def __exit__(self, kind, error, trace):
        if isinstance(error, Exception) and self._team is not None:
            refuse(self._team, error, self._device)
        return False


def check_no_transforms(op: str) -> None:
    """Sharded calls are differentiated in reverse mode only."""
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        raise NotImplementedError(
            f"[{op}] got a call under torch.func or forward-mode AD, expected plain code or backward(); "
            "sharded calls have no rule for it"
        )
