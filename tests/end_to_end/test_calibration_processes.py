"""Several processes, each with a part of the data, end with the ranges of one that has all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import quant_nn as qnn

WORKER = """
import sys, torch
import torch.distributed as dist
from torch import nn
import quant_nn as qnn
from quant_core.errors import QuantError

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
data = torch.load(f"{folder}/data.pt")[rank::2]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.rare = qnn.QuantIdentity(), qnn.QuantReLU(bit_width=5), qnn.QuantIdentity()

    def forward(self, x):
        x = self.second(self.first(x))
        return self.rare(x) if x.max() > 50 else x

def refused(method):
    try:
        qnn.calibrate(Net(), data, method)
    except QuantError as error:
        return str(error)

for method in sys.argv[3:]:
    net = Net()
    report = qnn.calibrate(net, data, method)
    torch.save((net.state_dict(), report.batches), f"{folder}/{method}{rank}.pt")
open(f"{folder}/statistics.txt", "w").write(refused("statistics"))
if rank == 1:
    data[1][0, 0] = float("nan")
open(f"{folder}/{rank}.txt", "w").write(refused("max"))
dist.destroy_process_group()
"""
METHODS = ("max", "entropy", "percentile", "mse")


class Net(nn.Module):
    """As in the worker: one of its quantizers is reached by a single batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.rare = qnn.QuantIdentity(), qnn.QuantReLU(bit_width=5), qnn.QuantIdentity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x))
        return self.rare(x) if x.max() > 50 else x


def test_two_processes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    magnitudes = [0.1, 3.0, 40.0, 1.0, 1.0, 0.01]  # only rank 0 meets the largest
    torch.save([m * torch.randn(50, 4, generator=generator) for m in magnitudes], tmp_path / "data.pt")
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    running = [subprocess.Popen([*command, str(rank), str(tmp_path), *METHODS]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]

    for method in METHODS:
        alone = Net()
        qnn.calibrate(alone, torch.load(tmp_path / "data.pt"), method)
        for rank in range(2):
            state, batches = torch.load(tmp_path / f"{method}{rank}.pt")
            assert batches == 6
            assert all(torch.equal(state[key], tensor) for key, tensor in alone.state_dict().items())

    assert (tmp_path / "1.txt").read_text() == (
        "a tensor that holds infinities or NaN cannot be calibrated\n"
        "  at first (QuantIdentity)\n"
        "  1 of its 200 elements are not finite, the first is nan\n"
        "  Look for infinities and NaN in the data, and in the weights of the layers before this one."
    )
    assert (tmp_path / "0.txt").read_text() == (
        "process 1 has failed, and nothing has been calibrated\n"
        "  InputError: a tensor that holds infinities or NaN cannot be calibrated, at first (QuantIdentity)\n"
        "  Correct what is wrong there, and calibrate again."
    )
    refused = (tmp_path / "statistics.txt").read_text()
    assert refused.startswith("statistics of their own cannot be collected by several processes\n")
