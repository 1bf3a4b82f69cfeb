# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""What the demo denoises: photographs of scikit-image, the MRI series of nibabel, or the user's picture.

All pixels are float32 with 0 for black and 1 for white. Nothing is downloaded: the pictures lie in the
packages themselves.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import skimage.data
from PIL import Image, ImageOps, UnidentifiedImageError

from nearfield.tools import CommandError


@dataclass(frozen=True)
class Strength:
    """The patch, and each method's h in units of the noise's standard deviation.

    Every method was tuned in the same way: PSNR on a 160 x 160 crop of the camera picture, a 120 x 140
    crop of the cat and a third of the volume, h in steps of a tenth of sigma, at the smallest window and the
    demo's own noise. scikit-image subtracts the noise variance from the distances, so its best h differ
    from ours; its handbook's 0.8 (fast) and 0.6 (slow) lie up to 1.8 dB below the best for slow.
    """

    patch: int
    ours: float
    fast: float  # denoise_nl_means(fast_mode=True): all samples of a patch count the same, as with ours
    slow: float  # denoise_nl_means(fast_mode=False): those near the centre count more


kGrey = Strength(patch=5, ours=1.1, fast=0.7, slow=1.2)
kColour = Strength(patch=3, ours=1.0, fast=0.5, slow=1.2)
kVolume = Strength(patch=3, ours=1.0, fast=0.4, slow=1.4)

kPlaneSettings = ((11, 1), (21, 1), (11, 2))  # (window, dilation); the last reaches as far as the second
kVolumeSettings = ((5, 1), (7, 1), (5, 2))

kLeastSigma = 0.001  # of noise to remove; with h of less, float32 would round the distances too coarsely


@dataclass(frozen=True)
class Input:
    """One thing to denoise. `clean` is None where the noise is the picture's own."""

    name: str
    noisy: np.ndarray  # [H, W], [H, W, 3] or [X, Y, Z]
    clean: np.ndarray | None
    sigma: float
    strength: Strength
    settings: tuple
    colour: bool = False
    voxel: tuple = (1.0, 1.0, 1.0)  # extents of a voxel, for pictures of volumes
    is_part: bool = False
    remark: str = ""  # what was done to it that the user did not ask for

    @property
    def layout(self):
        return self.noisy.shape[:-1] if self.colour else self.noisy.shape

    @property
    def title(self):
        return f"{self.name} {'x'.join(map(str, self.layout))}"

    @property
    def is_volume(self):
        return len(self.layout) == 3

    def part(self, box, settings):
        """The part inside `box`, a tuple of slices."""
        return replace(
            self,
            noisy=self.noisy[box],
            clean=self.clean[box],
            settings=settings,
            is_part=True,
        )


def builtin_inputs(sigma=None, seed=0):
    """The inputs of `nearfield demo`: grey, colour, a volume, and crops small enough for dense attention."""
    noise = np.random.default_rng(seed)
    camera = _noised("camera", skimage.data.camera() / 255.0, sigma or 0.1, noise)
    cat = _noised("cat", skimage.data.chelsea() / 255.0, sigma or 0.1, noise)
    series, voxel = mri_volume()
    volume = _noised("MRI", series, sigma or 0.05, noise, voxel=voxel, volume=True)
    return [
        camera,
        camera.part(np.s_[64:192, 176:304], ((11, 1), (11, 2))),
        cat,
        volume,
        volume.part(np.s_[40:64, 36:60, :], ((5, 1), (5, 2))),
    ]


def mri_volume():
    """The first volume [X, Y, Z] of the MRI series among nibabel's test data, and a voxel's extents in mm."""
    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    if not path.exists():
        raise CommandError("this nibabel comes without its test data, which the volume is part of")
    series = nibabel.load(path)
    volume = np.asarray(series.dataobj[..., 0], dtype=np.float64)
    # A few bright vessels would leave the brain dark: the brightest voxel in a thousand is white.
    return volume / np.percentile(volume, 99.9), tuple(float(mm) for mm in series.header.get_zooms()[:3])


def picture_input(path, sigma=None, seed=0, max_side=1024, add_noise=True):
    """The picture in the file `path`, noised with `sigma`, or as it is if `add_noise` is False.

    Raises CommandError for a file that does not exist, holds no picture, or one too small for a window.
    """
    path = Path(path)
    pixels, remark = _read_picture(path, max_side)
    settings = tuple((w, d) for w, d in kPlaneSettings if w * d <= min(pixels.shape[:2]))
    if not settings:
        raise CommandError(
            f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
            f"expected at least {kPlaneSettings[0][0]} each way"
        )
    if add_noise:
        found = _noised(path.stem, pixels, sigma or 0.1, np.random.default_rng(seed))
        return replace(found, settings=settings, remark=remark)
    estimate = estimate_sigma(pixels)
    if estimate < kLeastSigma:
        raise CommandError(f"{path} has no noise to remove; leave --no-noise away and some will be added")
    colour = pixels.ndim == 3
    strength = kColour if colour else kGrey
    noisy = pixels.astype(np.float32)
    return Input(path.stem, noisy, None, estimate, strength, settings, colour, remark=remark)


def estimate_sigma(pixels):
    """The standard deviation of white noise in `pixels` [H, W] or [H, W, 3].

    The median of the finest diagonal Haar details, which hold little but noise (Donoho and Johnstone,
    "Ideal spatial adaptation by wavelet shrinkage", 1994).
    """
    even = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2].astype(np.float64)
    details = (even[::2, ::2] - even[::2, 1::2] - even[1::2, ::2] + even[1::2, 1::2]) / 2
    return float(np.median(np.abs(details)) / 0.6745)


def _noised(name, clean, sigma, noise, voxel=(1.0, 1.0, 1.0), volume=False):
    noisy = clean + noise.normal(0.0, sigma, clean.shape)
    colour = clean.ndim == 3 and not volume
    return Input(
        name,
        noisy.astype(np.float32),
        clean.astype(np.float32),
        sigma,
        kVolume if volume else kColour if colour else kGrey,
        kVolumeSettings if volume else kPlaneSettings,
        colour,
        voxel,
    )


def _read_picture(path, max_side):
    """The pixels [H, W] or [H, W, 3] of a picture file, float64, 0 to 1; and what was done to them."""
    if path.is_dir():
        raise CommandError(f"{path} is a folder, expected a picture")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)  # a telephone notes in the file how it was held
            picture.load()
    except FileNotFoundError as error:
        raise CommandError(f"{path} does not exist, expected a picture") from error
    except UnidentifiedImageError as error:
        raise CommandError(f"{path} is no picture in a format that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    if picture.mode.startswith("I"):  # 16 bits, however Pillow holds them
        picture, white = picture.convert("I").convert("F"), 65535.0
    elif picture.mode == "F":
        white = max(1.0, picture.getextrema()[1])
    else:
        picture, white = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"), 255.0
    remark = ""
    if max_side and max(picture.size) > max_side:
        found = "x".join(map(str, picture.size[::-1]))
        picture = ImageOps.contain(picture, (max_side, max_side), Image.Resampling.LANCZOS)
        remark = f"{path} was shrunk from {found}; --max-side 0 keeps it as it is."
    return np.clip(np.asarray(picture, dtype=np.float64) / white, 0.0, 1.0), remark
