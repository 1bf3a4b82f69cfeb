# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine as ranks on gloo, and what is measured in them: time, bytes, memory, their link.

Every rank has one thread and, where there are enough, a core of its own.
"""

import ctypes
import gc
import multiprocessing
import os
import socket
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from scaling import Link, Machine

import nearfield.distributed as nd
from nearfield.distributed import _team


class Section(NamedTuple):
    """Of the results: a title, and Markdown below it."""

    title: str
    body: str


class Counted:
    """Bytes of this process's exchanges, and the time that it spends in them, while it lasts."""

    def __enter__(self):
        self.sent, self.waited = 0, 0.0
        self._exchange, self._wait = _team.Team.exchange, _team.Exchange.wait
        counted = self

        def exchange(team, what, sends, *more, **named):
            if what != "arguments":
                counted.sent += sum(x.numel() * x.element_size() for _, x in sends)
            begin = time.perf_counter()
            one = counted._exchange(team, what, sends, *more, **named)
            counted.waited += time.perf_counter() - begin
            return one

        def wait(one, *more, **named):
            begin = time.perf_counter()
            found = counted._wait(one, *more, **named)
            counted.waited += time.perf_counter() - begin
            return found

        _team.Team.exchange, _team.Exchange.wait = exchange, wait
        return self

    def __exit__(self, *_):
        _team.Team.exchange, _team.Exchange.wait = self._exchange, self._wait


def peak_memory(call) -> int:
    """Bytes by which a call raises the resident memory of this process (Linux), at most."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is not there
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def median_of(calls, call):
    """(seconds, seconds waited, bytes sent) of a call: medians; bytes are always the same."""
    rows = []
    for _ in range(calls):
        dist.barrier()
        with Counted() as counted:
            begin = time.perf_counter()
            call()
            rows.append((time.perf_counter() - begin, counted.waited, counted.sent))
    assert len({sent for *_, sent in rows}) == 1
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def measured_machine() -> Machine:
    """Latency and rate between two ranks that send to each other at once, and the rate at which both copy, as
    results are. A message may wait for a tick of the scheduler, or not: latency is a mean, not a median."""
    team, _ = nd._team.team_of("bench", dist.group.WORLD)
    other = 1 - team.rank

    def message(numbers):
        a, b = torch.zeros(numbers), torch.zeros(numbers)
        return mean_of(30, lambda: team.exchange("bench", [(other, a)], [(other, b)]).wait())

    source = torch.zeros(1 << 21)
    copy = mean_of(20, lambda: torch.empty_like(source).copy_(source))
    small, large = message(1 << 8), message(1 << 21)
    link = Link("gloo between two processes", 4 * (1 << 21) / (large - small), small, overlaps=False)
    return Machine(link, copies=4 * source.numel() / copy)


def mean_of(calls, call) -> float:
    """Seconds of a call."""
    seconds = 0.0
    for _ in range(calls):
        dist.barrier()
        begin = time.perf_counter()
        call()
        seconds += time.perf_counter() - begin
    return seconds / calls


class Passes:
    """Forward and backward passes of function(*inputs, *arguments); outputs: the last ones, until cleared."""

    def __init__(self, function, inputs, grad, *arguments):
        self._call, self._inputs, self._grad = (function, arguments), inputs, grad
        self.outputs = []

    def forward(self):
        function, arguments = self._call
        self.outputs[:] = [function(*self._inputs, *arguments)]

    def backward(self):
        torch.autograd.grad(self.outputs[0], self._inputs, self._grad, retain_graph=True)

    def times(self, calls):
        """What median_of says of forward and of backward passes, behind one of each."""
        self.forward()
        self.backward()
        return median_of(calls, self.forward), median_of(calls, self.backward)

    def memory(self, calls) -> list[int]:
        """The peak of both above what is there without them: of each repetition, the smallest first."""
        found = []
        for _ in range(calls):
            self.outputs.clear()
            dist.barrier()
            found.append(peak_memory(lambda: (self.forward(), self.backward())))
        return sorted(found)


def run(worker, size, *arguments):
    """What worker(rank, size, *arguments) returned on each of `size` ranks, in rank order."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    pipes = [context.Pipe() for _ in range(size)]
    processes = [
        context.Process(target=_one_rank, args=(worker, rank, size, port, theirs, arguments))
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    found = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    return found


def _one_rank(worker, rank, size, port, pipe, arguments):
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    if size <= len(cores):
        os.sched_setaffinity(0, {cores[rank]})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", rank=rank, world_size=size)
    pipe.send(worker(rank, size, *arguments))
    dist.barrier()
    dist.destroy_process_group()


def times_and_memory(sizes, worker, *arguments):
    """({ranks: times of each rank}, {ranks: memory of each}): times at 1 and 2 ranks, then memory, since the
    allocator must be told to give back what is freed."""
    times = {size: run(worker, size, True, *arguments) for size in sizes if size <= 2}
    before = os.environ.get("MALLOC_MMAP_THRESHOLD_")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    try:
        return times, {size: run(worker, size, False, *arguments) for size in sizes}
    finally:
        if before is None:
            del os.environ["MALLOC_MMAP_THRESHOLD_"]
        else:
            os.environ["MALLOC_MMAP_THRESHOLD_"] = before


def machine_text() -> str:
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else "unknown processor"
    return (
        f"{name}, {len(os.sched_getaffinity(0))} cores, one thread per rank, gloo over the loopback, "
        f"float32, PyTorch {torch.__version__}"
    )


def link_text(machine) -> str:
    return (
        f"Measured between two ranks that send at once: {machine.link.rate / 1e9:.2f} GB/s each way, "
        f"{1e3 * machine.link.latency:.2f} ms per message on average, {machine.copies / 1e9:.1f} GB/s of "
        "copies into new memory."
    )


def memory_text(rows) -> str:
    """Megabytes of the rank that needs most; of its repetitions the median."""
    return f"{max(map(statistics.median, rows)) / 1e6:.0f}"


def repeated(rows) -> str:
    """How far the repetitions of any rank are from their median, in words."""
    medians = [(statistics.median(x), x) for x in rows]
    off = max((max(m - x[0], x[-1] - m) / m for m, x in medians if m > 0), default=0)
    return f"Memory is a median of {len(rows[0])}; no repetition is off by more than {100 * off:.0f} %."


def per_cent(errors) -> str:
    """`-8 to +20 %` of relative errors."""
    return f"{100 * min(errors):+.0f} to {100 * max(errors):+.0f} %"


def shown(passes) -> str:
    """A time and the exposed part of it, each of the rank where it is longest; passes: as median_of says."""
    seconds, exposed = slowest(passes)
    return f"{1e3 * seconds:.1f} ms ({1e3 * exposed:.1f})"


def slowest(passes) -> list[float]:
    """(seconds, of them exposed) of the rank where it is longest."""
    return [max(column) for column in list(zip(*passes, strict=True))[:2]]
