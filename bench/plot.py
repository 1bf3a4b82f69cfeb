# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws a run of the bench: share of the FMA peak per problem, nearfield's and the peers', forward and
backward. `python bench/plot.py RUN.jsonl PICTURE.png`"""

from __future__ import annotations

import argparse

from report import NATIVE, OURS, Results

COLORS = ("#8c8c8c", "#e08214", "#1b9e77", "#a6761d", "#7570b3", "#e7298a", "#66a61e", "#d95f02", "#1f78b4")


def draw(results: Results, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for name, _ in results.figures))
    colors = dict(zip(results.peers, COLORS * 3, strict=False))
    figure, axes = plt.subplots(2, 1, figsize=(1.5 + 0.75 * len(names), 7), sharex=True, layout="constrained")
    for axis, direction, title in zip(axes, ("fwd", "bwd"), ("forward", "backward"), strict=True):
        for x, name in enumerate(names):
            by = results.figures.get((name, direction), {})
            ours = by.get(OURS) or by.get(NATIVE)
            if ours:
                axis.bar(x, 100 * ours.share, width=0.6, color="#2b6cb0", zorder=2)
                axis.annotate(
                    f"{100 * ours.share:.0f}", (x, 100 * ours.share), ha="center", va="bottom", fontsize=8
                )
            rivals = [(n, f) for n, f in by.items() if n in colors]
            for n, f in rivals:
                axis.plot(x, 100 * f.share, "D", color=colors[n], markersize=5, zorder=3)
        axis.set_ylabel(f"{title}: % of the FMA peak")
        axis.grid(axis="y", alpha=0.3, zorder=0)
        axis.set_ylim(bottom=0)
    axes[-1].set_xticks(range(len(names)), names)
    handles = [plt.Rectangle((0, 0), 1, 1, color="#2b6cb0", label=OURS)]
    handles += [plt.Line2D([], [], marker="D", ls="", color=c, label=n) for n, c in colors.items()]
    axes[0].legend(handles=handles, fontsize=8, ncols=2)
    figure.suptitle(results.title(), fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws a run of the bench.")
    parser.add_argument("run")
    parser.add_argument("picture")
    args = parser.parse_args()
    draw(Results(args.run), args.picture)


if __name__ == "__main__":
    main()
