# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Processes that are the ranks of a gloo group, kept for many tests.

    with Ranks(3) as ranks:
        results = ranks.run("distributed_cases.some_function", argument)   # one per rank

The function gets the argument behind the rank's number, and runs on all ranks at once. An exception on any
rank fails the call with every rank's traceback; a rank that hangs or dies, too. Slow is not hanging: a rank
that still computes is waited for, however little of a busy machine it gets.
"""

import importlib
import multiprocessing
import os
import socket
import sys
import time
import traceback
from multiprocessing.connection import wait
from pathlib import Path

_HERE = str(Path(__file__).parent)
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["torch.distributed", "nearfield.distributed"])


class RankFailed(AssertionError):
    """What went wrong on which rank; died: the numbers of ranks that are gone; results: of the others."""

    def __init__(self, text, died=(), results=()):
        super().__init__(text)
        self.died, self.results = died, results


def _serve(rank, size, port, pipe):
    sys.path.insert(0, _HERE)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", rank=rank, world_size=size)
    pipe.send((True, None))
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        module, _, function = name.rpartition(".")
        try:
            pipe.send((True, getattr(importlib.import_module(module), function)(rank, *arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))


def _seconds_computed(process):
    """Of a process and its threads (Linux; elsewhere the clock, so that limits are never met)."""
    try:
        words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0 if Path("/proc").exists() else time.monotonic()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Ranks:
    """size: processes. patience: seconds without an answer in which no rank computes: they hang."""

    def __init__(self, size, patience=120):
        self.size, self.patience = size, patience
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        pipes = [context.Pipe() for _ in range(size)]
        self._pipes = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(rank, size, port, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()
        self._collect("starting")

    def run(self, name, *arguments):
        """The results of a function of a module beside this one, one per rank."""
        for pipe in self._pipes:
            pipe.send((name, arguments))
        return self._collect(name)

    def _collect(self, what):
        results, missing = [None] * self.size, dict(zip(self._pipes, range(self.size), strict=True))
        failures, died = [], []
        idle, computed = 0, 0.0
        while missing:
            # Looks, not the clock, are counted: this process may have been stopped, too.
            ready = wait(list(missing), 1)
            now = sum(_seconds_computed(self._processes[rank]) for rank in missing.values())
            idle = 0 if ready or abs(now - computed) > 0.2 else idle + 1
            if idle == 0:
                computed = now
            # The others of a rank that failed may wait for it: no longer than a failure takes to be told.
            if idle > (10 if failures or died else self.patience):
                failures.append(f"---- ranks {sorted(missing.values())} do not answer")
                break
            for pipe in ready:
                rank = missing.pop(pipe)
                try:
                    right, results[rank] = pipe.recv()
                except (EOFError, ConnectionResetError):
                    died.append(rank)
                    continue
                if not right:
                    failures.append(f"---- rank {rank}\n{results[rank]}")
        if failures or died:
            raise RankFailed(f"{what}; died: {died}\n" + "\n".join(failures), tuple(died), results)
        return results

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
