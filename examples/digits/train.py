# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a neighborhood-attention transformer and a convolutional network of equal size on handwritten
digits, with the same recipe and the same batches, and compares them.

    python examples/digits/train.py [--seeds 3] [--epochs 30] [--out DIR] [--compat natten]

Prints a table and writes digits.png, the loss curves. The data are scikit-learn's: 1797 pictures of 8 x 8
pixels by 13 writers. A third, drawn once and the same for every seed and model, is for testing; nothing
is chosen by it: no early stop, no best epoch. The recipe was found on 300 pictures of the rest. Same seed,
same numbers on one machine: one thread does it all. Needs what `pip install '.[demo]'` installs.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from model import ConvolutionalNet, NeighborhoodTransformer
from picture import draw_curves
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits

import nearfield.compat

TEST_PICTURES = 600
WARMUP_EPOCHS = 2
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.05
BATCH = 32
# Most of turn (radians), shear, stretch across and down, shift right and down (0.25: one pixel).
WARP = torch.tensor((0.12, 0.08, 0.08, 0.08, 0.2, 0.2))
FOLDED_WIDTH = 120  # of a table that goes to a file or a pipe


@dataclass
class Run:
    """One training."""

    model: str
    parameters: int
    train_loss: list[float]  # per epoch: mean cross-entropy in nats, while training, on warped pictures
    test_loss: list[float]  # per epoch, after it
    accuracy: float  # on the test pictures, after the last epoch
    seconds: float  # of the processor, training only


def load_data(train_pictures=None):
    """((pictures, labels) for training, the same for testing); pictures `[N, 1, 8, 8]`, 0 to 1."""
    data = load_digits()
    pictures = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:TEST_PICTURES], order[TEST_PICTURES:][:train_pictures]
    return (pictures[train], labels[train]), (pictures[test], labels[test])


def warped(pictures, generator):
    """Every picture turned, stretched and moved a little, each in its own way; outside is background."""
    n = len(pictures)
    turn, shear, wide, tall, right, down = (2 * torch.rand(6, n, generator=generator) - 1) * WARP[:, None]
    rows = (torch.stack((1 + wide, shear - turn, right), 1), torch.stack((turn, 1 + tall, down), 1))
    grid = F.affine_grid(torch.stack(rows, 1), pictures.shape, align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def train(name, build, seed, epochs, data, advance=lambda: None, after_backward=lambda model: None):
    """Trains build() and returns its Run. Weights, batches and warps follow from the seed."""
    (pictures, labels), test = data
    torch.manual_seed(seed)
    model = build()
    generator = torch.Generator().manual_seed(seed)  # its own, so that all models see the same batches
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]  # biases and norms: no decay
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
    )
    steps = -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, epochs * steps, pct_start=min(WARMUP_EPOCHS / epochs, 0.3)
    )
    run = Run(name, sum(p.numel() for p in model.parameters()), [], [], 0.0, 0.0)
    for _ in range(epochs):
        started = time.process_time()
        model.train()
        total = 0.0
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH):
            loss = F.cross_entropy(model(warped(pictures[batch], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            after_backward(model)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        run.seconds += time.process_time() - started
        run.train_loss.append(total / len(labels))
        loss, run.accuracy = evaluate(model, *test)
        run.test_loss.append(loss)
        advance()
    return run


@torch.no_grad()
def evaluate(model, pictures, labels):
    """(mean cross-entropy in nats, share that is right)."""
    model.eval()
    logits = model(pictures)
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).double().mean().item()


def attention_class(compat):
    """NeighborhoodAttention2D by the one import or by the other."""
    if compat == "natten":
        nearfield.compat.install("natten")
        from natten import NeighborhoodAttention2D
    else:
        from nearfield import NeighborhoodAttention2D
    return NeighborhoodAttention2D


def results_table(runs, epochs):
    table = Table(title=f"Handwritten digits, {epochs} epochs")
    for column in (
        "model",
        "parameters",
        "seeds",
        "test accuracy\nmean ± deviation",
        "worst, best",
        "CPU time of\na training",
    ):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in dict.fromkeys(run.model for run in runs):
        of_model = [run for run in runs if run.model == name]
        right = [100 * run.accuracy for run in of_model]
        deviation = f" ± {statistics.stdev(right):.2f}" if len(right) > 1 else ""
        table.add_row(
            name,
            f"{of_model[0].parameters:,}",
            str(len(right)),
            f"{statistics.mean(right):.2f}{deviation} %",
            f"{min(right):.2f}, {max(right):.2f} %",
            f"{statistics.mean(run.seconds for run in of_model):.1f} s",
        )
    return table


def main(words=None):
    """Runs the comparison with the arguments of the command line; returns the Runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="trainings per model (default: 3)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training data (default: 30)")
    parser.add_argument("--pictures", type=int, help="train on so many only (default: all)")
    parser.add_argument(
        "--out", type=Path, default=Path("."), help="folder of digits.png (default: this one)"
    )
    parser.add_argument("--compat", choices=["natten"], help="import the attention layer from natten")
    args = parser.parse_args(words)
    if min(args.seeds, args.epochs, args.pictures or 1) < 1:
        parser.error("expected at least one seed, one epoch and one picture")
    args.out.mkdir(parents=True, exist_ok=True)

    started = time.perf_counter()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load_data(args.pictures)
    attention = attention_class(args.compat)
    models = {
        "neighborhood transformer": lambda: NeighborhoodTransformer(attention=attention),
        "convolutional net": ConvolutionalNet,
    }
    console = Console(width=None if sys.stdout.isatty() else FOLDED_WIDTH, highlight=False)
    runs = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=args.seeds * args.epochs * len(models))
        for seed in range(args.seeds):
            for name, build in models.items():
                progress.update(task, description=f"{name}, seed {seed}")
                runs.append(train(name, build, seed, args.epochs, data, lambda: progress.advance(task)))
    console.print(results_table(runs, args.epochs))
    path = args.out / "digits.png"
    draw_curves(path, runs)
    console.print(f"wrote {path}; all of it in {time.perf_counter() - started:.0f} s", soft_wrap=True)
    return runs


if __name__ == "__main__":
    main()
