# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharded attention on this machine: time at 1 and 2 ranks, bytes and memory at 1, 2 and 4, beside the model.

    python bench/distributed.py [--out bench/results/NAME.md]

Every rank is a process with one thread, on gloo. Bytes are those that were handed to torch.distributed, per
forward and backward pass, without the 4 KiB per pair of ranks by which calls are agreed on; the halo is
`ShardPlan`'s. Exposed: the time in which a rank waited for others, agreement included. Memory: the peak above
what inputs take. Times are medians of calls; with more ranks than cores only bytes and memory mean anything.
"""

import argparse
import multiprocessing
import os
import socket
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

import nearfield.distributed as nd
from nearfield.distributed import _team

sys.path.insert(0, str(Path(__file__).parent))
from scaling import Link, Problem, predict  # noqa: E402  (beside this script)

PROBLEMS = [
    Problem("2-D, 128x128, window 13x13", (128, 128), (13, 13), 4, 64),
    Problem("2-D, 96x96, window 25x25", (96, 96), (25, 25), 4, 64),
    Problem("3-D, 16x32x32, window 5x9x9", (16, 32, 32), (5, 9, 9), 4, 64),
]
CALLS = 7


class Counted:
    """Bytes and waiting of this process's exchanges, while it lasts."""

    def __enter__(self):
        self.sent, self.waited = 0, 0.0
        self._exchange, self._wait = _team.Team.exchange, _team.Exchange.wait
        counted = self

        def exchange(team, what, sends, receives):
            if what != "arguments":
                counted.sent += sum(x.numel() * x.element_size() for _, x in sends)
            return counted._exchange(team, what, sends, receives)

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


def one_rank(rank, size, port, pipe, cores):
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
        row["forward"], row["backward"] = median_of(CALLS, forward), median_of(CALLS, backward)
        outputs.clear()
        dist.barrier()
        row["memory"] = peak_memory(lambda forward=forward, backward=backward: (forward(), backward()))
        row["slab"] = 4 * q.numel() * q.element_size()
        results.append(row)
    link = measured_link() if size == 2 else None
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


def run(size, cores):
    """What every rank of `size` measured."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    pipes = [context.Pipe() for _ in range(size)]
    processes = [
        context.Process(target=one_rank, args=(rank, size, port, theirs, cores))
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    found = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    return [results for results, _ in found], found[0][1]


def table(found, link) -> str:
    """Markdown."""
    lines = [
        "| problem | ranks | bytes sent per rank, forward / backward | halo / its gradient | "
        "forward (exposed) | backward (exposed) | model, forward | peak memory per rank | slabs of q, k, v, out |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for i, problem in enumerate(PROBLEMS):
        alone = max(rank[i]["forward"][0] for rank in found[1])
        for size, ranks in found.items():
            rows = [rank[i] for rank in ranks]
            sent = "equal" if all(r["forward"][2] == r["halo"] and r["backward"][2] == r["home"] for r in rows) else "DIFFERENT"
            worst = max(rows, key=lambda r: r["halo"])
            times = [max(r[way][0] for r in rows) for way in ("forward", "backward")]
            waits = [max(r[way][1] for r in rows) for way in ("forward", "backward")]
            shown = [f"{1e3 * t:.1f} ms ({1e3 * w:.1f})" for t, w in zip(times, waits, strict=True)]
            model = ""
            if size == 2:
                model = f"{1e3 * predict(problem, (2,), (0,), alone, link, itemsize=4).forward:.1f} ms"
            if size > 2:
                shown = ["", ""]
            megabytes = [x / 1e6 for x in (worst["forward"][2], worst["backward"][2], worst["halo"], worst["home"])]
            lines.append(
                f"| {problem.name} | {size} | {megabytes[0]:.3f} / {megabytes[1]:.3f} MB | "
                f"{megabytes[2]:.3f} / {megabytes[3]:.3f} MB, {sent} on every rank | {shown[0]} | {shown[1]} | {model} | "
                f"{max(r['memory'] for r in rows) / 1e6:.0f} MB | {max(r['slab'] for r in rows) / 1e6:.0f} MB |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, help="write the table there, too")
    args = parser.parse_args()
    cores, found, link = len(os.sched_getaffinity(0)), {}, None
    for size in (1, 2, 4):
        found[size], measured = run(size, cores)
        link = measured or link
    name = next((x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    text = (
        f"# Sharded attention on one machine\n\n{name}, {cores} cores, one thread per rank, float32, head dim 64, 4 "
        f"heads, PyTorch {torch.__version__}. Made by `python bench/distributed.py`, which says what the columns "
        f"mean.\n\n{table(found, link)}\n\nThe link, measured: {link.rate / 1e9:.2f} GB/s each way, "
        f"{1e6 * link.latency:.0f} us per message.\n"
    )
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
