"""What all layers have in common: one line that says what they quantize."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.describe import describe


class QuantLayer(nn.Module):
    """Mixin for layers that hold quantizers; the float layer, if there is one, comes after it among the bases.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(16, 8, weight_bit_width=4)
    QuantLinear(in_features=16, out_features=8, bias=True, weight: int4 per tensor)

    Attributes:
        return_quant_tensor: whether ``forward`` returns a ``QuantTensor``, with its scale, where it has one.
    """

    return_quant_tensor: bool

    def float_repr(self) -> str:
        """The options without those of quantizers, as the float layer shows them."""
        return super().extra_repr()

    def extra_repr(self) -> str:
        """The options of the float layer, and what each quantizer makes of its tensor."""
        quantizers = [f"{_role(name)}: {describe(proxy)}" for name, proxy in self._quantizers()]
        return ", ".join(word for word in (self.float_repr(), *quantizers) if word)

    def __repr__(self) -> str:
        """One line, as long as the layer holds nothing but quantizers; print a quantizer to see its parts."""
        if all(isinstance(child, QuantProxy) for child in self.children()):
            return f"{type(self).__name__}({self.extra_repr()})"
        return super().__repr__()

    def _quantizers(self) -> list[tuple[str, QuantProxy]]:
        found = self._modules.items()
        return [(name, child) for name, child in found if isinstance(child, QuantProxy)]

    def _named(self) -> str:
        """What an error says about where it happened."""
        return f"{type(self).__name__}({self.float_repr()})"

    def _check_is_one(self, input: Tensor | QuantTensor) -> None:
        """The input is no array, and no collection of tensors, as ``nn.Sequential`` hands on several results of a layer."""
        if isinstance(input, (Tensor, QuantTensor)):
            return
        if isinstance(input, (tuple, list, dict)):
            raise InputError(
                f"the input is a {type(input).__name__}, not a tensor",
                where=self._named().removesuffix("()"),
                why="this layer takes one tensor; recurrent layers return their outputs with their states, attention with its "
                "weights",
                fix="Take the tensor out of it, such as out[0], before this layer is called.",
            )
        if input is None or isinstance(input, (int, float)) or type(input).__module__ == "numpy":
            raise InputError(
                f"the input is a {type(input).__name__}, not a tensor",
                where=self._named().removesuffix("()"),
                why="this layer takes one tensor of torch",
                fix="Convert it before: torch.from_numpy(x) of an array, torch.tensor(x) of a number.",
            )

    def _hand_on(self, out: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """The result, with its scale where the layer was asked for it."""
        return out if self.return_quant_tensor else value_of(out)


def value_of(x: Tensor | QuantTensor) -> Tensor:
    """The tensor itself, or the value of a quantized one."""
    return x.value if isinstance(x, QuantTensor) else x


def values_of(quantizer: nn.Module, *inputs: Any) -> Tensor:
    """What a quantizer gives, without its grid; any module may stand in its place."""
    return quantizer.values(*inputs) if isinstance(quantizer, QuantProxy) else value_of(quantizer(*inputs))


def _role(name: str) -> str:
    """``weight`` for ``weight_quant``."""
    return name.removesuffix("_quant")
