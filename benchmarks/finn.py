"""Export to QONNX and FINN-ONNX: seconds and sizes against Brevitas's exporter to QONNX, and how they grow with depth.

    python benchmarks/finn.py [--rounds 3]

Everything runs in one process and one thread, in turns, after one export of each kind that is not counted; the median of the
processor's time is printed. Our files are not compared with the model here, as Brevitas does not compare its. export-finn and
Brevitas must be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from models import Layers, brevitas_layers, mobilenet, our_layers, resnet8
from torch import Tensor, nn

from quant_core.export import export

DEPTHS = (25, 50, 100, 200)
IMAGE = (1, 3, 32, 32)


def deep(layers: Layers, depth: int = 100) -> nn.Module:
    """As many convolutions as asked for, each with a rectifier."""
    modules: list[nn.Module] = [layers.entry(), layers.conv(3, 8, 3, padding=1, bias=False), layers.relu()]
    for _ in range(depth - 1):
        modules += [layers.conv(8, 8, 3, padding=1, bias=False), layers.relu()]
    return nn.Sequential(*modules)


NETWORKS: dict[str, Callable[[Layers], nn.Module]] = {
    "ResNet-8": resnet8,
    "MobileNetV1": mobilenet,
    "100 layers": deep,
}


def ours(target: str) -> Callable[[nn.Module, Tensor, Path], object]:
    """An export of ours."""
    return lambda net, x, path: export(net, (x,), target=target, path=path, verify=False)


def brevitas(net: nn.Module, x: Tensor, path: Path) -> object:
    """Brevitas's export to QONNX."""
    from brevitas.export import export_qonnx

    return export_qonnx(net, args=x, export_path=str(path))


def ready(build: Callable[[Layers], nn.Module], layers: Layers) -> nn.Module:
    """A network whose scales are known."""
    torch.manual_seed(0)
    net = build(layers)
    net(torch.randn(2, *IMAGE[1:]))
    return net.eval()


def measured(run: Callable[[nn.Module, Tensor, Path], object], net: nn.Module) -> tuple[float, int]:
    """The processor's seconds and the bytes of one export."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        start = time.process_time()
        run(net, torch.randn(IMAGE), path)
        return time.process_time() - start, path.stat().st_size


def compare(rounds: int) -> None:
    """The table against Brevitas."""
    mine, theirs = our_layers(quantize_input=True), brevitas_layers(quantize_input=True)
    exporters = {"qonnx": (ours("qonnx"), mine), "finn": (ours("finn"), mine), "brevitas": (brevitas, theirs)}
    for run, layers in exporters.values():
        measured(run, ready(lambda built: deep(built, 2), layers))
    print(f"{'network':14}" + "".join(f"{name:>18}" for name in exporters))
    for name, build in NETWORKS.items():
        nets = {exporter: ready(build, layers) for exporter, (_, layers) in exporters.items()}
        found: dict[str, list[tuple[float, int]]] = {exporter: [] for exporter in exporters}
        for _ in range(rounds):
            for exporter, (run, _layers) in exporters.items():
                found[exporter].append(measured(run, nets[exporter]))
        cells = (
            f"{statistics.median(seconds for seconds, _ in each):7.2f} s {each[0][1] / 1024:5.0f} KiB"
            for each in found.values()
        )
        print(f"{name:14}" + "".join(f"{cell:>18}" for cell in cells))


def growth(rounds: int) -> None:
    """The seconds and the size for each layer, at several depths."""
    print(f"\n{'layers':14}" + "".join(f"{target:>26}" for target in ("qonnx", "finn")))
    for depth in DEPTHS:
        net = ready(lambda layers, depth=depth: deep(layers, depth), our_layers(quantize_input=True))  # type: ignore[misc]
        cells = []
        for target in ("qonnx", "finn"):
            found = [measured(ours(target), net) for _ in range(rounds)]
            seconds = statistics.median(each for each, _ in found)
            cells.append(f"{1000 * seconds / depth:6.1f} ms {found[0][1] / 1024 / depth:6.2f} KiB each")
        print(f"{depth:<14}" + "".join(f"{cell:>26}" for cell in cells))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    compare(rounds)
    growth(rounds)


if __name__ == "__main__":
    main()
