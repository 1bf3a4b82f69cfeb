# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Two image classifiers of equal size: a hierarchical neighborhood-attention transformer, and a residual
convolutional network to hold it against. Both take pictures `[B, 1, 8, 8]` and give logits `[B, classes]`.

Only arguments that NATTEN's module has as well are used, so this file runs on either import:

    from nearfield import NeighborhoodAttention2D
    from natten import NeighborhoodAttention2D
"""

import torch
from torch import nn

from nearfield import NeighborhoodAttention2D


class Convolution(nn.Conv2d):
    """A 3 x 3 convolution of tokens, channels last: `[B, X, Y, C]` to `[B, X/stride, Y/stride, C_out]`."""

    def __init__(self, channels, channels_out, stride=1, groups=1):
        super().__init__(channels, channels_out, 3, stride, padding=1, groups=groups)

    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Pre-norm transformer block on tokens `[B, X, Y, C]`.

    The depthwise convolution tells tokens where they lie among others (conditional position encoding,
    Chu et al. 2021): NATTEN's module has no position bias.
    """

    def __init__(self, channels, heads, kernel_size, dilation, mlp_ratio, attention):
        super().__init__()
        hidden = int(mlp_ratio * channels)
        self.position = Convolution(channels, channels, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.attention = attention(channels, heads, kernel_size, dilation=dilation)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, x):
        x = x + self.position(x)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class NeighborhoodTransformer(nn.Module):
    """Convolutional stem, stages of neighborhood attention with a downsampling between them, mean, head.

    Args:
        channels: of each stage's tokens; every stage after the first has half the extents.
        dilations: per stage, one per block.
        head_dim: channels per head; divides all of `channels`.
        attention: the class of the attention layers.
    """

    def __init__(
        self,
        classes=10,
        channels=(32, 64),
        dilations=((1, 2), (1, 1)),
        head_dim=8,
        kernel_size=3,
        mlp_ratio=2.0,
        attention=NeighborhoodAttention2D,
    ):
        super().__init__()
        width = channels[0]
        self.stem = nn.Sequential(
            Convolution(1, width), nn.GELU(), Convolution(width, width), nn.LayerNorm(width)
        )
        blocks = []
        for stage, of_blocks in enumerate(dilations):
            if stage:
                blocks += [Convolution(width, channels[stage], stride=2), nn.LayerNorm(channels[stage])]
                width = channels[stage]
            heads = width // head_dim
            blocks += [Block(width, heads, kernel_size, d, mlp_ratio, attention) for d in of_blocks]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module):
        # Scores of about unit variance. torch's default gives 1/3: windows then take long to find a focus.
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)

    def forward(self, pictures):
        x = self.blocks(self.stem(pictures.permute(0, 2, 3, 1)))
        return self.head(self.norm(x).mean((1, 2)))


class Residual(nn.Module):
    """ResNet's basic block on `[B, C, X, Y]`, with a projection where the shape changes."""

    def __init__(self, channels, channels_out, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or channels != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class ConvolutionalNet(nn.Module):
    """A small ResNet: a stem and as many stages, of `blocks` basic blocks each.

    The default widths give it the parameter count of the default NeighborhoodTransformer.
    """

    def __init__(self, classes=10, channels=(27, 52), blocks=(2, 2)):
        super().__init__()
        layers = [nn.Conv2d(1, channels[0], 3, padding=1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
        width = channels[0]
        for stage, (width_out, count) in enumerate(zip(channels, blocks, strict=True)):
            for block in range(count):
                layers.append(Residual(width, width_out, stride=2 if stage and not block else 1))
                width = width_out
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, pictures):
        return self.head(self.features(pictures).mean((2, 3)))
