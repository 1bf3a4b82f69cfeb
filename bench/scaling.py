# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""A model of sharded neighborhood attention on many GPUs: exact boxes, stated rates.

    python bench/scaling.py [--plot docs/images/scaling.png]

Work is counted by queries, since every query of a window sees as many keys; what travels is `ShardPlan`'s,
for the rank in the middle of the mesh, which fetches most. A pass takes

    agreement + max(inner queries, halo) + border queries + copies,  halo = latency per message + bytes / rate

where inner queries are those that need no halo; with links inside a node and between nodes at the same time,
the slower one counts. Where the processor that computes also sends (gloo), the two add up. Copies are what a
rank moves within its memory: results into the slab, messages, and the keys that border queries see. The
backward pass takes 2.5 times the work unless measured, and sends gradients home as float32 for 16-bit keys,
while the inner queries run. bench/distributed.py holds the model against two processes.

The agreement, before either pass, overlaps nothing. Up to 32 ranks each sends 4 KiB to each, all at once;
beyond, they gather digests of 64 bytes, in as many hops as the ranks have binary digits, those within a node
over its link. (A call that was not seen before gathers texts of some 200 bytes, too; that is left out.) Then
the host of every rank looks at what every rank said, 2 us for each: an assumption, as are the hops.
"""

import argparse
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from nearfield.distributed import ShardPlan
from nearfield.distributed import _boxes as boxes


@dataclass(frozen=True)
class Link:
    name: str
    rate: float  # bytes per second and rank, each way
    latency: float  # seconds per message
    overlaps: bool = True  # it carries bytes while the ranks compute


@dataclass(frozen=True)
class Machine:
    link: Link
    copies: float  # bytes per second that a rank copies within its memory
    between: Link | None = None  # the link between nodes
    node: int | None = None  # ranks of one

    def agreement(self, ranks: int) -> float:
        """Seconds until every rank knows that all make the same call."""
        if ranks == 1:
            return 0.0
        inside = ranks if self.between is None else min(self.node, ranks)
        widest = self.link if inside == ranks else self.between
        if ranks <= PAIRWISE:
            travel = widest.latency + (ranks - 1) * MESSAGE / widest.rate
        else:
            within = _hops(inside)
            travel = within * self.link.latency + (_hops(ranks) - within) * widest.latency
            travel += ranks * DIGEST / widest.rate
        return travel + ranks * HOST


def _hops(ranks: int) -> int:
    return (ranks - 1).bit_length()


@dataclass(frozen=True)
class Problem:
    name: str
    layout: tuple
    window: tuple
    heads: int
    dim: int

    def plan(self, mesh, dims):
        return ShardPlan(self.layout, self.window, mesh_shape=mesh, shard_dims=dims)


@dataclass(frozen=True)
class Passes:
    """Seconds, of them those of the agreement before each pass, and bytes that arrive in the forward pass."""

    forward: float
    backward: float
    agreement: float
    bytes: int


NVLINK = Link("NVLink 4, in a node of 8", 450e9, 4e-6)
INFINIBAND = Link("InfiniBand NDR, one port per GPU", 50e9, 8e-6)
NODE = 8
COPIES = 1.3e12  # bytes per second of one H100: half of 2.6 TB/s, since a copy reads and writes

# Forward seconds on one H100 that the design note of the GPU kernels expects for bf16 (not measured).
GPU = [
    (Problem("2-D: 256x256, window 80x80, 24 heads of 128", (256, 256), (80, 80), 24, 128), 10.2e-3),
    (
        Problem("3-D: 30x48x80, window 18x24x24, 24 heads of 128", (30, 48, 80), (18, 24, 24), 24, 128),
        36.5e-3,
    ),
    (Problem("3-D: 16x44x80, window 16x24x16, 24 heads of 128", (16, 44, 80), (16, 24, 16), 24, 128), 8.2e-3),
]
# Ten times the extents of each axis that is not covered by its window: a longer video, a larger picture.
LARGE = [
    (
        Problem("2-D: 2560x2560, window 80x80, 24 heads of 128", (2560, 2560), (80, 80), 24, 128),
        100 * 10.2e-3,
    ),
    (
        Problem("3-D: 120x192x320, window 18x24x24, 24 heads of 128", (120, 192, 320), (18, 24, 24), 24, 128),
        64 * 36.5e-3,
    ),
]
PAIRWISE, MESSAGE, DIGEST = 32, 4096, 64  # ranks up to which each tells each; bytes of what they tell
HOST = 2e-6  # seconds in which a host looks at what one rank said


def predict(problem, mesh, dims, alone, machine, itemsize=2, heads=1, alone_backward=None) -> Passes:
    """A pass on `mesh`, from the seconds of a forward pass on one rank, and of a backward pass if they are
    known. heads: GPUs that share the heads (tensor parallel): work and bytes fall by as much."""
    plan, link = problem.plan(mesh, dims), machine.link
    rank = plan.rank_at(tuple(n // 2 for n in mesh))
    share, slab = plan.share(rank), boxes.volume(plan.slab(rank))
    part = slab / math.prod(problem.layout) / heads
    inner = sum(boxes.volume(task.queries) for task in share.local) / max(slab, 1)
    one = problem.heads / heads * problem.dim * itemsize  # bytes of a token in one tensor
    times, fetched = {}, 0
    for peer, message in share.fetch:
        outside = machine.between is not None and peer // machine.node != rank // machine.node
        size = sum(map(boxes.volume, message)) * 2 * one
        n, amount = times.get(outside, (0, 0))
        times[outside] = (n + 1, amount + size)
        fetched += size
    links = {False: link, True: machine.between}
    agreement = machine.agreement(plan.ranks)

    def seconds(work, factor, copied):
        travel = max(
            (links[o].latency * n + factor * b / links[o].rate for o, (n, b) in times.items()), default=0
        )
        ready = work * inner
        both = max(ready, travel) if link.overlaps else ready + travel
        return agreement + both + work * (1 - inner) + copied / machine.copies

    # Results go to their slab; messages are packed; keys that lie in several pieces are put together.
    pieced = sum(boxes.volume(task.keys) for task in share.remote) * 2 * one
    wide = 1 if itemsize == 4 else 2  # gradients of 16-bit keys are float32
    gathered = sum(boxes.volume(task.keys) for task in (*share.local, *share.remote)) * 2 * one
    forward = seconds(alone * part, 1, slab * one + fetched + pieced)
    # Backward dK and dV begin as zeros, what each task finds is added, and what came home.
    copies = slab * one + 2 * slab * one * wide + pieced + (gathered + fetched) * wide
    work = (2.5 * alone if alone_backward is None else alone_backward) * part
    return Passes(forward, seconds(work, wide, copies), agreement, int(fetched))


def meshes(problem, ranks):
    """(mesh, dims) for all ways to cut the axes among so many ranks."""
    axes = range(len(problem.layout))
    subsets = (itertools.combinations(axes, n) for n in range(1, len(problem.layout) + 1))
    for dims in itertools.chain.from_iterable(subsets):
        for mesh in itertools.product(*(range(1, problem.layout[a] + 1) for a in dims)):
            if math.prod(mesh) == ranks and (len(dims) == 1 or min(mesh) > 1):
                yield mesh, dims


def best(problem, alone, gpus, heads=1):
    """(seconds of both passes, passes, mesh, dims) of the fastest mesh on so many GPUs, `heads` of which
    share the heads of one slab."""
    ranks, found = gpus // heads, []
    if ranks == 1:
        work = alone / heads
        return 3.5 * work, Passes(work, 2.5 * work, 0.0, 0), (1,), (0,)
    machine = Machine(NVLINK, COPIES, INFINIBAND, max(NODE // heads, 1))
    for mesh, dims in meshes(problem, ranks):
        passes = predict(problem, mesh, dims, alone, machine, heads=heads)
        found.append((passes.forward + passes.backward, passes, mesh, dims))
    return min(found, key=lambda x: x[0])


COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def rows(problems=tuple(GPU + LARGE)):
    """(problem, heads shared by, GPUs, efficiency, Passes, mesh, dims)."""
    for problem, alone in problems:
        for heads in (1, 8):
            for gpus in COUNTS:
                if gpus >= heads:
                    seconds, passes, mesh, dims = best(problem, alone, gpus, heads)
                    yield problem, heads, gpus, 3.5 * alone / (gpus * seconds), passes, mesh, dims


def table(found, counts=(8, 64, 1024)) -> str:
    """Markdown; without the rows in which the heads are all that is cut."""
    lines = [
        "| problem, 24 heads of 128 | GPUs | heads cut by | mesh over axes | forward | backward | "
        "agreement, in each | halo per GPU | efficiency |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for problem, heads, gpus, efficiency, passes, mesh, dims in found:
        if gpus in counts and gpus > heads:
            cut = " × ".join(map(str, mesh)) + " over " + ", ".join(map(str, dims))
            lines.append(
                f"| {_short(problem)} | {gpus} | {heads} | {cut} | {1e3 * passes.forward:.2f} ms | "
                f"{1e3 * passes.backward:.2f} ms | {1e3 * passes.agreement:.2f} ms | "
                f"{passes.bytes / 1e6:.1f} MB | {100 * efficiency:.2g} % |"
            )
    return "\n".join(lines)


def _short(problem: Problem) -> str:
    return problem.name.partition(", 24")[0]


# Colour, line, marker: curves that lie on each other can be told apart.
STYLES = [
    ("#1b9e77", "-", "o"),
    ("#d95f02", "--", "s"),
    ("#7570b3", ":", "^"),
    ("#e7298a", "-.", "D"),
    ("#666666", (0, (5, 1, 1, 1, 1, 1)), "v"),
]


def draw(found, path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5.2), sharey=True)
    for axis, heads in zip(axes, (1, 8), strict=True):
        for (problem, _), (color, line, marker) in zip(GPU + LARGE, STYLES, strict=True):
            points = [(g, 100 * e) for p, h, g, e, *_ in found if p == problem and h == heads]
            axis.plot(
                *zip(*points, strict=True),
                color=color,
                linestyle=line,
                marker=marker,
                markersize=5,
                markerfacecolor="none",
                label=_short(problem),
            )
        axis.set_xscale("log", base=2)
        axis.set_xlim(0.85, 1200)
        axis.set_xticks(COUNTS, [str(n) for n in COUNTS])
        axis.set_xlabel("GPUs")
        axis.set_title("tokens cut" if heads == 1 else "heads cut by 8 in a node, tokens between nodes")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("efficiency of forward and backward, %")
    axes[0].set_ylim(0, 105)
    figure.suptitle(
        "Model, nothing measured: H100, NVLink 450 GB/s, InfiniBand 50 GB/s each way and GPU, bf16;\n"
        "24 heads of 128; mesh: the fastest of all",
        fontsize=10,
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, title="Both panels", loc="lower center", ncols=3, fontsize=8, handlelength=4
    )
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--plot", type=Path, help="draw the curves there")
    args = parser.parse_args()
    found = list(rows())
    print(table(found))
    if args.plot:
        draw(found, args.plot)


if __name__ == "__main__":
    main()
