# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What the demo compares: our non-local means, scikit-image's, and ours with its attention done densely."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from skimage.restoration import denoise_nl_means

from nearfield.tools.demo_inputs import Input
from nearfield.tools.nonlocal_means import default_attend, nonlocal_means

kDenseBytes = 2_000_000_000  # mask and scores of dense attention may take this much
kFast = "scikit-image, fast"
kSlow = "scikit-image, slow"
kDense = "torch, dense"


@dataclass
class Result:
    """One line of the table. A line that was not run has no pixels and a note that says why."""

    source: Input
    method: str
    window: int | None = None  # None where it makes no difference
    dilation: int | None = None
    pixels: np.ndarray | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def is_ours(self):
        return self.method.startswith("nearfield")

    @property
    def psnr(self):
        return None if self.pixels is None else psnr(self.source.clean, self.pixels)

    def is_same_neighborhood(self, other):
        """Whether both average over the same pixels of the same input."""
        ours = (self.source is other.source, self.window, self.dilation)
        return ours == (True, other.window, other.dilation)


def psnr(clean, pixels):
    """Peak signal-to-noise ratio in dB, with a peak of 1; None without a clean picture."""
    if clean is None:
        return None
    error = np.mean((clean.astype(np.float64) - pixels) ** 2)
    return math.inf if error == 0 else float(-10 * np.log10(error))


def planned(source):
    """The Results to come for an Input, in the order of the table, still without pixels."""
    name = f"nearfield na{len(source.layout)}d"
    dense_bytes = math.prod(source.layout) ** 2 * (1 + 4)  # bool mask and float32 scores
    results = []
    for window, dilation in source.settings:
        methods = [name]
        if dilation == 1:  # scikit-image has no other
            methods += [kFast, kSlow]
        if dense_bytes <= kDenseBytes:
            methods.append(kDense)
        results += [Result(source, method, window, dilation) for method in methods]
    if dense_bytes > kDenseBytes:
        results.append(Result(source, kDense, note=f"needs {dense_bytes / 1e9:,.0f} GB"))
    return results


def run(result):
    """Fills in the pixels and the seconds of a planned Result."""
    if result.note:
        return
    source, strength = result.source, result.source.strength
    channel_axis = -1 if source.colour else None
    if result.method in (kFast, kSlow):
        fast = result.method == kFast
        started = time.perf_counter()
        result.pixels = denoise_nl_means(
            source.noisy,
            patch_size=strength.patch,
            patch_distance=result.window // 2,
            h=(strength.fast if fast else strength.slow) * source.sigma,
            sigma=source.sigma,
            fast_mode=fast,
            channel_axis=channel_axis,
        )
    else:
        if result.method == kDense:
            attend = dense_attention(source.layout, result.window, result.dilation)
        else:
            attend = default_attend(len(source.layout))
        started = time.perf_counter()
        result.pixels = nonlocal_means(
            source.noisy,
            strength.ours * source.sigma,
            strength.patch,
            result.window,
            result.dilation,
            attend,
            channel_axis=channel_axis,
        )
    result.seconds = time.perf_counter() - started


def dense_attention(layout, window, dilation):
    """scaled_dot_product_attention under the mask of a neighborhood, to be called as nearfield.na2d is.

    The mask [tokens, tokens] is made here and not in the call, so that it is not part of what is timed.
    """
    mask = torch.ones(1, 1, dtype=torch.bool)
    for extent in layout:
        axis = _visible_keys(extent, window, dilation)
        mask = (mask[:, None, :, None] & axis[None, :, None, :]).reshape(mask.shape[0] * extent, -1)

    def heads_first(x):
        return x.flatten(1, -3).transpose(1, 2)  # [1, heads, tokens, features]

    def attend(query, key, value, kernel_size, dilation, scale):
        # Values as wide as keys take torch's fused kernel, which never holds all scores: that is dense
        # attention at its best.
        wide = torch.nn.functional.pad(value, (0, query.shape[-1] - value.shape[-1]))
        out = torch.nn.functional.scaled_dot_product_attention(
            heads_first(query), heads_first(key), heads_first(wide), attn_mask=mask, scale=scale
        )
        return out.transpose(1, 2).reshape(wide.shape)[..., : value.shape[-1]]

    return attend


def _visible_keys(extent, window, dilation):
    """Which keys the queries of an axis see, bool [extent, extent].

    Asked of the operation itself, so that the rule is written once: where all scores are equal, an
    average of one-hot values is above zero at exactly the keys that are seen.
    """
    from nearfield import na1d

    equal = torch.zeros(1, extent, 1, 8)
    one_hot = torch.eye(extent).reshape(1, extent, 1, extent)
    return na1d(equal, equal, one_hot, kernel_size=window, dilation=dilation)[0, :, 0] > 0
