"""What torch's exporter knows is read once, and onnxscript is left as it was found."""

from __future__ import annotations

import pytest
from onnxscript.values import TracedOnnxFunction

from quant_core.export.onnx.torchlib import translations_read_once


def any_translation() -> TracedOnnxFunction:
    from onnxscript.function_libs.torch_lib import ops, registration

    assert ops is not None  # whose import registers them
    return registration.default_registry["aten::relu"].overloads[0]


def test_an_answer_is_remembered_and_the_same() -> None:
    translation = any_translation()
    before = translation.function_ir
    with translations_read_once():
        first, second = translation.function_ir, translation.function_ir
    with translations_read_once():
        third = translation.function_ir
    assert first is second is third
    assert first is not before
    assert (first.domain, first.name) == (before.domain, before.name)


def test_the_class_is_as_before_also_after_an_error_and_in_a_block_within_a_block() -> None:
    before = vars(TracedOnnxFunction)["function_ir"]
    with pytest.raises(RuntimeError, match="inside"), translations_read_once(), translations_read_once():
        raise RuntimeError("inside")
    assert vars(TracedOnnxFunction)["function_ir"] is before
