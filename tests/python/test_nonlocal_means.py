# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Non-local means written as attention is the textbook's, to rounding."""

import itertools

import numpy as np
import pytest

from nearfield.tools.nonlocal_means import nonlocal_means


def textbook(pixels, h, patch, window, dilation):
    """Non-local means of `pixels` [*layout, channels], pixel by pixel, as in Buades et al. 2005."""
    layout = pixels.shape[:-1]
    padded = np.pad(pixels, [(p // 2, p // 2) for p in patch] + [(0, 0)], mode="reflect")

    def patch_at(i):
        return padded[tuple(slice(x, x + p) for x, p in zip(i, patch, strict=True))]

    def seen(q, extent, k, d):  # the window: k pixels of q's own dilation group, shifted inwards at borders
        group = range(q % d, extent, d)
        begin = min(max(group.index(q) - k // 2, 0), len(group) - k)
        return group[begin : begin + k]

    out = np.empty_like(pixels)
    for i in np.ndindex(*layout):
        total, norm = 0.0, 0.0
        for j in itertools.product(*map(seen, i, layout, window, dilation)):
            weight = np.exp(-np.mean((patch_at(i) - patch_at(j)) ** 2) / h**2)
            total, norm = total + weight * pixels[j], norm + weight
        out[i] = total / norm
    return out


def scene(shape, seed=0):
    """Noise on two flat regions, so that some patches are alike and others are not; about 0 to 1."""
    clean = 0.25 + 0.5 * (np.indices(shape)[0] > shape[0] // 2)
    return clean + np.random.default_rng(seed).normal(0, 0.1, shape)


kCases = {
    "grey": ((16, 18), 0.1, (5, 5), (7, 7), (1, 1)),
    "grey, even window": ((11, 13), 0.15, (3, 3), (4, 6), (1, 1)),
    "grey, dilated": ((17, 16), 0.12, (3, 3), (5, 4), (3, 2)),
    "colour": ((15, 14, 3), 0.1, (3, 3), (7, 5), (1, 1)),
    "colour, dilated": ((15, 14, 3), 0.1, (5, 3), (3, 5), (2, 2)),
    "volume": ((7, 8, 9), 0.1, (3, 3, 3), (3, 5, 3), (1, 1, 1)),
    "volume, dilated": ((8, 7, 9), 0.1, (1, 3, 3), (3, 3, 3), (2, 1, 3)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", kCases)
def test_is_the_textbook(case, dtype):
    shape, h, patch, window, dilation = kCases[case]
    image = scene(shape).astype(dtype)
    channel_axis = -1 if "colour" in case else None
    ours = nonlocal_means(image, h, patch, window, dilation, channel_axis=channel_axis)
    pixels = image if channel_axis else image[..., None]
    expected = textbook(pixels.astype(np.float64), h, patch, window, dilation).reshape(shape)
    assert ours.dtype == dtype and ours.shape == shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("h", [0.01, 0.03, 0.3, 3.0])
def test_float32_errs_as_much_as_its_features_are_long(h):
    # Scores are differences of numbers up to |f|^2 = 2 (deviation from the mean)^2 / h^2, each rounded
    # to eps of itself; an average of values less than `span` apart then errs by at most span times that.
    image = scene((16, 16)).astype(np.float32)
    longest = 2 * float(np.abs(image - image.mean()).max()) ** 2 / h**2
    span = float(image.max() - image.min())
    ours = nonlocal_means(image, h, 3, 7)
    exact = nonlocal_means(image.astype(np.float64), h, 3, 7)
    assert np.abs(ours - exact).max() <= 4 * np.finfo(np.float32).eps * (1 + longest) * span


def test_brightness_does_not_matter():
    image = scene((14, 15))
    np.testing.assert_allclose(
        nonlocal_means(image + 1000, 0.1, 3, 5), nonlocal_means(image, 0.1, 3, 5) + 1000, rtol=0, atol=1e-8
    )


def test_limits_of_h():
    image = scene((12, 13))
    np.testing.assert_allclose(nonlocal_means(image, 1e-4, 3, 5), image, atol=1e-9)  # nobody else is alike
    whole = nonlocal_means(image[:, :12], 1e6, 3, 12)  # all are alike, and all are seen
    np.testing.assert_allclose(whole, np.full((12, 12), image[:, :12].mean()), atol=1e-9)


def test_flat_pictures_stay_flat():
    flat = np.full((9, 10, 4), 0.7, dtype=np.float32)
    np.testing.assert_allclose(nonlocal_means(flat, 0.01, 3, 3, channel_axis=-1), flat, atol=1e-6)
    np.testing.assert_allclose(nonlocal_means(flat, 0.01, 3, 3), flat, atol=1e-6)  # as a volume


def test_any_channel_axis_any_strides_any_dtype():
    image = scene((12, 13, 3)).astype(np.float32)
    kept = image.copy()
    expected = nonlocal_means(image, 0.1, 3, 5, channel_axis=-1)
    moved = nonlocal_means(np.moveaxis(image, -1, 0), 0.1, 3, 5, channel_axis=0)
    np.testing.assert_array_equal(np.moveaxis(moved, 0, -1), expected)
    np.testing.assert_array_equal(image, kept)
    counts = np.rint(image[..., 0] * 255).astype(np.uint8)
    assert nonlocal_means(counts, 25, 3, 5).dtype == np.float32
    np.testing.assert_array_equal(
        nonlocal_means(counts, 25, 3, 5), nonlocal_means(counts.astype(np.float32), 25, 3, 5)
    )


def test_attend_is_called_as_na2d():
    calls = []

    def attend(query, key, value, **arguments):
        calls.append((query, key, value, arguments))
        return value

    image = scene((10, 11, 3)).astype(np.float32)
    out = nonlocal_means(image, 0.1, 3, (5, 3), 2, attend, channel_axis=-1)
    query, key, value, arguments = calls[0]
    assert query.shape == key.shape == (1, 10, 11, 1, 32) and value.shape == (1, 10, 11, 1, 3)  # 27 + 1
    assert arguments == {"kernel_size": (5, 3), "dilation": (2, 2), "scale": 1.0}
    np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image": np.zeros(5)}, r"\[nonlocal_means\] got an image of shape \(5,\).*expected 2 or 3 axes"),
        ({"image": np.zeros((3, 9, 9, 9))}, "channel_axis=-1"),
        ({"patch_size": 4}, r"got patch_size=4, expected odd"),
        ({"patch_size": 0}, "got patch_size=0, expected odd"),
        ({"patch_size": (3, 3, 3)}, "expected one number or 2"),
        ({"window": (3,)}, r"got window=\(3,\), expected one number or 2"),
        ({"h": 0}, "got h=0, expected a positive number"),
        ({"h": float("nan")}, "got h=nan"),
        ({"window": 10}, "9"),  # the operation's own words, which name the largest legal window
        ({"window": 5, "dilation": 2}, "4"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        nonlocal_means(**({"image": np.zeros((9, 9)), "h": 1.0, "patch_size": 3, "window": 3} | arguments))
