"""How long things take that are not training: listing targets, importing the layers, exporting a LeNet.

    python benchmarks/startup.py [--rounds 5]

Each is measured in fresh processes, and the median is printed; packages must be installed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

EXPORT = """
import time
from models import lenet, our_layers
import torch
from quant_core.export import export
net, x = lenet(our_layers()), torch.randn(4, 3, 32, 32)
net(x)
start = time.perf_counter()
export(net, (x,), target="qcdq", dynamic_shapes="batch")
print(time.perf_counter() - start)
"""
IMPORT = """
import time, torch
start = time.perf_counter()
import quant_nn
quant_nn.QuantLinear
print(time.perf_counter() - start)
"""


def printed(code: str) -> float:
    """The number that a fresh interpreter prints."""
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    return float(done.stdout.split()[-1])


def listing() -> float:
    """The seconds of a whole process that lists the targets."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "quant_core", "export", "--list-targets"]
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    measures: dict[str, Callable[[], float]] = {
        "quant export --list-targets, whole process": listing,
        "import quant_nn, over import torch": lambda: printed(IMPORT),
        "export and verify a LeNet, first in a process": lambda: printed(EXPORT),
    }
    for name, measure in measures.items():
        print(f"{name:48} {statistics.median(measure() for _ in range(rounds)):6.2f} s")


if __name__ == "__main__":
    main()
