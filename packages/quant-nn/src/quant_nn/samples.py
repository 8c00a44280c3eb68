"""One small instance of each layer, as a table: what tests, the support matrix and exporters of targets go through.

A new layer joins all of them by one row here. Each row says how the layer is built and what it takes; ``quantized`` inputs come
from a quantizer in front of it, as in a network.

>>> sample = SAMPLES["QuantLinear"]
>>> sample.build()(*sample.inputs()).shape
torch.Size([2, 4])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from torch import nn

import quant_nn as qnn
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias
from quant_nn.sample import Sample as Sample
from quant_nn.sample import SampleNet as SampleNet

_CALIBRATED: Final = {"collect_stats_steps": 1}
_JOINED: Final = {"input_collect_stats_steps": 1, "output_collect_stats_steps": 1}
_WEIGHT: Final = {"weight_bit_width": 4}
_ON_GRID: Final = {"bias_quant": Int8Bias, "return_quant_tensor": True}
_INPUT: Final = {"input_quant": Int8ActPerTensorFloat, "input_collect_stats_steps": 1, "input_bit_width": 6}


def _weighted(layer: str, args: tuple[Any, ...], shape: tuple[int, ...], plain: type[nn.Module] | None) -> Sample:
    return Sample(
        layer=layer,
        family="weight",
        shapes=(shape,),
        args=args,
        options=_WEIGHT,
        on_accumulator=_ON_GRID,
        float_type=plain,
    )


def _activation(layer: str, plain: type[nn.Module] | None, **options: Any) -> Sample:
    return Sample(
        layer=layer,
        family="activation",
        shapes=((2, 3, 5),),
        options={**_CALIBRATED, **options},
        on_accumulator={"return_quant_tensor": True},
        float_type=plain,
    )


def _passing(layer: str, shape: tuple[int, ...], *args: Any, plain: type[nn.Module] | None = None) -> Sample:
    return Sample(layer=layer, family="pass", shapes=(shape,), args=args, float_type=plain)


def _accumulating(layer: str, shape: tuple[int, ...], *args: Any, **options: Any) -> Sample:
    return Sample(layer=layer, family="pass", shapes=(shape,), args=args, options=options, takes_floats=False)


def _rows() -> Iterator[tuple[str, Sample]]:
    """Name of the row → sample; the name starts with that of the layer."""
    weighted: list[tuple[str, tuple[Any, ...], tuple[int, ...], type[nn.Module] | None]] = [
        ("QuantLinear", (6, 4), (2, 6), nn.Linear),
        ("QuantLinear, three axes", (6, 4), (2, 3, 6), nn.Linear),
        ("QuantConv1d", (4, 6, 3), (2, 4, 9), nn.Conv1d),
        ("QuantConv1d, same", (4, 6, 3, 1, "same", 2), (2, 4, 9), nn.Conv1d),
        ("QuantConv2d", (4, 6, 3, 2, 1), (2, 4, 9, 8), nn.Conv2d),
        ("QuantConv2d, grouped", (4, 6, 3, 1, 0, 1, 2), (2, 4, 9, 8), nn.Conv2d),
        ("QuantConv2d, depthwise", (4, 8, 3, 1, 1, 1, 4), (2, 4, 7, 7), nn.Conv2d),
        ("QuantConv2d, reflect", (4, 6, 3, 1, 1, 1, 1, True, "reflect"), (2, 4, 7, 7), nn.Conv2d),
        ("QuantConv2d, replicate", (4, 6, 3, 1, 1, 1, 1, True, "replicate"), (2, 4, 7, 7), nn.Conv2d),
        ("QuantConv2d, circular", (4, 6, 3, 1, 1, 1, 1, True, "circular"), (2, 4, 7, 7), nn.Conv2d),
        ("QuantConv3d", (2, 3, 2), (2, 2, 4, 5, 6), nn.Conv3d),
        ("QuantConvTranspose1d", (4, 6, 4, 2, 1, 1), (2, 4, 9), nn.ConvTranspose1d),
        ("QuantConvTranspose2d", (4, 6, 3, 2, 1, 1), (2, 4, 5, 6), nn.ConvTranspose2d),
        ("QuantConvTranspose2d, grouped", (4, 6, 3, 2, 1, 1, 2), (2, 4, 5, 6), nn.ConvTranspose2d),
        ("QuantConvTranspose2d, dilated", (4, 6, 3, 2, 2, 1, 1, True, 2), (2, 4, 5, 6), nn.ConvTranspose2d),
        ("QuantConvTranspose3d", (2, 3, 2, 2), (2, 2, 3, 3, 4), nn.ConvTranspose3d),
        ("QuantScaleBias", (4, True), (2, 4, 5, 5), qnn.ScaleBias),
        ("BatchNorm1dToQuantScaleBias", (4,), (3, 4), None),
        ("BatchNorm2dToQuantScaleBias", (4,), (2, 4, 5, 5), None),
    ]
    for name, args, shape, plain in weighted:
        yield name, _weighted(name.partition(",")[0], args, shape, plain)
    yield (
        "QuantConv2d, input quantizer",
        Sample(
            layer="QuantConv2d",
            family="weight",
            shapes=((2, 4, 7, 7),),
            args=(4, 6, 3),
            options={**_WEIGHT, **_INPUT, "weight_scaling_per_output_channel": True},
            on_accumulator=_ON_GRID,
            float_type=nn.Conv2d,
        ),
    )
    yield (
        "QuantEmbedding",
        Sample(
            layer="QuantEmbedding",
            family="weight",
            shapes=((2, 5),),
            args=(10, 4),
            options=_WEIGHT,
            on_accumulator={"return_quant_tensor": True},
            float_type=nn.Embedding,
            indices=10,
        ),
    )
    yield "QuantIdentity", _activation("QuantIdentity", nn.Identity, bit_width=4)
    yield "QuantReLU", _activation("QuantReLU", nn.ReLU, bit_width=4)
    yield "QuantTanh", _activation("QuantTanh", nn.Tanh)
    yield "QuantSigmoid", _activation("QuantSigmoid", nn.Sigmoid)
    yield (
        "QuantHardTanh",
        Sample(
            layer="QuantHardTanh",
            family="activation",
            shapes=((2, 3, 5),),
            options={"min_val": -0.5, "max_val": 1.0},
            on_accumulator={"return_quant_tensor": True},
            float_type=nn.Hardtanh,
        ),
    )
    yield "QuantDropout", _passing("QuantDropout", (2, 3, 6), 0.3, plain=nn.Dropout)
    yield "QuantMaxPool1d", _passing("QuantMaxPool1d", (2, 3, 6), 2, plain=nn.MaxPool1d)
    yield "QuantMaxPool2d", _passing("QuantMaxPool2d", (2, 3, 6, 6), 3, 2, 1, plain=nn.MaxPool2d)
    yield "QuantUpsample", _passing("QuantUpsample", (2, 3, 4, 4), None, 2, plain=nn.Upsample)
    yield "QuantUpsample, bilinear", _passing("QuantUpsample", (2, 3, 4, 4), None, 2, "bilinear", plain=nn.Upsample)
    for name, shape, pooling in (
        ("TruncAvgPool2d", (2, 3, 6, 6), (2,)),
        ("TruncAvgPool2d, overlapping", (2, 3, 6, 6), (3, 2, 1)),
        ("TruncAdaptiveAvgPool2d", (2, 3, 6, 6), (2,)),
    ):
        yield name, _accumulating(name.partition(",")[0], shape, *pooling, bit_width=4)
    for name in ("TruncQuantAccumulator", "ClampQuantAccumulator"):
        yield name, _accumulating(name, (2, 3, 5), bit_width=4)
    nearest, bilinear = "QuantUpsamplingNearest2d", "QuantUpsamplingBilinear2d"
    yield nearest, _passing(nearest, (2, 3, 4, 4), None, 2, plain=nn.UpsamplingNearest2d)
    yield bilinear, _passing(bilinear, (2, 3, 4, 4), None, 2, plain=nn.UpsamplingBilinear2d)
    yield (
        "HadamardClassifier",
        Sample(
            layer="HadamardClassifier",
            family="pass",
            shapes=((2, 12),),
            args=(12, 5),
            on_accumulator={"return_quant_tensor": True},
        ),
    )
    quantized = {"return_quant_tensor": True}
    pair = ((2, 3, 5), (2, 3, 5))
    yield (
        "QuantEltwiseAdd",
        Sample(layer="QuantEltwiseAdd", family="join", shapes=pair, options=_JOINED, on_accumulator=quantized),
    )
    yield (
        "QuantEltwiseAdd, on the grid of its operands",
        Sample(
            layer="QuantEltwiseAdd",
            family="join",
            shapes=pair,
            options={"input_quant": None, "output_quant": None},
            on_accumulator=quantized,
        ),
    )
    yield (
        "QuantEltwiseAdd, tied",
        Sample(
            layer="QuantEltwiseAdd",
            family="join",
            shapes=pair,
            options={"tie_input_output_quant": True, "input_collect_stats_steps": 2},
            on_accumulator=quantized,
        ),
    )
    yield (
        "QuantCat",
        Sample(layer="QuantCat", family="join", shapes=pair, options=_JOINED, on_accumulator=quantized, joined=True),
    )
    yield (
        "QuantCat, on the grid of its operands",
        Sample(
            layer="QuantCat",
            family="join",
            shapes=pair,
            options={"input_quant": None, "output_quant": None},
            on_accumulator=quantized,
            joined=True,
        ),
    )
    yield (
        "QuantScaledDotProductAttention",
        Sample(
            layer="QuantScaledDotProductAttention",
            family="join",
            shapes=((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 2)),
            options={
                f"{name}_collect_stats_steps": 1 for name in ("q_scaled", "k_transposed", "v", "attn_output_weights")
            },
            on_accumulator=quantized,
        ),
    )
    quantizers = ("in_proj_input", "out_proj_input", "q_scaled", "k_transposed", "v", "attn_output_weights")
    yield (
        "QuantMultiheadAttention",
        Sample(
            layer="QuantMultiheadAttention",
            family="join",
            shapes=((4, 2, 8), (5, 2, 8), (5, 2, 8)),
            args=(8, 2),
            options={f"{name}_collect_stats_steps": 1 for name in quantizers},
            on_accumulator=quantized,
        ),
    )


SAMPLES: Final[Mapping[str, Sample]] = MappingProxyType(dict(_rows()))
"""Name of the row → sample; the name is that of the layer, with a word on its options where a layer has several rows."""
