"""Networks of 8 bits in onnxruntime on one thread: files of the targets qcdq and qop against the float file of the same network.

    python benchmarks/onnx_cpu.py [--rounds 100] [--batch 8]

Everything runs in one process, in turns, and the median of processor time counts. Printed are the throughput and the size against
the float file, and how many convolutions in floats are left in the graph as onnxruntime optimizes it. export-qcdq must be
installed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from models import Layers, Residual, float_layers, mobilenet, resnet8
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import export
from quant_core.export.quiet import quiet
from quant_core.quant import Int8ActPerTensorFloat, Int32Bias

NETWORKS: dict[str, Callable[[Layers], nn.Module]] = {"ResNet-8": resnet8, "MobileNetV1": mobilenet}
FORMS: dict[str, tuple[str, dict[str, bool]]] = {
    "qcdq": ("qcdq", {}),
    "qop": ("qop", {}),
    "qcdq, fill_channels": ("qcdq", {"fill_channels": True}),
    "qop, fill_channels": ("qop", {"fill_channels": True}),
}
"""Targets with their options."""
OPSET = 18
DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""What processors call instructions for products of integers of 8 bits."""


def eight_bit_layers() -> Layers:
    """Weights, activations and biases are quantized; the biases are on the grid of the accumulator."""
    layer: dict[str, Any] = {"weight_bit_width": 8, "bias_quant": Int32Bias}
    return Layers(
        name="8 bits",
        conv=lambda *a, **k: qnn.QuantConv2d(*a, **{**k, "bias": True}, **layer),
        linear=lambda *a, **k: qnn.QuantLinear(*a, input_quant=Int8ActPerTensorFloat, **k, **layer),
        relu=lambda: qnn.QuantReLU(bit_width=8, return_quant_tensor=True),
        entry=lambda: qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
    )


def float_file(build: Callable[[Layers], nn.Module], x: Tensor) -> bytes:
    """The float network as torch writes it, with its batch norms folded into the convolutions.

    Left out is what is not the network: the lines of source code and the types between nodes, a tenth of the file of ResNet-8.
    """
    net = without_norms(build(folded(float_layers())), nn.Identity).eval()
    batch = ({0: torch.export.Dim("batch")},)
    with quiet():
        program = torch.onnx.export(net, (x,), dynamo=True, opset_version=OPSET, dynamic_shapes=batch, verbose=False)
    assert program is not None
    model: Any = program.model_proto
    del model.graph.value_info[:]
    for owner in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del owner.metadata_props[:]
    content: bytes = model.SerializeToString()
    return content


def quantized_files(build: Callable[[Layers], nn.Module], x: Tensor) -> dict[str, bytes]:
    """The network of 8 bits in each form."""
    net = without_norms(build(eight_bit_layers()), lambda: qnn.QuantIdentity(bit_width=8, return_quant_tensor=True))
    with torch.no_grad():
        for _ in range(3):
            net(x)
    net.eval()
    return {
        name: export(
            net,
            (x,),
            target=target,
            dynamic_shapes="batch",
            verify=False,
            options={"opset_version": OPSET, **options},
        ).artifact.content()
        for name, (target, options) in FORMS.items()
    }


def folded(layers: Layers) -> Layers:
    """The same with a bias in each convolution: that of the batch norm behind it."""
    return replace(layers, conv=lambda *a, **k: layers.conv(*a, **{**k, "bias": True}))


def without_norms(net: nn.Module, before_sum: Callable[[], nn.Module]) -> nn.Module:
    """The network as it is after its batch norms are folded; what is added in a residual block comes from ``before_sum``."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
        if isinstance(module, Residual):
            for branch in (module.body, module.shortcut):
                if isinstance(branch, nn.Sequential):
                    branch[-1] = before_sum()
    return net


def session(content: bytes, saved: str = "") -> onnxruntime.InferenceSession:
    """One thread, all optimizations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = saved
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def optimized(content: bytes) -> Counter[str]:
    """How many operators of each type there are after optimization."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "optimized.onnx")
        session(content, path)
        return Counter(node.op_type for node in onnx.load(path).graph.node)


def float_convolutions(content: bytes) -> int:
    """How many convolutions in floats are left after optimization."""
    counts = optimized(content)
    return counts["Conv"] + counts["FusedConv"]


def throughput(files: dict[str, bytes], x: Tensor, rounds: int) -> dict[str, float]:
    """Images per second of each file against the first one, run in turns; the median of the rounds counts."""
    sessions = {name: session(content) for name, content in files.items()}
    feeds = {name: {one.get_inputs()[0].name: x.numpy()} for name, one in sessions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in files}
    first = next(iter(files))
    for number in range(rounds + 2):
        for name, one in sessions.items():
            start = time.thread_time()
            one.run(None, feeds[name])
            if number >= 2:
                seconds[name].append(time.thread_time() - start)
    return {
        name: statistics.median(one / other for one, other in zip(seconds[first], times, strict=True))
        for name, times in seconds.items()
    }


def dot_products() -> str:
    """The instructions for products of integers of 8 bits that this processor has."""
    path = Path("/proc/cpuinfo")
    words = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
    return ", ".join(word for word in DOT_PRODUCTS if word in words) or "none known"


def main() -> None:
    """Print one line for each network and target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"int8 dot products: {dot_products()}; onnxruntime {onnxruntime.__version__}")
    print("| network | form | throughput against float | size against float | float convolutions left |")
    print("| --- | --- | --- | --- | --- |")
    for name, build in NETWORKS.items():
        x = torch.randn(given.batch, 3, 32, 32)
        files = {"float": float_file(build, x), **quantized_files(build, x)}
        speeds = throughput(files, x, given.rounds)
        for form in FORMS:
            size = len(files[form]) / len(files["float"])
            left = float_convolutions(files[form])
            print(f"| {name} | `{form}` | {speeds[form]:.2f}x | {size:.3f}x | {left} |")


if __name__ == "__main__":
    main()
