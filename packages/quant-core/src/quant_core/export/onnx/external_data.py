"""Models that are too large for one file: an ONNX file holds 2 GB at most, and large tensors then lie in a second one.

The second file is named after the first, ``net.onnx.data``, and lies beside it.
"""

from __future__ import annotations

from typing import Any, Final

LARGEST: Final = 2**31 - 1
"""The largest number of bytes that a file of protocol buffers can have."""
_LARGE: Final = 1024  # bytes: smaller tensors stay, because runtimes read scales and shapes while they load the graph
_ALIGNMENT: Final = 64
_PLACE: Final = "model.data"


def take_out(model: Any) -> bytes:
    """Move the large initializers of a ``ModelProto`` that does not fit into one file to the bytes of another one, in place.

    Returns:
        The content of the second file; empty for a model that fits into one.
    """
    if model.ByteSize() <= LARGEST:
        return b""
    from onnx import TensorProto

    data = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < _LARGE:
            continue
        data.extend(bytes(-len(data) % _ALIGNMENT))
        where = {"location": _PLACE, "offset": str(len(data)), "length": str(len(tensor.raw_data))}
        data.extend(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in where.items():
            tensor.external_data.add(key=key, value=value)
    return bytes(data)


def placed(content: bytes, place: str) -> bytes:
    """A model whose large initializers lie in the file ``place``, relative to the model's own."""
    import onnx

    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def session_with(content: bytes, data: bytes, options: Any) -> bytes:
    """Tell the options of an onnxruntime session where the large initializers are; returns the content."""
    if data:
        options.add_external_initializers_from_files_in_memory([_PLACE], [data], [len(data)])
    return content
