# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine as ranks on gloo, and what is measured in them: time, bytes, memory, their link.

Every rank has one thread and, where there are enough, a core of its own.
"""

import argparse
import multiprocessing
import os
import pickle
import socket
import statistics
import time
from pathlib import Path

import torch
import torch.distributed as dist
from scaling import Link, Machine

import nearfield.distributed as nd
from nearfield.distributed import _team


class Counted:
    """Bytes of this process's exchanges, and the time that it spends in them, while it lasts."""

    def __enter__(self):
        self.sent, self.waited = 0, 0.0
        self._exchange, self._wait = _team.Team.exchange, _team.Exchange.wait
        counted = self

        def exchange(team, what, sends, receives):
            if what != "arguments":
                counted.sent += sum(x.numel() * x.element_size() for _, x in sends)
            begin = time.perf_counter()
            one = counted._exchange(team, what, sends, receives)
            counted.waited += time.perf_counter() - begin
            return one

        def wait(one):
            begin = time.perf_counter()
            counted._wait(one)
            counted.waited += time.perf_counter() - begin

        _team.Team.exchange, _team.Exchange.wait = exchange, wait
        return self

    def __exit__(self, *_):
        _team.Team.exchange, _team.Exchange.wait = self._exchange, self._wait


def peak_memory(call) -> int:
    """Bytes by which a call raises the resident memory of this process (Linux)."""
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

    def memory(self) -> int:
        """The peak of both above what is there without them."""
        self.outputs.clear()
        dist.barrier()
        return peak_memory(lambda: (self.forward(), self.backward()))


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


def times_and_memory(sizes, worker, kept):
    """({ranks: times of each rank}, {ranks: memory of each}): times at 1 and 2 ranks, then memory, since the
    allocator must be told to give back what is freed. kept: a file that holds the times, or gets them; then
    the memory is None, so that the two can be taken apart."""
    if kept and kept.exists():
        times = pickle.loads(kept.read_bytes())
    else:
        times = {size: run(worker, size, True) for size in sizes if size <= 2}
        if kept:
            kept.write_bytes(pickle.dumps(times))
            return times, None
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    return times, {size: run(worker, size, False) for size in sizes}


def heading(title, made_by) -> str:
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else "unknown processor"
    return (
        f"# {title}\n\n{name}, {len(os.sched_getaffinity(0))} cores, one thread per rank, float32, 4 heads "
        f"of 64, PyTorch {torch.__version__}. Made by `python {made_by}`, which says what the "
        "columns mean.\n\n"
    )


def footer(machine) -> str:
    return (
        f"\n\nMeasured between two ranks at once: {machine.link.rate / 1e9:.2f} GB/s each way, "
        f"{1e6 * machine.link.latency:.0f} us per message, {machine.copies / 1e9:.2f} GB/s of copies into "
        "new memory.\n"
    )


def options(doc):
    parser = argparse.ArgumentParser(description=doc.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, help="write the table there, too")
    parser.add_argument(
        "--times", type=Path, help="only the times, kept there; or taken from there if it exists"
    )
    return parser.parse_args()


def shown(passes) -> str:
    """A time and the exposed part of it, of the slowest rank; passes: what median_of said on each."""
    seconds, exposed = (max(column) for column in list(zip(*passes, strict=True))[:2])
    return f"{1e3 * seconds:.1f} ms ({1e3 * exposed:.1f})"


def write(text, path) -> None:
    print(text)
    if path:
        path.write_text(text)
