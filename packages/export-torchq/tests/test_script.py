"""The file: what it holds, that it is the same each time, and that torch alone loads and runs it."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ArtifactError

from .grids import EXACT, Act, lowered

READER = """
import sys, warnings
for name in ("quant_core", "quant_nn", "quant_rnn", "export_torchq"):
    sys.modules[name] = None  # importing one of them fails
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
model = torch.jit.load(sys.argv[1])
x, expected = torch.load(sys.argv[2])
assert torch.equal(model(x), expected), (model(x) - expected).abs().max()
print(type(model).__name__, model.original_name)
"""


class Net(nn.Module):
    """A ``view`` behind a convolution, for batches of any size, beside an input that is named like a builtin."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(Act, return_quant_tensor=True)
        self.conv, self.relu = (
            qnn.QuantConv2d(1, 4, 3, **EXACT),
            qnn.QuantReLU(Act, signed=False, return_quant_tensor=True),
        )
        self.head = qnn.QuantLinear(4 * 36, 3, bias=True, **EXACT)

    def forward(self, input: Tensor) -> Tensor:
        x = self.relu(self.conv(self.entry(input)))
        scores: Tensor = self.head(x.view(x.shape[0], -1))
        return scores


def net() -> nn.Module:
    torch.manual_seed(1)
    return Net().eval()


X = torch.randn(3, 1, 8, 8)


def test_a_process_with_torch_alone_runs_it_on_a_batch_of_another_size(tmp_path: Path) -> None:
    model = net()
    path = lowered("torchq", model, X, shapes="batch").artifact.save(tmp_path / "net.pt")
    wide = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        torch.save((wide, model(wide)), tmp_path / "io.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER, str(path), str(tmp_path / "io.pt")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["RecursiveScriptModule", "Quantized"]


def test_equal_models_give_equal_bytes_in_one_process() -> None:
    one, other = (lowered("torchq", net(), X).artifact.content() for _ in range(2))
    assert one == other


def test_the_code_in_the_file_is_that_of_the_operators() -> None:
    archive = zipfile.ZipFile(io.BytesIO(lowered("torchq", net(), X).artifact.content()))
    code = archive.read("archive/code/__torch__.py").decode()
    assert "class Quantized(Module)" in code
    assert "ops.quantized.conv2d_relu(entry_act_quant, " in code
    assert "mangle" not in code
    assert not any(name.endswith("debug_pkl") for name in archive.namelist())


def test_weights_take_a_byte_each() -> None:
    wide = nn.Sequential(
        qnn.QuantIdentity(Act, return_quant_tensor=True),
        qnn.QuantLinear(
            500,
            400,
            False,
            **{
                "weight_quant": EXACT["weight_quant"],
                "output_quant": Act,
            },
        ),
    )
    found = lowered("torchq", wide, torch.zeros(1, 500))
    assert 200_000 < found.artifact.size < 220_000


def test_a_plain_float_model_goes_through_too() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(72, 3), nn.Softmax(-1)).eval()
    found = lowered("torchq", model, X)
    assert found.compared(X).equal


def test_several_outputs_come_back_in_their_structure() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"double": 2 * x, "itself": x}

    found = lowered("torchq", Two(), X)
    result = found.artifact.run(X)
    assert torch.equal(result["double"], 2 * X)
    assert torch.equal(result["itself"], X)


def test_inputs_of_another_shape_are_an_error_of_the_run() -> None:
    found = lowered("torchq", net(), X, engine=torch.backends.quantized.engine)
    with pytest.raises(ArtifactError) as caught:
        found.artifact.run(torch.zeros(3, 2, 8, 8))
    assert str(caught.value).startswith(
        f"torch's engine '{found.artifact.engine}' cannot run the file on inputs of shape (3, 2, 8, 8)"
    )
    assert "Give inputs of the shapes that the model was captured with" in str(caught.value)


def test_the_engine_of_the_process_is_the_one_that_it_was() -> None:
    before = torch.backends.quantized.engine
    lowered("torchq", net(), X, engine="qnnpack" if "qnnpack" in torch.backends.quantized.supported_engines else before)
    assert torch.backends.quantized.engine == before
