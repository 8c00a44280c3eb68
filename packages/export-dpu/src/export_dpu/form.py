"""The forms of the files that PyXIR reads: where padding stands, and how integers are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from quant_core.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form.

    Attributes:
        domain: the domain of the operators with quantization attributes.
        pads_apart: whether padding is a ``Pad`` of its own before an operator without padding, or an attribute of the operator.
        float_weights: whether integer weights and biases are stored as floats, or as int32.
    """

    domain: str
    pads_apart: bool
    float_weights: bool


DPUV1: Final = Form(domain="pyxir", pads_apart=False, float_weights=True)
DPUV2: Final[Mapping[str, Form]] = {
    "0.6": Form(domain="pyxir", pads_apart=True, float_weights=True),
    "0.7": Form(domain="pyxir.onnx", pads_apart=True, float_weights=False),
}
"""By the release of Brevitas that wrote it first; readers of the newer one take the older one too."""


def form_of(version: object) -> Form:
    """The form of DPUv2 files of a version.

    Raises:
        ConfigurationError: for a version that there is not.

    >>> form_of("0.7").float_weights, form_of("0.6").float_weights
    (False, True)
    """
    found = DPUV2.get(version) if isinstance(version, str) else None
    if found is None:
        raise ConfigurationError(
            f"form={version!r} is not known",
            why=f"the forms are {', '.join(map(repr, DPUV2))}",
            fix="Use '0.7', with weights as int32, or '0.6', with weights as floats that are whole numbers.",
        )
    return found
