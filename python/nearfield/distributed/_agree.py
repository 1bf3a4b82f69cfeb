# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What every sharded call does first: each rank tells all others what it was called with.

The message has one length whatever it says, so ranks that disagree about the call still understand each
other, and all of them raise the same error. The texts are small and compared as bytes; what follows from
them is computed once and cached.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections import Counter

import torch

from ._team import Team

_LENGTH = 4096  # bytes; more than any call says
_HEADER = 32  # its own length, whether it is an error, a seed, of which call it is the backward pass
_PAIRWISE = 32  # ranks up to which messages go from each to each, so that a missing one has a name
_REMEMBERED = 256  # combinations of texts


def agree(
    team: Team, common: dict, own: dict, seed: int = 0, *, of_call: int = 0
) -> tuple[tuple[bytes, ...], int]:
    """(what every rank said, rank 0's seed), after a check that all ranks said the same in `common`. Within
    `team.turn()`.

    common: names and values (JSON) that must be equal on all ranks; own: what may differ. of_call: the number
    of the call whose backward pass this is; it must be equal, too.

    Raises:
        ValueError: on every rank, naming the rank and what differed.
        PeerError: a rank does not answer.
    """
    # Two ranks of one group may order its ranks differently.
    order = list(team.members) if team.size <= _PAIRWISE else zlib.crc32(repr(team.members).encode())
    common = {"op": team.op, "order of the ranks": order, **common}
    text = json.dumps([common, own], separators=(",", ":")).encode()
    if len(text) > _LENGTH - _HEADER:
        error = ValueError(
            f"[{team.op}] got arguments of {len(text)} bytes, expected at most {_LENGTH - _HEADER}"
        )
        refuse(team, error)
        raise error
    said, seeds, of_calls = _tell(team, text, False, seed, of_call)
    _compare(team.op, said)
    for rank, number in enumerate(of_calls):
        if number != of_calls[0]:
            raise ValueError(
                f"[{team.op}] got the backward pass of call {number} on rank {rank}, expected that of call "
                f"{of_calls[0]}, as on rank 0; all ranks run their backward passes in one order"
            )
    return said, seeds[0]


def refuse(team: Team, error: Exception) -> None:
    """Tells all other ranks that this one cannot make the call; they raise too. The error is the caller's to
    raise here."""
    _tell(team, str(error).encode()[: _LENGTH - _HEADER], True)


def said_by(said: tuple[bytes, ...]) -> list[tuple[dict, dict]]:
    """(common, own) of every rank."""
    return [tuple(json.loads(text)) for text in said]


def _tell(team: Team, text: bytes, is_error: bool, seed: int = 0, of_call: int = 0):
    numbers = (len(text), int(is_error), seed, of_call)
    header = b"".join(n.to_bytes(8, "little", signed=True) for n in numbers)
    with team.turn() as past, team.work():
        if team.size > _PAIRWISE and team.is_whole_group:
            headers, said = _by_digests(team, past, header, text)
        else:
            words = _from_all(team, header + text)
            headers = [w[:_HEADER] for w in words]
            said = tuple(w[_HEADER : _HEADER + _numbers(w)[0]] for w in words)
        past.calls += 1
    _, failed, seeds, of_calls = zip(*map(_numbers, headers), strict=True)
    errors = {rank: words.decode(errors="replace") for rank, words in enumerate(said) if failed[rank]}
    if errors and not is_error:
        rank, words = min(errors.items())
        raise ValueError(f"[{team.op}] got an error on rank {rank}, expected none; there: {words}")
    return said, seeds, of_calls


def _numbers(header: bytes) -> list[int]:
    return [int.from_bytes(header[i : i + 8], "little", signed=True) for i in range(0, _HEADER, 8)]


def _by_digests(team: Team, past, header: bytes, text: bytes):
    """(headers, texts) of many ranks: texts travel only if their digests were not heard before in this
    combination. All ranks hear the same, so all remember the same."""
    digests = [
        row[: _HEADER + 32]
        for row in _rows(team.gather(_message(team, header + hashlib.sha256(text).digest())))
    ]
    key = tuple(row[_HEADER:] for row in digests)
    said = past.heard.get(key)
    if said is None:
        longest = max(_numbers(row)[0] for row in digests)
        rows = _rows(team.gather(_message(team, text.ljust(longest, b"\0"))))
        said = tuple(row[: _numbers(d)[0]] for row, d in zip(rows, digests, strict=True))
        if len(past.heard) >= _REMEMBERED:
            past.heard.pop(next(iter(past.heard)))
        past.heard[key] = said
    return [row[:_HEADER] for row in digests], said


def _message(team: Team, words: bytes):
    return torch.frombuffer(bytearray(words), dtype=torch.uint8).to(team.device)


def _rows(heard) -> list[bytes]:
    return [row.tobytes() for row in heard.cpu().numpy()]


def _from_all(team: Team, words: bytes) -> list[bytes]:
    if team.size == 1:
        return [words]
    message = _message(team, words.ljust(_LENGTH, b"\0"))
    heard = torch.empty(team.size, _LENGTH, dtype=torch.uint8, device=message.device)
    others = [place for place in range(team.size) if place != team.rank]
    heard[team.rank] = message
    team.exchange("arguments", [(p, message) for p in others], [(p, heard[p]) for p in others]).wait()
    return _rows(heard)


@functools.lru_cache(1024)
def _compare(op: str, said: tuple[bytes, ...]) -> None:
    tables = [common for common, _ in said_by(said)]
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [json.dumps(table.get(name)) for table in tables]
        expected, count = Counter(values).most_common(1)[0]
        if count == len(values):
            continue
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

    def __init__(self, team: Team):
        self._team = team

    def __enter__(self):
        return self

    def end(self) -> None:
        """What follows tells its errors itself."""
        self._team = None

    def __exit__(self, kind, error, trace):
        if isinstance(error, Exception) and self._team is not None and not self._team.past.health.broken:
            refuse(self._team, error)
        return False


def check_no_transforms(op: str) -> None:
    """Sharded calls are differentiated in reverse mode only."""
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        raise NotImplementedError(
            f"[{op}] got a call under torch.func or forward-mode AD, expected plain code or backward(); "
            "sharded calls have no rule for it"
        )
