# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The ranks of one sharded call, in the order of its slabs, and how messages travel between them.

Every wait is bounded (`set_timeout`). A peer that died or does not answer gives a PeerError that names it. A
process that left a call half done, for whatever reason, makes no further ones with that group: its messages
would be taken for others.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
import zlib
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import AllgatherOptions, _resolve_process_group

from .. import _arguments as arguments

_timeout = timedelta(seconds=120)
# Where the backend knows tags they keep these messages apart from others of the program, of other teams of a
# group and of other calls: 4 bits, 12 of the members, 12 of the call's number, and whether it is data.
_TAG = 0x6 << 25
_PART = 0xFFF


class PeerError(RuntimeError):
    """Another rank died, or did not answer in time. The process group is broken: end the process."""


def set_timeout(seconds) -> float:
    """How long a rank waits for another one in any step of a sharded call, 120 seconds unless set; returns
    what it was. Ranks may be late by less than that: the time that the slowest of them spends between two
    calls counts. Of this process."""
    global _timeout
    before, seconds = _timeout, arguments.number("set_timeout", "seconds", seconds)
    if not 0 < seconds <= 1e6:
        raise ValueError(f"[set_timeout] got {seconds} seconds, expected more than 0, at most 1e6")
    _timeout = timedelta(seconds=seconds)
    return before.total_seconds()


class _Health:
    """Of a process group: why no call is possible any more."""

    broken: str | None = None


class _Past:
    """What this process knows of the calls of some ranks of a group. All of them see the same, in order."""

    def __init__(self, members, health: _Health):
        self.lock = threading.RLock()  # one call at a time: the messages of two would mix
        self.health = health
        self.calls = 0
        self.heard: dict = {}  # what ranks said before, by its digests
        self.tag = _TAG | (zlib.crc32(repr(members).encode()) & _PART) << 13


# By identity, for groups may be made anew under one name: the group, its health, members -> past.
_groups: dict[int, tuple[weakref.ref, _Health, dict[tuple[int, ...], _Past]]] = {}
_groups_lock = threading.Lock()


class Team(NamedTuple):
    """rank, size: this process's place among the slabs, and their number. members: place -> rank in group."""

    op: str  # opens every message
    name: str  # of the group
    rank: int
    members: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def process_group(self):
        return _resolve_process_group(self.name)

    @property
    def past(self) -> _Past:
        group = self.process_group
        with _groups_lock:
            known = _groups.get(id(group))
            if known is None or known[0]() is not group:
                known = _groups[id(group)] = (weakref.ref(group), _Health(), {})
                weakref.finalize(group, _groups.pop, id(group), None)
            members = tuple(sorted(self.members))
            if members not in known[2]:
                known[2][members] = _Past(members, known[1])
            return known[2][members]

    @property
    def device(self) -> torch.device:
        """Where messages live that are no tensors of the caller."""
        kinds = {device.type for device in self.process_group._device_types}
        return torch.device("cpu" if "cpu" in kinds else f"cuda:{torch.cuda.current_device()}")

    @contextlib.contextmanager
    def turn(self):
        """One call at a time. To be interrupted in the middle of one breaks the group."""
        past = self.past
        with past.lock:
            if past.health.broken:
                raise PeerError(
                    f"[{self.op}] got a process group whose last call failed on rank {self.rank}, expected "
                    f"one in step; end this process ({past.health.broken})"
                )
            try:
                yield past
            except Exception:
                raise
            except BaseException as error:
                past.health.broken = type(error).__name__
                raise

    @contextlib.contextmanager
    def work(self):
        """What the ranks do together once they agreed. An error of one rank in it leaves the group broken."""
        try:
            yield
        except BaseException as error:
            self.past.health.broken = f"{type(error).__name__}: {error}"
            raise

    def exchange(self, what: str, sends, receives) -> Exchange:
        """Starts sending and receiving; both are lists of (place, contiguous tensor), with at most one
        message in each direction per pair, in any order. The tensors must not be touched before wait()."""
        group, past = self.process_group, self.past
        tag = past.tag if what == "arguments" else past.tag | (past.calls & _PART) << 1 | 1
        # Receives come first: a wait in this order names the peer that is missing.
        messages = [("answer from", dist.irecv, *x) for x in receives]
        messages += [("way to", dist.isend, *x) for x in sends]
        messages = [m for m in messages if m[3].numel()]
        operations = [
            dist.P2POp(
                function, tensor.view(torch.uint8), group=group, tag=tag, group_peer=self.members[place]
            )
            for _, function, place, tensor in messages
        ]
        # On GPUs all at once, or they wait for each other; else one by one, to know which one fails.
        together = any(m[3].is_cuda for m in messages)
        parts = [operations] if together else [[x] for x in operations]
        works, places = [], [m[2] for m in messages]
        for i, part in enumerate(parts):
            try:
                works += dist.batch_isend_irecv(part) if part else []
            except RuntimeError as error:
                raise self.lost(what, places if together else [places[i]], "way to", error) from error
        return Exchange(self, what, messages, works)

    def gather(self, message) -> torch.Tensor:
        """[size, ...]: the messages of all ranks, in the order of their places, by one collective of the
        whole group."""
        rows, options = [torch.empty_like(message) for _ in self.members], AllgatherOptions()
        options.timeout = (
            _timeout  # else the group's own keeps a thread of it, and so the process, for longer
        )
        try:
            self.process_group.allgather([rows], [message], options).wait()
        except RuntimeError as error:
            raise self.lost("arguments", range(self.size), "answer from one of", error) from error
        return torch.stack([rows[member] for member in self.members])

    @property
    def is_whole_group(self) -> bool:
        return self.size == self.process_group.size()

    def lost(self, what: str, places, direction: str, error) -> PeerError:
        ranks = ", ".join(str(p) for p in sorted(set(places)))
        seconds = f"{_timeout.total_seconds():g} s"
        return PeerError(
            f"[{self.op}] got no {direction} rank {ranks} on rank {self.rank} ({what}), expected one within "
            f"{seconds}; it died, hangs or makes other calls. The process group is broken: end this process "
            f"({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
        )


