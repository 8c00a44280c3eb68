"""The networks of the zoo and the training script: sizes, resumption, several processes, low-bit recipes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(output: Path, *arguments: str) -> dict[str, Any]:
    """Run the script, and read the results and the checkpoint that it leaves."""
    import train as script

    done = CliRunner().invoke(script.main, [*arguments, "--output", str(output)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return read(output)


def read(output: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return results | torch.load(output / "checkpoint.pt", weights_only=True)


def float_parameters(net: nn.Module) -> int:
    """How many parameters the network would have without quantizers."""
    return sum(parameter.numel() for name, parameter in net.named_parameters() if "_quant." not in name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lenet-w3", 61_996),
        ("lenet-w3a4", 61_996),
        ("lenet-mixed", 44_716),
        ("lenet-dpu", 44_716),
        ("lenet-w8a8", 61_996),
        ("mobilenet-v1-4b", 4_231_976),
        ("proxylessnas-mobile14-4b", 6_857_568),
        # The classifier learns one scale in place of 1792 · 1000 weights and 1000 biases.
        ("proxylessnas-mobile14-hadamard-4b", 6_857_568 - 1793 * 1000 + 1),
        ("proxylessnas-mobile14-4b5b", 6_857_568),
        ("tfc-w1a1", 784 * 64 + 2 * 64 * 64 + 64 * 10 + 2 * (3 * 64 + 10)),
        ("cnv-w1a1", 1_546_708),
    ],
)
def test_a_network_has_the_parameters_of_its_float_original(name: str, parameters: int) -> None:
    from zoo import NETWORKS

    with torch.device("meta"):
        net = NETWORKS[name].build(classes=1000 if NETWORKS[name].size[1] == 224 else 10)
    assert float_parameters(net) == parameters


def test_every_network_trains_a_step_and_classifies() -> None:
    from zoo import NETWORKS

    for name, network in NETWORKS.items():
        torch.manual_seed(0)
        small = {"size": (3, 32, 32)} if network.size[1] == 224 else {}
        net = network.build(classes=5, **small)
        images = torch.randn(2, *small.get("size", network.size))
        net(images).square().mean().backward()
        missing = [
            key
            for key, value in net.named_parameters()
            if value.grad is None and not key.endswith("_impl.value")  # collected first, then learned
        ]
        assert not missing, (name, missing)
        with torch.no_grad():
            scores = net.eval()(images)
        assert scores.shape == (2, 5), name
        assert scores.isfinite().all(), name


@pytest.mark.parametrize(
    ("name", "bits"),
    [("mobilenet-v1-4b", {4, 8}), ("proxylessnas-mobile14-4b", {4, 8}), ("proxylessnas-mobile14-4b5b", {4, 5, 8})],
)
def test_weights_have_the_bits_of_the_name_and_the_first_layer_eight(name: str, bits: set[int]) -> None:
    from zoo import NETWORKS

    net = NETWORKS[name].build(classes=5, size=(3, 32, 32))
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    found = [int(layer.weight_quant.bit_width()) for layer in layers]  # type: ignore[union-attr, operator]
    assert found[0] == 8
    assert set(found) == bits
    for layer in layers:
        assert layer.weight_quant.scale().numel() == layer.out_channels  # type: ignore[union-attr, operator]
        if layer.groups > 1:
            assert ("5b" in name) == (int(layer.weight_quant.bit_width()) == 5)  # type: ignore[union-attr, operator]


def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    options = ["lenet-w3a4", "--epochs", "3", "--batch-size", "256"]
    whole = train(tmp_path / "whole", *options)
    train(tmp_path / "parts", *options, "--stop-after", "1")
    parts = train(tmp_path / "parts", *options, "--resume")
    assert whole["epochs"] == parts["epochs"] == 3
    assert (whole["loss"], whole["accuracy"]) == (parts["loss"], parts["accuracy"])
    assert whole["model"].keys() == parts["model"].keys()
    for key, value in whole["model"].items():
        assert torch.equal(value, parts["model"][key]), key
    assert str(whole["optimizer"]["state"]) == str(parts["optimizer"]["state"])


def test_a_run_is_resumed_as_it_was_begun(tmp_path: Path) -> None:
    import train as script

    options = ["tfc-w2a2", "--size", "8", "--epochs", "1", "--batch-size", "512", "--output", str(tmp_path)]
    train(tmp_path, *options[:-2])
    done = CliRunner().invoke(script.main, [*options, "--resume"], catch_exceptions=False)
    assert done.output.strip() == "nothing to do: 1 epochs are done, and --epochs is 1"
    done = CliRunner().invoke(script.main, ["sfc-w2a2", *options[1:], "--seed", "1", "--resume"])
    assert done.exit_code == 2
    assert (
        f"checkpoint.pt is of a run with network {'tfc-w2a2'!r}, not {'sfc-w2a2'!r}, seed 0, not 1: resume it"
        in done.output
    )


def processes(output: Path, *arguments: str) -> dict[str, Any]:
    """Run the script in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(EXAMPLES / "train.py"), *arguments, "--output", str(output), "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return read(output)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_end_with_the_scales_of_one_on_the_joined_batch(tmp_path: Path, strategy: str) -> None:
    frozen = ["lenet-w3a4", "--epochs", "1", "--batch-size", "256", "--lr", "0"]
    one = train(tmp_path / "one", *frozen)
    two = processes(tmp_path / "two", *frozen, "--strategy", strategy)
    assert one["model"].keys() == two["model"].keys()
    scales = [key for key in one["model"] if key.endswith("scaling_impl.value")]
    assert len(scales) == 5
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-5, atol=0)


