"""Several processes, each with a part of the data, end with the ranges of one that has all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import quant_nn as qnn

WORKER = """
import faulthandler, os, sys, torch
import torch.distributed as dist
from torch import nn
import quant_nn as qnn
from quant_core.errors import QuantError
from quant_nn.calibration import Calibration

faulthandler.dump_traceback_later(240, exit=True)  # where it hangs, if it does
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
data = torch.load(f"{folder}/data.pt")
data = data[:4] if rank == 0 else data[4:]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.rare = qnn.QuantIdentity(), qnn.QuantReLU(bit_width=5), qnn.QuantIdentity()

    def forward(self, x):
        x = self.second(self.first(x))
        return self.rare(x) if x.max() > 50 else x

def refused(call, name):
    try:
        call()
    except QuantError as error:
        open(f"{folder}/{name}.txt", "w").write(str(error))

def in_a_loop():
    calibration = Calibration(Net(), "max")
    with calibration.collecting():
        calibration.model(data[rank])
    calibration.finish()

for method in sys.argv[3:]:
    net = Net()
    report = qnn.calibrate(net, data, method)
    torch.save((net.state_dict(), report.batches), f"{folder}/{method}{rank}.pt")
net = Net()
steps = Calibration(net, "entropy")
steps.collect(data[:1] if rank else data[:2])
refused(steps.finish, f"early{rank}")  # the batch that reaches all quantizers is still to come
steps.collect(data[1:] if rank else data[2:])
torch.save((net.state_dict() if steps.finish() else None, steps.finish().batches), f"{folder}/steps{rank}.pt")
refused(lambda: qnn.calibrate(Net(), data, "statistics"), f"statistics{rank}")
if rank == 1:
    data[1][0, 0] = float("nan")
refused(lambda: qnn.calibrate(Net(), data, "max"), f"data{rank}")
refused(in_a_loop, f"loop{rank}")
dist.barrier()
os._exit(0)  # at once: the threads of a process group may wait for each other forever
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

    for method, name in (*zip(METHODS, METHODS, strict=True), ("entropy", "steps")):
        alone = Net()
        qnn.calibrate(alone, torch.load(tmp_path / "data.pt"), method)
        for rank in range(2):
            state, batches = torch.load(tmp_path / f"{name}{rank}.pt")
            assert batches == 6
            assert all(torch.equal(state[key], tensor) for key, tensor in alone.state_dict().items())

    for name in ("data", "loop"):
        assert (tmp_path / f"{name}1.txt").read_text() == (
            "a tensor that holds infinities or NaN cannot be calibrated\n"
            "  at first (QuantIdentity)\n"
            "  1 of its 200 elements are not finite, the first is nan\n"
            "  Look for infinities and NaN in the data, and in the weights of the layers before this one."
        )
        assert (tmp_path / f"{name}0.txt").read_text() == (
            "process 1 has failed, and nothing has been calibrated\n"
            "  InputError: a tensor that holds infinities or NaN cannot be calibrated, at first (QuantIdentity)\n"
            "  Correct what is wrong there, and calibrate again."
        )
    for rank in range(2):
        refused = (tmp_path / f"statistics{rank}.txt").read_text()
        assert refused.startswith("statistics of their own cannot be collected by several processes\n")
        assert (tmp_path / f"early{rank}.txt").read_text() == (
            "quantizers have seen no data\n"
            "  at rare.act_quant\n"
            "  no tensor reached them in 3 batches; nothing has been calibrated\n"
            "  Give data that takes every path through the model, or name the others as only=[…]."
        )
