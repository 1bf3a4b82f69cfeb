# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws a run of the bench: share of the FMA peak per problem, nearfield's and the peers', forward and
backward. `python bench/plot.py RUN.jsonl PICTURE.png`"""

from __future__ import annotations

import argparse

from report import NATIVE, OURS, Results

COLORS = {"sdpa": "#d95f02", "flex": "#1b9e77", "tile-sdpa": "#e7298a", "gather": "#7f7f7f"}
COLORS |= {"openvino": "#7570b3", "onnxruntime": "#a6761d"}


def draw(results: Results, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for name, _ in results.figures))
    looks = {}  # a peer's variant, as +mkl512, is the same diamond hollow
    for peer in results.peers:
        color = COLORS.get(peer.partition("+")[0], "black")
        looks[peer] = {
            "marker": "D",
            "ls": "",
            "ms": 5,
            "color": color,
            "mfc": "none" if "+" in peer else color,
        }
    figure, axes = plt.subplots(2, 1, figsize=(1.5 + 0.75 * len(names), 7), sharex=True, layout="constrained")
    for axis, direction, title in zip(axes, ("fwd", "bwd"), ("forward", "backward"), strict=True):
        for x, name in enumerate(names):
            by = results.figures.get((name, direction), {})
            ours = by.get(OURS) or by.get(NATIVE)
            if ours:
                axis.bar(x, 100 * ours.share, width=0.6, color="#2b6cb0", zorder=2)
                axis.text(x - 0.33, 100 * ours.share, f"{100 * ours.share:.0f}", va="bottom", fontsize=8)
            for n, f in by.items():
                if n in looks and not f.noisy:
                    axis.plot(x, 100 * f.share, zorder=3, **looks[n])
        axis.set_ylabel(f"{title}: % of the FMA peak")
        axis.grid(axis="y", alpha=0.3, zorder=0)
        axis.set_ylim(bottom=0)
    axes[-1].set_xticks(range(len(names)), names)
    handles = [plt.Rectangle((0, 0), 1, 1, color="#2b6cb0", label=OURS)]
    handles += [plt.Line2D([], [], label=n, **look) for n, look in looks.items()]
    figure.legend(handles=handles, fontsize=8, ncols=6, loc="outside lower center")
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
