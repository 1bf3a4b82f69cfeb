# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded attention on this machine: time at 1 and 2 ranks, bytes and memory at 1, 2 and 4, beside the model.

    python bench/distributed.py [--out bench/results/NAME.md]

Every rank is a process with one thread, on gloo. Bytes are those that were handed to torch.distributed, per
forward and backward pass, without the 4 KiB per pair of ranks by which calls are agreed on; the halo is
`ShardPlan`'s. Exposed: the time in which a rank handed messages over or waited for them, agreement
included. Memory: the peak of forward and backward above what the inputs take. Times are medians of calls;
with more ranks than cores only bytes and memory mean anything. Two cores at work share caches and memory,
so the model starts from the whole problem on one core while the other one computes it too (the column "both
cores, whole").
"""

import argparse
import functools
import multiprocessing
import os
import pickle
import socket
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

import nearfield as nf
import nearfield.distributed as nd
from nearfield.distributed import _team

sys.path.insert(0, str(Path(__file__).parent))
from scaling import Link, Problem, predict

PROBLEMS = [
    Problem("2-D, 128x128, window 13x13", (128, 128), (13, 13), 4, 64),
    Problem("2-D, 96x96, window 25x25", (96, 96), (25, 25), 4, 64),
    Problem("3-D, 16x32x32, window 5x9x9", (16, 32, 32), (5, 9, 9), 4, 64),
]
CALLS = 5


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


def one_rank(rank, size, port, pipe, cores, timed):
    torch.set_num_threads(1)
    if size <= cores:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", rank=rank, world_size=size)
    mesh = dist.init_device_mesh("cpu", (size,))
    results = []
    for problem in PROBLEMS:
        plan = problem.plan((size,), (0,))
        local = [e - b for b, e in plan.slab(rank)]
        shape = (1, *local, problem.heads, problem.dim)
        q, k, v, grad = (torch.randn(shape) for _ in range(4))
        inputs = [x.requires_grad_() for x in (q, k, v)]
        outputs = []

        def forward(inputs=inputs, outputs=outputs, problem=problem):
            outputs[:] = [nd.neighborhood_attention(*inputs, problem.window, mesh=mesh, shard_dims=(0,))]

        def backward(inputs=inputs, outputs=outputs, grad=grad):
            torch.autograd.grad(outputs[0], inputs, grad, retain_graph=True)

        forward()
        backward()
        row = {"halo": plan.bytes_sent(rank, kv_heads=problem.heads, head_dim=problem.dim)}
        row["home"] = plan.bytes_received(rank, kv_heads=problem.heads, head_dim=problem.dim)
        calls = CALLS if timed else 1
        row["forward"], row["backward"] = median_of(calls, forward), median_of(calls, backward)
        outputs.clear()
        whole = [torch.randn(1, *problem.layout, problem.heads, problem.dim) for _ in range(3)]
        function = (nf.na1d, nf.na2d, nf.na3d)[len(problem.layout) - 1]
        row["whole"] = median_of(calls, functools.partial(function, *whole, problem.window))[0]
        del whole
        dist.barrier()
        row["memory"] = peak_memory(lambda forward=forward, backward=backward: (forward(), backward()))
        row["slab"] = 4 * q.numel() * q.element_size()
        results.append(row)
    link = measured_link() if size == 2 and timed else None
    pipe.send((results, link))
    dist.barrier()
    dist.destroy_process_group()


def measured_link() -> Link:
    """Latency and rate between two ranks that send to each other at once, and the time of an agreement."""
    team, _ = nd._team.team_of("bench", dist.group.WORLD)
    other, seconds = 1 - team.rank, {}
    for numbers in (1 << 8, 1 << 20):
        a, b = torch.zeros(numbers), torch.zeros(numbers)
        times = []
        for _ in range(30):
            dist.barrier()
            begin = time.perf_counter()
            team.exchange("bench", [(other, a)], [(other, b)]).wait()
            times.append(time.perf_counter() - begin)
        seconds[numbers] = statistics.median(times)
    small, large = seconds[1 << 8], seconds[1 << 20]
    return Link("gloo between two processes", 4 * (1 << 20) / (large - small), small)


def run(size, cores, timed):
    """What every rank of `size` measured: times, or memory."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    pipes = [context.Pipe() for _ in range(size)]
    processes = [
        context.Process(target=one_rank, args=(rank, size, port, theirs, cores, timed))
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    found = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    return [results for results, _ in found], found[0][1]


def table(found, times, link) -> str:
    """Markdown."""
    lines = [
        "| problem | ranks | bytes sent per rank, forward / backward | halo / its gradient | "
        "forward (exposed) | backward (exposed) | both cores, whole | model, forward | peak memory per rank "
        "| slabs of q, k, v, out |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for i, problem in enumerate(PROBLEMS):
        for size, ranks in found.items():
            rows = [rank[i] for rank in ranks]
            same = all(r["forward"][2] == r["halo"] and r["backward"][2] == r["home"] for r in rows)
            sent = "equal" if same else "DIFFERENT"
            worst = max(rows, key=lambda r: r["halo"])
            timed, shown = [rank[i] for rank in times.get(size, ())], ["", ""]
            if timed:
                pairs = [[max(r[way][n] for r in timed) for n in (0, 1)] for way in ("forward", "backward")]
                shown = [f"{1e3 * t:.1f} ms ({1e3 * w:.1f})" for t, w in pairs]
            model = whole = ""
            if size == 2:
                alone = max(r["whole"] for r in timed)
                whole = f"{1e3 * alone:.1f} ms"
                model = f"{1e3 * predict(problem, (2,), (0,), alone, link, itemsize=4).forward:.1f} ms"
            megabytes = [
                x / 1e6 for x in (worst["forward"][2], worst["backward"][2], worst["halo"], worst["home"])
            ]
            lines.append(
                f"| {problem.name} | {size} | {megabytes[0]:.3f} / {megabytes[1]:.3f} MB | "
                f"{megabytes[2]:.3f} / {megabytes[3]:.3f} MB, {sent} on every rank | "
                f"{shown[0]} | {shown[1]} | {whole} | {model} | "
                f"{max(r['memory'] for r in rows) / 1e6:.0f} MB | "
                f"{max(r['slab'] for r in rows) / 1e6:.0f} MB |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, help="write the table there, too")
    parser.add_argument(
        "--times", type=Path, help="only the times, kept there; or taken from there if it exists"
    )
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if args.times and args.times.exists():
        times, link = pickle.loads(args.times.read_bytes())
    else:
        times = {1: run(1, cores, True)[0]}
        times[2], link = run(2, cores, True)
        if args.times:
            args.times.write_bytes(pickle.dumps((times, link)))
            return
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # of the ranks: freed memory goes back, so that peaks show
    found = {size: run(size, cores, False)[0] for size in (1, 2, 4)}
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else "unknown processor"
    text = (
        f"# Sharded attention on one machine\n\n{name}, {cores} cores, one thread per rank, float32, 4 heads "
        f"of 64, PyTorch {torch.__version__}. Made by `python bench/distributed.py`, which says what the "
        f"columns mean.\n\n{table(found, times, link)}\n\nThe link, measured: {link.rate / 1e9:.2f} "
        f"GB/s each way, {1e6 * link.latency:.0f} us per message.\n"
    )
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
