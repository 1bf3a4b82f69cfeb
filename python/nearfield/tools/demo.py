# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""`nearfield demo`: non-local means as neighborhood attention, on real pictures and a real volume.

Every input is denoised at several windows by `nonlocal_means` (na2d, na3d), by scikit-image's own
non-local means with the same patch and window, and by the same attention done densely: PyTorch's
scaled_dot_product_attention with the mask that lets a query see the same keys, where that fits into
memory. PSNR is in decibels, against the picture before the noise. scikit-image treats borders in another
way and takes off the noise variance, so only PSNRs are compared with it, never pixels; dense attention
gives our pixels, and the demo says how closely.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nearfield.tools import CommandError
from nearfield.tools.demo_inputs import builtin_inputs, picture_input
from nearfield.tools.demo_methods import kDense, kSlow, planned, psnr, run
from nearfield.tools.demo_pictures import draw_overview, draw_side_by_side, save_picture
from nearfield.tools.nonlocal_means import nonlocal_means

kFoldedWidth = 120  # of a table that goes to a file or a pipe, which says nothing about its width


def main(args):
    """Runs the demo with the arguments of `nearfield demo` (cli.py). Raises CommandError."""
    started = time.perf_counter()
    console = Console(width=None if sys.stdout.isatty() else kFoldedWidth, highlight=False)
    if args.image:
        add_noise = not args.no_noise
        inputs = [picture_input(args.image, args.sigma, args.seed, args.max_side, add_noise)]
    else:
        inputs = builtin_inputs(args.sigma, args.seed)
    out = Path(args.out)
    overview = Path(args.overview) if args.overview else None
    for folder in (out, overview.parent) if overview else (out,):  # before the work, not after it
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot make the folder {folder}: {error.strerror}") from error

    results = denoise_all(inputs, console)
    console.print(results_table(results))
    for line in remarks(results):
        console.print(line, markup=False)
    try:
        written = write_pictures(inputs, results, out, denoised=bool(args.image))
        if overview:
            written.append(write_overview(inputs, results, overview))
    except OSError as error:
        raise CommandError(f"cannot write {error.filename}: {error.strerror}") from error
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True, markup=False)
    console.print(f"all of it in {time.perf_counter() - started:.0f} s")


def denoise_all(inputs, console):
    """Every method on every input, with a progress bar on a terminal; returns the Results."""
    results = [result for source in inputs for result in planned(source)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading", total=len(results))
        for rank in {len(source.layout) for source in inputs}:  # the first call loads code: do not time it
            nonlocal_means(np.zeros((8,) * rank, dtype=np.float32), h=1.0, patch_size=3, window=3)
        for result in results:
            progress.update(task, description=f"{result.source.title}: {result.method}")
            run(result)
            progress.advance(task)
    return results


def results_table(results):
    table = Table(title="Non-local means as neighborhood attention")
    for column in ("input", "method", "window", "dilation", "PSNR\nbefore", "PSNR\nafter", "time"):
        table.add_column(column, justify="left" if column in ("input", "method") else "right")
    previous = None
    for result in results:
        source = result.source
        if source is not previous:
            table.add_section()
        table.add_row(
            source.title.replace("[", r"\[") if source is not previous else "",
            result.method,
            str(result.window or "any"),
            str(result.dilation or "any"),
            _decibels(psnr(source.clean, source.noisy)),
            _decibels(result.psnr),
            result.note or f"{result.seconds:.2f} s",
            style="bold" if result.is_ours else None,
        )
        previous = source
    return table


def remarks(results):
    """What a reader of the table should know, a sentence or two a line."""
    yield (
        f"nearfield and torch on {torch.get_num_threads()} threads, scikit-image on one; "
        "scikit-image has no dilation. PSNR in dB."
    )
    apart = [
        float(np.abs(ours.pixels - dense.pixels).max())
        for dense in results
        for ours in results
        if dense.method == kDense and ours.is_ours and dense.is_same_neighborhood(ours)
    ]
    if apart:
        yield f"Pixels of nearfield's and of dense attention differ by at most {max(apart):.1e}."
    for source in {id(result.source): result.source for result in results}.values():
        if source.remark:
            yield source.remark
        if source.clean is None:
            yield f"The noise is the picture's own, about {source.sigma:.4f}: with no clean picture, no PSNR."


def write_pictures(inputs, results, out, denoised=False):
    """Writes a PNG per whole input, and with `denoised` our result alone; returns the paths.

    No file is named like its input: the folder may be the one that the user's picture lies in.
    """
    written = []
    for source in inputs:
        if source.is_part:
            continue
        best = best_of_ours(source, results)
        written.append(out / f"{source.name}-comparison.png")
        title = f"{source.title}, noise {source.sigma:.2g}, window {best.window}"
        draw_side_by_side(written[-1], panels(best, results), title, source.is_volume, source.voxel)
        if denoised:
            written.append(out / f"{source.name}-denoised.png")
            save_picture(written[-1], best.pixels)
    return written


def write_overview(inputs, results, path):
    """Writes one compact PNG with a row per whole input; returns its path."""
    rows = [
        (panels(best_of_ours(source, results), results), source.is_volume, source.voxel)
        for source in inputs
        if not source.is_part
    ]
    draw_overview(path, rows)
    return path


def best_of_ours(source, results):
    """Our undilated Result with the best PSNR; without a clean picture, the one with the least window."""
    ours = [r for r in results if r.source is source and r.is_ours and r.dilation == 1]
    return max(ours, key=lambda r: -r.window if r.psnr is None else r.psnr)


def panels(best, results):
    """(caption, pixels) of one input: clean, noisy, ours and scikit-image's with the same window."""
    source = best.source
    skimage = next(r for r in results if r.method == kSlow and r.is_same_neighborhood(best))
    if source.clean is None:
        shown = [("as it is", source.noisy, None)]
    else:
        shown = [("clean", source.clean, None), ("noisy", source.noisy, psnr(source.clean, source.noisy))]
    shown += [(best.method, best.pixels, best.psnr), ("scikit-image", skimage.pixels, skimage.psnr)]
    return [
        (name if decibels is None else f"{name}, {decibels:.1f} dB", pixels)
        for name, pixels, decibels in shown
    ]


def _decibels(value):
    return "-" if value is None else f"{value:.2f}"