class Exchange:
    """Messages on their way."""

    def __init__(self, team: Team, what: str, messages, works):
        self._team, self._what, self._messages, self._works = team, what, messages, works

    def wait(self) -> None:
        """Returns when every message has arrived or left; raises PeerError for one that does not."""
        one_by_one = len(self._works) == len(self._messages)  # NCCL coalesces them into one
        for i, work in enumerate(self._works):
            try:
                done = work.wait(_timeout)
            except RuntimeError as error:
                places = [self._messages[i][2]] if one_by_one else [m[2] for m in self._messages]
                raise self._team.lost(self._what, places, self._messages[i][0], error) from error
            if done is False:
                raise self._team.lost(self._what, [self._messages[i][2]], self._messages[i][0], "no result")
        self._works = []


@torch.compiler.assume_constant_result  # a compiled graph is of one mesh
def team_of(op: str, mesh) -> tuple[Team, tuple[int, ...]]:
    """(Team, shape of the mesh) of a DeviceMesh of 1 to 3 dimensions, or of a process group."""
    if mesh is None or not dist.is_available() or not dist.is_initialized():
        if mesh is not None:
            raise ValueError(
                f"[{op}] got a mesh without torch.distributed, expected it to be initialised; call "
                "torch.distributed.init_process_group() first"
            )
        raise TypeError(f"[{op}] got None, expected a DeviceMesh or a process group")
    outside = dist.GroupMember.NON_GROUP_MEMBER  # what new_group() returns to those outside
    if type(mesh) is type(outside) and mesh == outside:
        raise _outside(op)
    if isinstance(mesh, dist.ProcessGroup):
        if mesh.rank() < 0:
            raise _outside(op)
        return Team(op, mesh.group_name, mesh.rank(), tuple(range(mesh.size()))), (mesh.size(),)
    if isinstance(mesh, dist.DeviceMesh):
        team = _team_of_mesh(mesh)
        if team is None:
            raise _outside(op)
        return team._replace(op=op), tuple(mesh.shape)
    raise TypeError(f"[{op}] got {arguments.type_name(mesh)}, expected a DeviceMesh or a process group")


def _outside(op: str) -> ValueError:
    return ValueError(
        f"[{op}] got a mesh that this process is no part of, expected one that holds rank {dist.get_rank()}"
    )


# By identity: meshes of one shape are equal, also after the process group was made anew.
_teams: dict[int, tuple[weakref.ref, Team | None]] = {}


def _team_of_mesh(mesh) -> Team | None:
    known = _teams.get(id(mesh))
    if known is None or known[0]() is not mesh:
        known = _teams[id(mesh)] = (weakref.ref(mesh), _make_team(mesh))
        weakref.finalize(mesh, _teams.pop, id(mesh), None)
    return known[1]


def _make_team(mesh) -> Team | None:
    ranks = mesh.mesh.flatten().tolist()
    if mesh.get_coordinate() is None:
        return None
    if mesh.ndim == 1:
        group = mesh.get_group()
    elif mesh.device_type == "cpu" or sorted(ranks) == list(range(dist.get_world_size())):
        group = dist.group.WORLD  # messages go from rank to rank and need no group of their own
    else:
        group = mesh._flatten().get_group()  # NCCL: all ranks of a communicator make it, together
    members = tuple(dist.get_group_rank(group, r) for r in ranks)
    return Team("", group.group_name, ranks.index(dist.get_rank()), members)
