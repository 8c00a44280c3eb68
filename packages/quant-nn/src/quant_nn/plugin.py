"""What quant-nn registers; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Command, Layer, hookimpl

QUANT_API_VERSION = 1


def _layer(kind: str, summary: str, quant_kind: str = "") -> Layer:
    name = f"Quant{quant_kind or kind}"
    return Layer(name=name, summary=summary, float_type=f"torch.nn:{kind}", quant_type=f"quant_nn:{name}")


@hookimpl
def quant_layers() -> Iterable[Layer]:
    """The feed-forward layers."""
    for function, summary in (
        ("Cat", "concatenation on one grid"),
        ("EltwiseAdd", "sum on one grid"),
        ("ScaledDotProductAttention", "attention products"),
    ):
        yield Layer(
            name=f"Quant{function}",
            summary=summary,
            float_type=f"quant_nn:{function}",
            quant_type=f"quant_nn:Quant{function}",
        )
    yield _layer("Conv1d", "convolution over sequences")
    yield _layer("Conv2d", "convolution over images")
    yield _layer("Conv3d", "convolution over volumes")
    yield _layer("ConvTranspose1d", "transposed convolution over sequences")
    yield _layer("ConvTranspose2d", "transposed convolution over images")
    yield _layer("ConvTranspose3d", "transposed convolution over volumes")
    yield _layer("Embedding", "rows of a table")
    yield _layer("Hardtanh", "straight line between two bounds", "HardTanh")
    yield _layer("Identity", "quantizes what passes")
    yield _layer("Linear", "fully connected layer")
    yield _layer("MultiheadAttention", "attention of many heads")
    yield _layer("ReLU", "rectifier")
    yield _layer("Sigmoid", "sigmoid")
    yield _layer("Tanh", "hyperbolic tangent")
    yield _layer("Upsample", "interpolation on the grid of the input")
    yield _layer("UpsamplingBilinear2d", "bilinear interpolation of images")
    yield _layer("UpsamplingNearest2d", "repeated elements of images")


@hookimpl
def quant_commands() -> Iterable[Command]:
    """What the command line can do with models of these layers."""
    yield Command(
        name="calibrate",
        summary="Find the ranges of a model's quantizers in data.",
        command="quant_nn.calibration.command:calibrate_command",
    )
    yield Command(
        name="summary",
        summary="Show what each layer of a model costs.",
        command="quant_nn.report.command:summary_command",
    )