def test_spread_parameters_learn_what_copies_learn_and_resume(tmp_path: Path) -> None:
    options = ["lenet-w3a4", "--epochs", "2", "--batch-size", "256"]
    copied = processes(tmp_path / "ddp", *options, "--strategy", "ddp")
    processes(tmp_path / "fsdp", *options, "--strategy", "fsdp", "--stop-after", "1")
    spread = processes(tmp_path / "fsdp", *options, "--strategy", "fsdp", "--resume")
    for key, value in copied["model"].items():
        torch.testing.assert_close(spread["model"][key], value, rtol=1e-3, atol=1e-4)
    assert spread["accuracy"] == pytest.approx(copied["accuracy"], abs=0.005)  # of the network in the file


@pytest.mark.parametrize(("name", "least"), [("tfc-w4a4", 0.97), ("tfc-w2a2", 0.95), ("tfc-w1a1", 0.93)])
def test_few_bits_learn_the_digits_from_every_seed(tmp_path: Path, name: str, least: float) -> None:
    for seed in range(5):
        done = train(tmp_path / str(seed), name, "--size", "8", "--epochs", "12", "--seed", str(seed))
        assert done["accuracy"] >= least, seed
        assert math.isfinite(done["loss"])


class Overflowing(nn.Module):
    """Not in eval mode, as a normalization by the statistics of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.inf if self.training else x


def test_a_loss_that_is_not_finite_names_the_layer() -> None:
    from training.loop import first_not_finite

    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Identity(), Overflowing()), nn.Tanh())
    assert first_not_finite(net, torch.ones(1, 2)) == "1.1 (Overflowing) gives a number that is not finite"
    assert first_not_finite(net.eval(), torch.ones(1, 2)) is None
    assert not any(layer._forward_hooks for layer in net.modules())


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "tfc-w2a2",
            ["epoch 1: 5 (QuantLinear) gives", "a tensor that holds infinities or NaN has no statistic to collect"],
        ),
        ("lenet-w3", ["the loss is nan in epoch 1: conv2 (QuantConv2d) gives a number that is not finite"]),
    ],
)
def test_a_run_stops_with_the_name_of_the_layer(tmp_path: Path, name: str, lines: list[str]) -> None:
    import train as script

    arguments = [name, "--epochs", "1", "--lr", "1e30", "--output", str(tmp_path)]
    done = CliRunner().invoke(script.main, arguments)
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert all(line in str(done.output) for line in lines), done.output


def test_images_come_from_folders(tmp_path: Path) -> None:
    from PIL import Image

    shades = {"dark": 20, "light": 230}
    for split, count in (("train", 16), ("val", 4)):
        for name, shade in shades.items():
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (24 + index, 18), (shade, shade, shade)).save(folder / f"{index}.png")
    options = ["tfc-w2a2", "--data", str(tmp_path), "--size", "8", "--epochs", "4", "--batch-size", "8"]
    assert train(tmp_path / "run", *options)["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "Invalid value for 'NETWORK': 'nosuch' is not one of 'lenet-w3'"),
        (
            ["tfc-w2a2", "--resume"],
            "holds no checkpoint.pt to go on from: leave --resume out, or name another --output",
        ),
        (["lenet-w3", "--size", "16"], "lenet-w3 takes images of (3, 32, 32), not of (3, 16, 16): leave --size out"),
        (["tfc-w2a2", "--batch-size", "4000"], "there are fewer images to train on than --batch-size 4000"),
        (["cnv-w1a1", "--size", "16"], "images of 16×16 do not leave one pixel: height and width are 32 to 35"),
    ],
    ids=["network", "resume", "size", "batch", "impossible size"],
)
def test_what_cannot_be_trained_is_a_usage_error(tmp_path: Path, arguments: list[str], message: str) -> None:
    import train as script

    done = CliRunner().invoke(script.main, [*arguments, "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert message in done.output
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network(tmp_path: Path) -> None:
    import train as script

    torch.save({"0.weight": torch.ones(2)}, tmp_path / "other.pt")
    arguments = ["tfc-w2a2", "--size", "8", "--weights", str(tmp_path / "other.pt"), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(script.main, arguments)
    assert done.exit_code == 2
    assert "cannot be loaded: the checkpoint is that of another architecture" in done.output


def test_a_folder_without_images_says_what_is_missing(tmp_path: Path) -> None:
    from training.data import image_folder

    with pytest.raises(SystemExit, match="one folder a class"):
        image_folder(tmp_path, (1, 8, 8))
