"""A plugin in a distribution of its own: installed, listed, and used by `quant export` like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from quant_core.inject import Injector
from quant_core.plugins import load_attribute, registry

NET = """
import quant_nn as qnn
from acme_backend.quant import Acme4BitAct
from torch import nn

class Net(nn.Sequential):
    def __init__(self, bits=4):
        super().__init__(
            qnn.QuantIdentity(act_quant=Acme4BitAct, return_quant_tensor=True),
            qnn.QuantLinear(3, 2, weight_bit_width=bits),
        )

def six_bits():
    return Net(6)
"""


def _quant(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quant_core", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_active() -> None:
    status = {plugin.distribution: plugin for plugin in registry().plugins}
    assert "acme-backend" in status, "install it: python scripts/install_packages.py acme-backend"
    assert (status["acme-backend"].status, status["acme-backend"].version) == ("active", version("acme-backend"))


def test_its_exporter_is_small() -> None:
    exporter = Path(__file__).parent / "acme-backend" / "src" / "acme_backend" / "exporter.py"
    assert len(exporter.read_text(encoding="utf-8").splitlines()) <= 60


def test_its_quantizer_is_found_by_name() -> None:
    registered = registry().quantizers["Acme4BitAct"]
    quantizer = load_attribute(registered.item.quantizer)
    assert registered.distribution == "acme-backend"
    assert issubclass(quantizer, Injector)
    assert quantizer.bit_width == 4


def test_its_target_is_listed() -> None:
    listed = json.loads(_quant("export", "--list-targets", "--json").stdout)
    (row,) = [row for row in listed if row["name"] == "acme-json"]
    assert row == {
        "name": "acme-json",
        "summary": "the operations and integers of a program as JSON",
        "package": "acme-backend",
        "version": version("acme-backend"),
        "status": "no runtime",
        "suffix": ".json",
        "runtime": None,
    }


def test_it_exports(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    output = tmp_path / "net.json"
    done = _quant("export", "acme-json", f"{tmp_path}/net.py:Net", "--input", "5x3", "-o", str(output), "--json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["verified"], json.loads(done.stdout)["reason"]) == (
        False,
        "nothing runs its artifacts",
    )
    listing = json.loads(output.read_text())
    by_role = {operation.get("role", operation["op"]): operation for operation in listing["operations"]}
    activation, weight, linear = (by_role[role] for role in ("activation", "weight", "aten.linear.default"))
    assert listing["operations"][-1] == linear
    assert (activation["role"], activation["bit_width"], activation["signed"]) == ("activation", 4, True)
    assert (weight["role"], weight["bit_width"], weight["at"]) == ("weight", 4, "1.weight_quant")
    integers = torch.tensor(weight["integers"])
    assert integers.shape == (2, 3)
    assert int(integers.abs().max()) == 7
    assert linear["inputs"][:2] == [activation["name"], weight["name"]]


@pytest.mark.parametrize("form", ["text", "json"])
def test_it_refuses_what_it_does_not_declare(form: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    arguments = ["export", "acme-json", f"{tmp_path}/net.py:six_bits", "--input", "5x3", "--check"]
    done = _quant(*arguments, *(["--json"] if form == "json" else []))
    assert done.returncode == 1
    if form == "text":
        assert done.stdout.startswith("target 'acme-json' cannot take this model: 1 refusal\n")
        return
    report: dict[str, Any] = json.loads(done.stdout)
    (refusal,) = report["refusals"]
    assert (refusal["where"], refusal["actual"], refusal["constraint"]) == (
        "1.weight_quant (quant_nn.QuantLinear)",
        "bit_width=6",
        "acme-json supports bit_width 4, 8 for weights",
    )
