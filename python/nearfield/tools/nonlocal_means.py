# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Non-local means denoising, written as neighborhood attention.

Non-local means (Buades, Coll, Morel: "A non-local algorithm for image denoising", CVPR 2005) replaces
every pixel by an average of the pixels around it, weighted by how much their patches look alike:

    out[i] = sum_j w_ij pixel[j] / sum_j w_ij,   w_ij = exp(-|P_i - P_j|^2 / h^2)

where P_i is the patch around pixel i, |.|^2 the mean over the patch's samples, and j runs over a window
around i. That is attention: queries and keys are patches, values are pixels, and normalised exponentials
are a softmax. The distance becomes a dot product exactly, because

    -|P_i - P_j|^2 = 2 P_i . P_j - |P_j|^2 - |P_i|^2

and the last term is the same for all keys of a query, so the softmax removes it. The norm of the key
travels as one more feature, which the query meets with a one:

    query_i = (f_i, 1)    key_j = (f_j, -|f_j|^2 / 2)    with f = P sqrt(2) / h and scale 1

Where this differs from other implementations: at the borders the window is shifted inwards, as always
in neighborhood attention, so every pixel is averaged over equally many others; all samples of a patch
count the same; a pixel's own weight is exp(0) = 1.

    clean = nonlocal_means(noisy, h=0.09, patch_size=7, window=21)                   # grey, [H, W]
    clean = nonlocal_means(noisy, h=0.09, patch_size=5, window=15, channel_axis=-1)  # colour, [H, W, 3]
    clean = nonlocal_means(noisy, h=0.05, patch_size=3, window=7)                    # volume, [Z, Y, X]
"""

import math
import operator

import numpy as np
import torch

kHeadDimMultiple = 8  # head dims that are multiples of 8 are the fast ones; zeros change no dot product


def nonlocal_means(image, h, patch_size=7, window=21, dilation=1, attend=None, *, channel_axis=None):
    """Denoises a picture or a volume by non-local means.

    image         array [H, W] or [Z, Y, X], with one more axis if `channel_axis` names it. float64 is
                  worked in float64, everything else in float32.
    h             filter strength in the unit of the pixels: patches that differ by h (root mean square)
                  count 1/e. About the standard deviation of the noise is a good start. In float32 it
                  should be above a thousandth of the range of the pixels, as the distances are rounded.
    patch_size    odd extent of a patch, one number or one per axis. Beyond the border the picture is
                  mirrored.
    window        extent of the window that a pixel is averaged over, one number or one per axis.
    dilation      step between the pixels of a window, one number or one per axis: window 11 with
                  dilation 2 reaches as far as window 21 at a quarter of the work.
    attend        what to call instead of nearfield.na2d or na3d, with the same arguments.
    channel_axis  the axis of the colours, None for grey.

    Returns a new array of image's shape, float64 or float32. Raises ValueError for a picture, patch or h
    that makes no sense, and what the attention raises for a window that does not fit into the picture.
    Memory: two copies of the picture with prod(patch_size) * channels + 1 features per pixel.
    """
    pixels = np.asarray(image)
    pixels = pixels.astype(np.float64 if pixels.dtype == np.float64 else np.float32, copy=False)
    pixels = pixels[..., None] if channel_axis is None else np.moveaxis(pixels, channel_axis, -1)
    rank = pixels.ndim - 1
    if rank not in (2, 3):
        raise ValueError(
            f"[nonlocal_means] got an image of shape {np.shape(image)} with channel_axis={channel_axis}, "
            "expected 2 or 3 axes besides that of the channels; a colour picture needs channel_axis=-1"
        )
    patch = _per_axis("patch_size", patch_size, rank)
    if any(p < 1 or p % 2 == 0 for p in patch):
        raise ValueError(
            f"[nonlocal_means] got patch_size={patch_size}, expected odd extents; a patch has a centre"
        )
    if not (math.isfinite(h) and h > 0):
        raise ValueError(f"[nonlocal_means] got h={h}, expected a positive number in the unit of the pixels")

    query, key = patch_features(pixels, h, patch)
    value = torch.from_numpy(np.ascontiguousarray(pixels))[None, ..., None, :]  # [1, *layout, 1, channels]
    if attend is None:
        attend = default_attend(rank)
    out = attend(
        query,
        key,
        value,
        kernel_size=_per_axis("window", window, rank),
        dilation=_per_axis("dilation", dilation, rank),
        scale=1.0,
    )
    denoised = out[0, ..., 0, :].numpy()
    return denoised[..., 0] if channel_axis is None else np.moveaxis(denoised, -1, channel_axis)


def patch_features(pixels, h, patch):
    """The queries and keys of `pixels` [*layout, channels], each a tensor [1, *layout, 1, features].

    Their dot product is -|P_i - P_j|^2 / h^2 plus a term that depends on the query alone.
    """
    layout, channels = pixels.shape[:-1], pixels.shape[-1]
    samples = math.prod(patch) * channels
    features = -(-(samples + 1) // kHeadDimMultiple) * kHeadDimMultiple

    # The dot product and the norm cancel where patches are alike. Taking the mean off first, which no
    # distance notices, keeps both small: float32 then costs about eps * |f|^2 / 2 of a weight.
    centred = pixels - pixels.mean(axis=tuple(range(len(layout))), dtype=np.float64).astype(pixels.dtype)
    centred *= math.sqrt(2.0 / samples) / h
    padded = np.pad(centred, [(p // 2, p // 2) for p in patch] + [(0, 0)], mode="reflect")
    patches = np.lib.stride_tricks.sliding_window_view(padded, patch, axis=tuple(range(len(patch))))

    key = np.zeros((*layout, features), dtype=pixels.dtype)
    for row, row_of_patches in zip(key, patches, strict=True):  # a reshape copies: a row's worth is small
        row[..., :samples] = row_of_patches.reshape(*layout[1:], samples)
    query = key.copy()
    query[..., samples] = 1.0
    key[..., samples] = np.einsum("...i,...i->...", query[..., :samples], query[..., :samples]) * -0.5
    return tuple(torch.from_numpy(x)[None, ..., None, :] for x in (query, key))


def default_attend(rank):
    """nearfield's own operation for a layout of `rank` axes."""
    import nearfield  # not at the top: `nearfield --help` shall not wait for the operators to load

    return {2: nearfield.na2d, 3: nearfield.na3d}[rank]


def _per_axis(name, number, rank):
    numbers = (number,) * rank if np.ndim(number) == 0 else tuple(number)
    if len(numbers) != rank:
        raise ValueError(f"[nonlocal_means] got {name}={number}, expected one number or {rank}")
    return tuple(operator.index(n) for n in numbers)
