"""Train a network of the zoo, on one process or several, and go on from where a run stopped.

python examples/train.py tfc-w2a2 --epochs 20 --output runs/tfc
python examples/train.py tfc-w2a2 --epochs 40 --output runs/tfc --resume
torchrun --nproc-per-node 2 examples/train.py mobilenet-v1-4b --data /data/imagenet --strategy fsdp
"""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from quant_core.checkpoints import load_checkpoint
from quant_core.errors import QuantError
from training import checkpoint, loop
from training.data import digits, image_folder
from training.processes import Strategy, joined, processes
from zoo import NETWORKS


@click.command(help=__doc__, context_settings={"show_default": True})
@click.argument("network", type=click.Choice(list(NETWORKS)), metavar="NETWORK")
@click.option("--data", default="digits", help="'digits', or a folder with train/<class>/ and test/<class>/.")
@click.option("--size", type=int, help="Height and width of the images, where the network has a choice.")
@click.option("--epochs", default=20, help="How often to see each image, those of a run that is resumed included.")
@click.option("--batch-size", default=64, help="Images of one step, over all processes.")
@click.option("--optimizer", type=click.Choice(["adam", "sgd"]), default="adam")
@click.option("--lr", default=0.01, help="The largest learning rate; it falls along half a cosine.")
@click.option("--weight-decay", default=0.0)
@click.option("--seed", default=0, help="Of the first weights and of the order of images.")
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="A checkpoint of weights to start from.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("run"), help="Folder for checkpoint and results."
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the folder.")
@click.option(
    "--strategy", type=click.Choice(["ddp", "fsdp"]), default="ddp", help="How several processes share the work."
)
@click.option("--stop-after", type=int, help="Stop after so many epochs; --resume goes on.")
@click.option("--workers", default=0, help="Processes that read images.")
@click.option("--threads", type=int, help="Cores for one process; small networks gain nothing from more than one.")
def main(
    network: str,
    data: str,
    size: int | None,
    epochs: int,
    batch_size: int,
    optimizer: str,
    lr: float,
    weight_decay: float,
    seed: int,
    weights: Path | None,
    output: Path,
    resume: bool,
    strategy: Strategy,
    stop_after: int | None,
    workers: int,
    threads: int | None,
) -> None:
    """See the head of this file."""
    with processes() as here:
        console = Console(quiet=not here.is_first)
        if threads is not None:
            torch.set_num_threads(threads)
        torch.manual_seed(seed)
        channels, height, width = NETWORKS[network].size
        area = (channels, size or height, size or width)
        split = digits(area) if data == "digits" else image_folder(Path(data), area)
        net = build(network, split.classes, area).to(here.device)
        output.mkdir(parents=True, exist_ok=True)
        if resume and not (output / "checkpoint.pt").exists():
            raise click.UsageError(
                f"{output} holds no checkpoint.pt to go on from: leave --resume out, or name another --output"
            )
        settings: checkpoint.Settings = {
            **{"network": network, "size": size, "batch-size": batch_size, "optimizer": optimizer},
            **{"lr": lr, "weight-decay": weight_decay, "seed": seed, "classes": split.classes},
        }
        try:
            saved = checkpoint.load(output / "checkpoint.pt", settings) if resume else None
        except ValueError as error:
            raise click.UsageError(f"{error}: resume it with the same options, or name another --output") from None
        if saved is not None:
            net.load_state_dict(saved["model"])
        elif weights is not None:
            try:
                load_checkpoint(net, torch.load(weights, map_location=here.device, weights_only=True))
            except QuantError as error:
                raise click.UsageError(f"{weights} cannot be loaded: {error}") from None
        whole = joined(net, strategy, here)
        train = loop.batches(split.train, batch_size, here, seed=seed, workers=workers, whole=True)
        test = loop.batches(split.test, batch_size, here, workers=workers)
        if not len(train):
            raise click.UsageError(f"there are fewer images to train on than --batch-size {batch_size}")
        kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
        steps = kind(whole.parameters(), lr=lr, weight_decay=weight_decay)
        total = epochs * len(train)
        schedule = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / total))
        done = 0 if saved is None else checkpoint.resume(saved, whole, steps, schedule)
        last = epochs if stop_after is None else min(epochs, done + stop_after)
        results = []
        with Progress(console=console, transient=True) as progress:
            for epoch in range(done, last):
                loss = loop.train_epoch(whole, train, steps, schedule, epoch, here, progress)
                reached = loop.accuracy(whole, test, here)
                checkpoint.save(output / "checkpoint.pt", whole, steps, schedule, epoch + 1, here, settings)
                results.append((epoch + 1, loss, reached))
        if results:
            report(console, network, results)
        else:
            console.print(f"nothing to do: {done} epochs are done, and --epochs is {epochs}")
        if here.is_first and results:
            epoch, loss, reached = results[-1]
            found = {"network": network, "epochs": epoch, "seed": seed, "loss": loss, "accuracy": reached}
            (output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def build(network: str, classes: int, size: tuple[int, int, int]) -> nn.Module:
    """The network, for images of a size of its own where it takes one."""
    make = NETWORKS[network].build
    if size == NETWORKS[network].size:
        return make(classes=classes)
    if "size" not in inspect.signature(make).parameters:
        raise click.UsageError(f"{network} takes images of {NETWORKS[network].size}, not of {size}: leave --size out")
    try:
        return make(classes=classes, size=size)
    except ValueError as error:
        raise click.UsageError(f"{network} cannot be built for --size {size[1]}: {error}") from None


def report(console: Console, network: str, results: list[tuple[int, float, float]]) -> None:
    """A table of epochs."""
    table = Table("epoch", "loss", "test accuracy", title=network, box=None)
    for epoch, loss, reached in results:
        table.add_row(str(epoch), f"{loss:.4f}", f"{reached:.1%}")
    console.print(table)


if __name__ == "__main__":
    main()
