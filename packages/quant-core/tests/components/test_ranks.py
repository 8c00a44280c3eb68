"""Two processes that each have a part of the batch find what one process finds in all of it."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from quant_core.components import (
    AbsAve,
    AbsMax,
    AbsMinMax,
    AbsPercentile,
    ConstBitWidth,
    IntQuant,
    MeanSigmaStd,
    NegativeMinOrZero,
    NegativePercentileOrZero,
    ParameterFromRuntimeStatsScaling,
    PercentileInterval,
    PerChannel,
    RuntimeStatsScaling,
    Statistic,
    each_rank_alone,
)

STATISTICS: dict[str, Callable[[], Statistic]] = {
    "AbsMax": AbsMax,
    "AbsMax per channel": lambda: AbsMax(PerChannel(1)),
    "AbsMinMax": AbsMinMax,
    "NegativeMinOrZero": NegativeMinOrZero,
    "AbsPercentile": lambda: AbsPercentile(99.0),
    "AbsPercentile of most": lambda: AbsPercentile(40.0),
    "AbsPercentile per channel": lambda: AbsPercentile(97.0, PerChannel(1)),
    "NegativePercentileOrZero": lambda: NegativePercentileOrZero(2.0),
    "PercentileInterval": lambda: PercentileInterval(3.0, 98.0),
    "AbsAve": AbsAve,
    "MeanSigmaStd": lambda: MeanSigmaStd(2.0),
}
SIZES = [(5, 3), (4, 4), (1, 7)]
"""How many examples of a batch the two ranks have."""


def batch(step: int) -> Tensor:
    return torch.randn(sum(SIZES[step]), 3, 11, generator=torch.Generator().manual_seed(step))


def part(step: int, rank: int) -> Tensor:
    return batch(step).split(SIZES[step])[rank]


class Net(nn.Module):
    """A weight, and a threshold that is collected and learned, or follows each batch."""

    def __init__(self, scaling: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]).reshape(1, 3, 1))
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.weight
        return (y / self.scaling(y)).tanh().mean(dim=(1, 2))


class Quantized(nn.Module):
    """A weight, and what quantizes it times the input."""

    def __init__(self, quant: IntQuant) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]).reshape(1, 3, 1))
        self.quant = quant

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.quant(x * self.weight)[0]
        return value


SCALINGS: dict[str, Callable[[], nn.Module]] = {
    "learned": lambda: ParameterFromRuntimeStatsScaling(AbsPercentile(99.0), collect_stats_steps=2),
    "following": lambda: RuntimeStatsScaling(AbsMax(PerChannel(1)), scaling_shape=(1, 3, 1)),
}


def trained(net: nn.Module, parts: Callable[[int], Tensor]) -> dict[str, Tensor]:
    """What is left of a network after some steps of training, on batches of one size for both ranks."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in (1, 1, 1, 1):
        optimizer.zero_grad()
        (net(parts(step)) - 1).square().mean().backward()
        optimizer.step()
    return {key.removeprefix("module."): value.detach().clone() for key, value in net.state_dict().items()}


LONGEST = 120
"""Seconds after which a process says where it hangs, and ends."""


def work(rank: int, folder: str) -> None:
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name, make in STATISTICS.items():
        for step in range(len(SIZES)):
            x = part(step, rank).requires_grad_()
            statistic = make().of_batch(x)
            statistic.sum().backward()
            found[name, step] = statistic.detach(), x.grad
    with each_rank_alone():
        found["alone"] = AbsMax().of_batch(part(0, rank))
    found["weight"] = AbsMax()(part(0, rank))
    for name, make_scaling in SCALINGS.items():
        net = nn.parallel.DistributedDataParallel(Net(make_scaling()))
        found[name] = trained(net, lambda step: part(step, rank))
    x = part(0, rank)
    x[0] = torch.nan if rank == 1 else 0.0
    try:
        SCALINGS["learned"]().train()(x)
    except Exception as error:
        found["error"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)  # at once: nothing is left to do, and the threads of a process group may wait for each other forever


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(folder)]) for rank in range(2)]
    assert [process.wait(timeout=2 * LONGEST) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("step", range(len(SIZES)))
@pytest.mark.parametrize("name", STATISTICS)
def test_each_rank_has_the_statistic_of_the_joined_batch(ranks: list[dict[Any, Any]], name: str, step: int) -> None:
    x = batch(step).requires_grad_()
    wanted = STATISTICS[name]()(x)
    wanted.sum().backward()
    assert x.grad is not None
    for rank, gradient in enumerate(x.grad.split(SIZES[step])):
        found, found_gradient = ranks[rank][name, step]
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-6, atol=0)
        # Both ranks ask for the gradient, so that it comes twice.
        torch.testing.assert_close(found_gradient, 2 * gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SCALINGS)
def test_two_ranks_train_as_one_process_on_the_joined_batch(ranks: list[dict[Any, Any]], name: str) -> None:
    wanted = trained(Net(SCALINGS[name]()), batch)
    assert ranks[0][name].keys() == ranks[1][name].keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(ranks[0][name][key], ranks[1][name][key])
        torch.testing.assert_close(ranks[0][name][key], value, rtol=1e-5, atol=1e-6)


def test_a_rank_alone_and_a_weight_look_at_what_is_there(ranks: list[dict[Any, Any]]) -> None:
    for rank, found in enumerate(ranks):
        assert found["alone"] == found["weight"] == part(0, rank).abs().max()


def test_a_bad_batch_of_one_rank_stops_both(ranks: list[dict[Any, Any]]) -> None:
    assert ranks[0]["error"] == ranks[1]["error"]
    assert ranks[0]["error"].startswith("a tensor that holds infinities or NaN has no statistic to collect\n")


def test_a_process_that_is_alone_in_its_group_trains_through_collecting() -> None:
    """Distributed data parallel waits for a gradient of every parameter, also of a threshold that is not learned yet."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        quant = IntQuant(SCALINGS["learned"](), ConstBitWidth(4), signed=True)
        net = nn.parallel.DistributedDataParallel(Quantized(quant))
        steps = []
        for step in range(3):
            net.zero_grad()
            net(batch(step)).square().mean().backward()
            gradient = net.module.quant.scaling_impl.value.grad
            assert gradient is not None
            steps.append(bool(gradient != 0))
        assert steps == [False, False, True]
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
