# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss curves of a comparison as a picture: training on the left, test pictures on the right."""

import statistics

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

COLOURS = ("#0b6fb8", "#d95f02")  # told apart in grey and by the colour-blind as well


def draw_curves(path, runs):
    """Writes a PNG. Per model the mean over its runs (train.py: Run), with a band from lowest to highest."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    seeds = max(sum(other.model == run.model for other in runs) for run in runs)
    figure.suptitle(f"Handwritten digits: loss, mean and range of {seeds} seeds", fontsize=12)
    titles = ("training pictures, turned and moved", "test pictures, after each epoch")
    for panel, title, which in zip(panels, titles, ("train_loss", "test_loss"), strict=True):
        for name, colour in zip(dict.fromkeys(run.model for run in runs), COLOURS, strict=True):
            of_model = [run for run in runs if run.model == name]
            _draw_model(panel, [getattr(run, which) for run in of_model], _caption(of_model), colour)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("epoch")
        panel.grid(which="major", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("cross-entropy (nats, logarithmic)")
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].set_xlim(left=0)
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[1].legend(frameon=False, fontsize=9, loc="upper right")
    FigureCanvasAgg(figure).print_png(str(path))


def _draw_model(panel, curves, caption, colour):
    epochs = range(1, len(curves[0]) + 1)
    by_epoch = list(zip(*curves, strict=True))
    marker = "o" if len(by_epoch) == 1 else None  # one epoch makes no line
    panel.plot(epochs, [statistics.mean(e) for e in by_epoch], color=colour, label=caption, marker=marker)
    if len(curves) > 1:
        lowest, highest = [min(e) for e in by_epoch], [max(e) for e in by_epoch]
        panel.fill_between(epochs, lowest, highest, color=colour, alpha=0.18, linewidth=0)


def _caption(runs):
    accuracy = 100 * statistics.mean(run.accuracy for run in runs)
    return f"{runs[0].model}\n{runs[0].parameters:,} parameters, {accuracy:.1f} % right at the end"
