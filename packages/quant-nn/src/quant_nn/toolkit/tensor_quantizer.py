"""The quantizer of one tensor with the switches of NVIDIA's toolkit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components import Scaling
from quant_core.errors import ConfigurationError, StateError
from quant_core.ops import round_ste
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.calibration.calibrators import Calibrator, HistogramCalibrator
from quant_nn.calibration.levels import Levels
from quant_nn.calibration.methods import Method
from quant_nn.calibration.places import threshold_of
from quant_nn.layer import QuantLayer, value_of
from quant_nn.quantizers import build_proxy
from quant_nn.toolkit.amax_scaling import AmaxScaling
from quant_nn.toolkit.collecting import ToolkitObserver, toolkit_method
from quant_nn.toolkit.descriptor import QuantDescriptor
from quant_nn.toolkit.injectors import activation_quantizer


class TensorQuantizer(QuantLayer):
    """Quantizes a tensor as a descriptor says: ``clamp(round(x / step), lo, hi) · step`` with ``step = amax / hi``.

    Inside is one of our quantizers, ``quant``, so that it exports as every other. Without ``amax`` each tensor has its own, until
    calibration has found one.

    Args:
        quant_desc: the descriptor.
        if_quant: whether it quantizes.
        if_clip: whether it clamps to ``−amax … amax`` (``0 … amax`` unsigned), also where it does not quantize.
        if_calib: whether it collects for :meth:`load_calib_amax`.

    Raises:
        InputError: from ``forward`` while collecting, when the tensor holds infinities or NaN.
        StateError: from ``forward``, when it clips and has no ``amax``.

    Shape: any; returns a plain tensor of the same shape: floats, or with ``fake_quant=False`` the integers as floats.

    Gradient: straight-through in the range, none beyond; with ``learn_amax`` to ``amax`` as in
    :func:`quant_core.ops.quantize_int`.

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
        self.clips = if_clip
        proxy = build_proxy(self, activation_quantizer(descriptor), "", {})
        assert proxy is not None
        self.quant: QuantProxy = proxy
        if not if_quant:
            self.disable_quant()
        if if_calib:
            self.enable_calib()

    @classmethod
    def of(cls, proxy: QuantProxy) -> TensorQuantizer:
        """The switches of a quantizer that belongs to a layer.

        Raises:
            ConfigurationError: when its scale does not come from data.

        >>> import quant_nn as qnn
        >>> act = qnn.QuantReLU()
        >>> TensorQuantizer.of(act.act_quant).disable_quant()
        >>> act
        QuantReLU(act: off)
        """
        found = cls.__new__(cls)
        nn.Module.__init__(found)
        found.fake_quant, found.clips, found.quant = True, False, proxy
        return found

    @property
    def amax(self) -> Tensor | None:
        """What the largest integer stands for; ``None`` where it has not been found."""
        scaling = self._scaling()
        if scaling.awaits_data:
            return None
        return threshold_of(scaling)

    @amax.setter
    def amax(self, amax: Tensor | float) -> None:
        self._scaling().take_threshold(torch.as_tensor(amax))

    def enable_quant(self) -> None:
        """Quantize."""
        self._quantize(True)

    def disable_quant(self) -> None:
        """Let values pass."""
        self._quantize(False)

    def enable_clip(self) -> None:
        """Clamp to the range, also where nothing is quantized."""
        self.clips = True

    def disable_clip(self) -> None:
        """Clamp only by quantizing."""
        self.clips = False

    def enable_calib(self, method: str | None = None, **options: Any) -> None:
        """Collect from now on; what was collected before is kept.

        Args:
            method: one of those of :func:`quant_nn.calibrate` but ``"statistics"``; that of the descriptor by default.
            options: its options.
        """
        observer = self._observer
        if observer is None:
            scaling = self._scaling()
            quantizes = not self.quant.disable_quant
            self.quant.disable_quant = False  # the observer lets values pass, so that they are seen
            wanted = toolkit_method(method or str(getattr(scaling, "calib_method", "max")), options)
            observer = ToolkitObserver(wanted, scaling, signed=self.quant.signed, quantizes=quantizes)
            observer.handles = observer.hook(self.quant)
        observer.collect = observer.take

    def disable_calib(self) -> None:
        """Collect no more; what was collected is kept for :meth:`load_calib_amax`."""
        if self._observer is not None:
            self._observer.collect = None

    def reset_calib(self) -> None:
        """Forget what was collected, and stop collecting."""
        observer = self._observer
        if observer is None:
            return
        for handle in observer.handles:
            handle.remove()
        self.quant.disable_quant = observer.passes

    def load_calib_amax(self, method: str | None = None, **options: Any) -> None:
        """Set ``amax`` from what was collected.

        Args:
            method: another rule for the same histogram: ``"entropy"``, ``"percentile"``, ``"mse"`` or ``"max"``.
            options: options of the rule.

        Raises:
            StateError: when nothing was collected, or no histogram for a rule that needs one.
        """
        observer = self._observer
        calibrator = None if observer is None else observer.calibrator
        if observer is None or calibrator is None or calibrator.empty:
            raise StateError(
                "there is no amax to load",
                where=self._place(),
                why="it has collected nothing" if observer is not None else "it was not told to collect",
                fix="Call enable_calib(), run the model on data, and then load_calib_amax().",
            )
        if method is not None:
            observer.method = self._other_rule(calibrator, toolkit_method(method, options))
        levels = Levels.of_quant(self.quant.tensor_quant)
        observer.method.check_levels(levels, self._place())
        observer.scaling.take_threshold(calibrator.threshold(levels))

    def forward(self, x: Tensor | QuantTensor) -> Tensor:
        """The quantized tensor."""
        value = value_of(x)
        if self.clips:
            value = self._clipped(value)
        out = self.quant(value)
        if self.fake_quant or not isinstance(out, QuantTensor) or not self._quantizes:
            return value_of(out)
        integers: Tensor = round_ste(out.value / out.scale)
        return integers

    def float_repr(self) -> str:
        """What differs from the plain quantizer."""
        flags = {"integers": not self.fake_quant, "clips": self.clips, "collects": self._observer is not None}
        return ", ".join(name for name, on in flags.items() if on)

    def _other_rule(self, calibrator: Calibrator, method: Method) -> Method:
        """Let a calibrator find its threshold by another rule."""
        if isinstance(calibrator, HistogramCalibrator):
            calibrator.rule, calibrator.options = method.rule, dict(method.options)
        elif method.rule is not None:
            raise StateError(
                f"{method.name!r} cannot be found in what was collected",
                where=self._place(),
                why="it was collected for 'max', which keeps no histogram",
                fix="Set calib_method of the descriptor to it, or call enable_calib(method) before collecting.",
            )
        return method

    @property
    def _observer(self) -> ToolkitObserver | None:
        """It lives in the hooks of the quantizer, so that it goes where the quantizer goes."""
        hooks = getattr(self.quant.tensor_quant, "_forward_pre_hooks", {}).values()
        owners = (getattr(hook, "__self__", None) for hook in hooks)
        return next((owner for owner in owners if isinstance(owner, ToolkitObserver)), None)

    @property
    def _quantizes(self) -> bool:
        observer = self._observer
        return self.quant.is_quant_enabled and (observer is None or not observer.passes)

    def _quantize(self, on: bool) -> None:
        if self._observer is None:
            self.quant.disable_quant = not on
        else:
            self._observer.passes = not on

    def _scaling(self) -> Scaling:
        for part in self.quant.tensor_quant.modules():
            if isinstance(part, Scaling) and (part.calibratable or isinstance(part, AmaxScaling)):
                return part
        raise ConfigurationError(
            "there is no amax to find",
            where=self._place(),
            why="the scale of this quantizer does not come from data",
            fix="Use a quantizer such as Int8ActPerTensorFloat, or a descriptor without amax.",
        )

    def _clipped(self, x: Tensor) -> Tensor:
        amax = self.amax
        if amax is None:
            raise StateError(
                "there is no amax to clip at",
                where=self._place(),
                why="none was given, and none was found in data",
                fix="Give amax in the descriptor, or calibrate before enable_clip().",
            )
        bound = amax.to(x.dtype)
        return torch.minimum(torch.maximum(x, -bound if self.quant.signed else torch.zeros_like(bound)), bound)

    def _place(self) -> str:
        return type(self.quant.owners[0]).__name__
