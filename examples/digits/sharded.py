# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains the digits transformer with its tokens cut among the ranks of torchrun, and once more whole.

    torchrun --nproc-per-node 2 examples/digits/sharded.py [--epochs 5] [--pictures N]

Every rank holds a slab of rows of every picture and of all tokens made from it. The attention layers fetch
the keys that their windows need, the convolutions a row of each neighbour; the parameters are the same on
every rank, and their gradients are added up after each step. Prints both loss curves, which are the same but
for rounding. Needs what `pip install '.[demo]'` installs.
"""

import argparse
import functools

import torch
import torch.distributed as dist
import torch.nn.functional as F
from model import Convolution, NeighborhoodTransformer
from torch import nn
from train import load_data, train

import nearfield.distributed as nd
from nearfield import NeighborhoodAttention2D


class ShardedConvolution(nn.Module):
    """A convolution of whole tokens, on slabs of rows; they begin at even rows where the stride is 2."""

    def __init__(self, whole, mesh):
        super().__init__()
        self.whole, self._mesh = whole, mesh

    def forward(self, x):
        x = nd.halo(x, 1, self._mesh).permute(0, 3, 1, 2)  # zeros beyond the border: the padding along rows
        c = self.whole
        return F.conv2d(x, c.weight, c.bias, c.stride, (0, 1), groups=c.groups).permute(0, 2, 3, 1)


class ShardedTransformer(NeighborhoodTransformer):
    """The model on slabs, with the same weights from the same seed; in and out are whole."""

    def __init__(self, mesh):
        super().__init__(attention=functools.partial(NeighborhoodAttention2D, mesh=mesh))
        self._mesh = mesh
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Convolution):
                    setattr(module, name, ShardedConvolution(child, mesh))

    def forward(self, pictures):
        x = nd.shard(pictures.permute(0, 2, 3, 1), self._mesh)
        x = self.norm(self.blocks(self.stem(x)))
        return self.head(nd.unshard(x, self._mesh).mean((1, 2)))

    def sum_gradients(self):
        """Up to unshard() every rank has seen its own tokens; behind it all have seen the same."""
        head = set(self.head.parameters())
        nd.sum_gradients([p for p in self.parameters() if p not in head], self._mesh)


def main(words=None):
    """Both trainings with the arguments of the command line; returns their Runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=5, help="passes over the training data (default: 5)")
    parser.add_argument("--pictures", type=int, help="train on so many only (default: all)")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    alone = not dist.is_initialized()
    if alone:
        dist.init_process_group("gloo")
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    data = load_data(args.pictures)
    one = train("one process", NeighborhoodTransformer, 0, args.epochs, data)
    many = train(
        f"{dist.get_world_size()} ranks",
        lambda: ShardedTransformer(mesh),
        0,
        args.epochs,
        data,
        after_backward=ShardedTransformer.sum_gradients,
    )
    if dist.get_rank() == 0:
        print(f"loss per epoch   {one.model:>15} {many.model:>15}      difference")
        for epoch, (a, b) in enumerate(zip(one.train_loss, many.train_loss, strict=True)):
            print(f"{epoch + 1:14}   {a:15.8f} {b:15.8f} {abs(a - b):15.1e}")
        print(f"test accuracy    {one.accuracy:15.4f} {many.accuracy:15.4f}")
        print(f"seconds of CPU   {one.seconds:15.1f} {many.seconds:15.1f}")
    if alone:
        dist.destroy_process_group()
    return one, many


if __name__ == "__main__":
    main()
