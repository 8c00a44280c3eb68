"""The quantizer of one tensor with the switches of NVIDIA's toolkit."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant_core.components import Scaling
from quant_core.errors import ConfigurationError
from quant_core.ops import round_ste
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.calibration.places import threshold_of
from quant_nn.layer import QuantLayer, value_of
from quant_nn.quantizers import build_proxy
from quant_nn.toolkit.amax_scaling import AmaxScaling, set_amax
from quant_nn.toolkit.descriptor import QuantDescriptor
from quant_nn.toolkit.injectors import activation_quantizer
from quant_nn.toolkit.switches import Switches, nothing_collected, toolkit_method


class TensorQuantizer(QuantLayer):
    """Quantizes a tensor as a descriptor says: ``clamp(round(x / step), lo, hi) · step`` with ``step = amax / hi``.

    Inside is one of our quantizers, ``quant``, so that it exports as every other. Without ``amax`` each tensor has its own, until
    calibration has found one.

    Args:
        quant_desc: the descriptor.
        if_quant: whether it quantizes.
        if_clip: whether it clamps to ``−amax … amax`` (``0 … amax`` unsigned), also where it does not quantize.
        if_calib: whether it collects for :meth:`load_calib_amax`.

    Attributes:
        fake_quant: whether it gives floats.
        place: what errors call it.

    Raises:
        InputError: from ``forward`` without ``amax`` or while collecting, when the tensor holds infinities or NaN.
        StateError: from ``forward``, when it clips and has no ``amax``.

    Shape: any; returns a plain tensor of the same shape: floats, or with ``fake_quant=False`` the integers as floats.

    Gradient: straight-through in the range, none beyond; with ``learn_amax`` to ``amax`` as in
    :func:`quant_core.ops.quantize_int`.

    >>> import torch
    >>> quantizer = TensorQuantizer(QuantDescriptor(num_bits=4))
    >>> quantizer.disable_quant(); quantizer.enable_calib()
    >>> _ = quantizer(torch.tensor([0.1, -0.7]))
    >>> quantizer.load_calib_amax(); quantizer.disable_calib(); quantizer.enable_quant()
    >>> quantizer.amax, quantizer(torch.tensor([0.34, 5.0]))
    (tensor(0.7000), tensor([0.3000, 0.7000]))
    """

    return_quant_tensor = False

    def __init__(
        self,
        quant_desc: QuantDescriptor | None = None,
        if_quant: bool = True,
        if_clip: bool = False,
        if_calib: bool = False,
    ) -> None:
        super().__init__()
        descriptor = QuantDescriptor() if quant_desc is None else quant_desc
        if not isinstance(descriptor, QuantDescriptor):
            raise ConfigurationError(
                f"quant_desc={quant_desc!r} is no descriptor",
                where=type(self).__name__,
                why="it is a quant_nn.toolkit.QuantDescriptor",
                fix="Pass QuantDescriptor(num_bits=8), for example.",
            )
        self.fake_quant = descriptor.fake_quant
        self.place = type(self).__name__ if descriptor.name is None else f"{type(self).__name__} {descriptor.name!r}"
        proxy = build_proxy(self, activation_quantizer(descriptor), "", {})
        assert proxy is not None
        self.quant: QuantProxy = proxy
        if not if_quant:
            self.disable_quant()
        if if_clip:
            self.enable_clip()
        if if_calib:
            self.enable_calib()

    @classmethod
    def of(cls, proxy: QuantProxy, place: str | None = None) -> TensorQuantizer:
        """The switches of a quantizer that belongs to a layer.

        Args:
            proxy: the quantizer.
            place: what errors call it, such as its path; the type of its layer by default.

        >>> import quant_nn as qnn
        >>> act = qnn.QuantReLU()
        >>> TensorQuantizer.of(act.act_quant).disable_quant()
        >>> act
        QuantReLU(act: off)
        """
        found = cls.__new__(cls)
        nn.Module.__init__(found)
        found.fake_quant, found.quant = True, proxy
        found.place = type(proxy.owners[0]).__name__ if place is None else place
        return found

    @property
    def amax(self) -> Tensor | None:
        """What the largest integer stands for; ``None`` where it has not been found. It can be set.

        Raises:
            InputError: when it is set to what is no largest magnitude, or to several without an axis.
        """
        scaling = self._scaling()
        if scaling.awaits_data:
            return None
        return threshold_of(scaling)

    @amax.setter
    def amax(self, amax: Tensor | float) -> None:
        set_amax(self._scaling(), amax, self.place)

    def enable_quant(self) -> None:
        """Quantize."""
        self._quantize(True)

    def disable_quant(self) -> None:
        """Let values pass."""
        self._quantize(False)

    def enable_clip(self) -> None:
        """Clamp to the range, also where nothing is quantized."""
        self._switched_on().clips = True

    def disable_clip(self) -> None:
        """Clamp only by quantizing."""
        if self._switches is not None:
            self._switches.clips = False
            self._switches.leave_if_idle()

    def enable_calib(self, method: str | None = None, **options: Any) -> None:
        """Collect from now on; what was collected before is kept.

        Args:
            method: ``"max"``, ``"histogram"``, ``"entropy"``, ``"percentile"`` or ``"mse"``; that of the descriptor by default.
            options: its options.

        Raises:
            StateError: when something was collected by another method.
            UnknownNameError: when there is no such method.
        """
        switches = self._switches
        if switches is not None and switches.method is not None and method is None and not options:
            wanted = switches.method
        else:
            wanted = toolkit_method(method or str(getattr(self._scaling(), "calib_method", "max")), options)
        self._switched_on().start(wanted)

    def disable_calib(self) -> None:
        """Collect no more; what was collected is kept for :meth:`load_calib_amax`."""
        if self._switches is not None:
            self._switches.stop()

    def reset_calib(self) -> None:
        """Forget what was collected, and stop collecting."""
        if self._switches is not None:
            self._switches.forget()
            self._switches.leave_if_idle()

    def load_calib_amax(self, method: str | None = None, **options: Any) -> None:
        """Set ``amax`` from what was collected.

        Args:
            method: another rule for the same histogram: ``"entropy"``, ``"percentile"``, ``"mse"`` or ``"max"``.
            options: options of the rule.

        Raises:
            StateError: when nothing was collected, or no histogram for a rule that needs one.
        """
        if self._switches is None:
            raise nothing_collected(self.place, "it was not told to collect")
        self._switches.load(None if method is None else toolkit_method(method, options))

    def forward(self, x: Tensor | QuantTensor) -> Tensor:
        """The quantized tensor."""
        out = self.quant(value_of(x))
        if self.fake_quant or not isinstance(out, QuantTensor) or not self._quantizes:
            return value_of(out)
        integers: Tensor = round_ste(out.value / out.scale)
        return integers

    def float_repr(self) -> str:
        """What differs from the plain quantizer."""
        switches = self._switches
        flags = {
            "integers": not self.fake_quant,
            "clips": switches is not None and switches.clips,
            "collects": switches is not None and switches.collect is not None,
        }
        return ", ".join(name for name, on in flags.items() if on)

    @property
    def _switches(self) -> Switches | None:
        return Switches.on_quantizer(self.quant)

    def _switched_on(self) -> Switches:
        return self._switches or Switches(self.quant, self._scaling(), self.place)

    @property
    def _quantizes(self) -> bool:
        return self.quant.is_quant_enabled and (self._switches is None or not self._switches.passes)

    def _quantize(self, on: bool) -> None:
        if self._switches is None:
            self.quant.disable_quant = not on
        else:
            self._switches.passes = not on

    def _scaling(self) -> Scaling:
        for part in self.quant.tensor_quant.modules():
            if isinstance(part, Scaling) and (part.calibratable or isinstance(part, AmaxScaling)):
                return part
        raise ConfigurationError(
            "there is no amax to find",
            where=self.place,
            why="the scale of this quantizer does not come from data",
            fix="Use a quantizer such as Int8ActPerTensorFloat, or a descriptor without amax.",
        )
