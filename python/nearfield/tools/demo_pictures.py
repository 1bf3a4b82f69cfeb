# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""The demo's pictures: clean, noisy, ours and scikit-image's side by side, whole and in detail.

A panel is a caption and an array of the input's shape; several panels of one input make a figure.
"""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

kDetailPixels = 144  # extent of the detail in the second row; a half of smaller pictures
kOverviewColours = 256  # noise compresses badly: a palette keeps the overview below 400 KB
kPanelInches = 3.2


def draw_side_by_side(path, panels, title, volume=False, voxel=(1.0, 1.0, 1.0)):
    """Writes a PNG with two rows: the whole pictures, then a detail; for volumes, two slices.

    panels  (caption, array) pairs; arrays [H, W], [H, W, 3], or [X, Y, Z] if `volume`
    """
    views = (_axial, _coronal) if volume else (_whole, _detail)
    rows = [[view(array, voxel) for _, array in panels] for view in views]
    figure = _figure(rows, [caption for caption, _ in panels], kPanelInches)
    figure.suptitle(title, fontsize=13)
    FigureCanvasAgg(figure).print_png(str(path))


def draw_overview(path, inputs):
    """Writes one compact PNG with one row per input and the same columns in all.

    inputs  list of (panels, is a volume, voxel)
    """
    rows = [
        [(_axial if volume else _detail)(array, voxel) for _, array in panels]
        for panels, volume, voxel in inputs
    ]
    captions = [[caption for caption, _ in panels] for panels, _, _ in inputs]
    figure = _figure(rows, captions, 2.2)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    picture = Image.open(png).convert("RGB").quantize(kOverviewColours, dither=Image.Dither.NONE)
    picture.save(path, format="PNG", optimize=True)


def save_picture(path, pixels):
    """Writes the pixels [H, W] or [H, W, 3], 0 to 1, as a PNG of their own size."""
    Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(path)


def _figure(rows, captions, inches):
    """A figure of `rows` of (pixels, aspect); captions are one list for the first row, or one per row."""
    if isinstance(captions[0], str):
        captions = [captions] + [[""] * len(captions)] * (len(rows) - 1)
    tallest = [max(pixels.shape[0] * aspect / pixels.shape[1] for pixels, aspect in row) for row in rows]
    columns = len(rows[0])
    height = inches * sum(tallest) + 0.45 * sum(any(row) for row in captions) + 0.4
    figure = Figure(figsize=(inches * columns, height), dpi=110, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=tallest)
    for axes_row, row, caption_row in zip(grid, rows, captions, strict=True):
        for axes, (pixels, aspect), caption in zip(axes_row, row, caption_row, strict=True):
            axes.imshow(
                np.clip(pixels, 0, 1), cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="nearest"
            )
            axes.set_axis_off()
            axes.set_title(caption, fontsize=10)
    return figure


def _whole(array, voxel):
    return array, 1.0


def _detail(array, voxel):
    """A window around the middle, a bit above it: that is where photographs have their subject."""
    height, width = array.shape[:2]
    tall, wide = (min(kDetailPixels, extent // 2) for extent in (height, width))
    top, left = int((height - tall) * 0.3), (width - wide) // 2
    return array[top : top + tall, left : left + wide], 1.0


def _axial(array, voxel):
    return array[:, :, array.shape[2] // 2].T[::-1], voxel[1] / voxel[0]


def _coronal(array, voxel):
    return array[:, array.shape[1] // 2, :].T[::-1], voxel[2] / voxel[0]
