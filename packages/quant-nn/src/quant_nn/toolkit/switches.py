"""What the switches of one quantizer are set to, in hooks on it, so that it goes where the quantizer goes."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from quant_core.components import Scaling
from quant_core.errors import StateError, UnknownNameError, did_you_mean
from quant_core.proxies import QuantProxy
from quant_nn.calibration.calibrators import Calibrator, HistogramCalibrator
from quant_nn.calibration.levels import Levels
from quant_nn.calibration.methods import Method, method_of
from quant_nn.calibration.observing import Observer
from quant_nn.calibration.places import threshold_of
from quant_nn.toolkit.descriptor import CALIB_METHODS


class Switches(Observer):
    """An observer that stays on a quantizer: it may collect, clip, and let values pass, in this order.

    Args:
        proxy: the quantizer.
        scaling: what holds its threshold.
        place: what errors call it.

    Attributes:
        clips: whether values are clamped to the threshold before they are quantized or pass.
        method: how to calibrate; ``None`` before something is to be collected.
        calibrator: what was collected.
    """

    def __init__(self, proxy: QuantProxy, scaling: Scaling, place: str) -> None:
        super().__init__(None, passes=proxy.disable_quant)
        self.proxy, self.scaling, self.place = proxy, scaling, place
        self.clips = False
        self.method: Method | None = None
        self.calibrator: Calibrator | None = None
        proxy.disable_quant = False  # this lets values pass, so that they are seen
        self._handles = self.hook(proxy)

    @classmethod
    def on_quantizer(cls, proxy: QuantProxy) -> Self | None:
        """Those of a quantizer, where it has any."""
        hooks = getattr(proxy.tensor_quant, "_forward_pre_hooks", {}).values()
        owners = (getattr(hook, "__self__", None) for hook in hooks)
        return next((owner for owner in owners if isinstance(owner, cls)), None)

    def start(self, method: Method) -> None:
        """Collect from now on.

        Raises:
            StateError: when something was collected by another method.
        """
        if self.calibrator is not None and self.method not in (None, method):
            raise StateError(
                f"it collects for {self._method_name!r} already",
                where=self.place,
                why=f"what was collected is not that for {method.name!r}, or its options are others",
                fix="Call reset_calib() first, or load_calib_amax(method) for another rule on the same histogram.",
            )
        self.method, self.collect = method, self._take

    def stop(self) -> None:
        """Collect no more, and keep what was collected."""
        self.collect = None

    def forget(self) -> None:
        """Collect no more, and forget what was collected."""
        self.collect = self.method = self.calibrator = None

    def leave_if_idle(self) -> None:
        """Leave the quantizer as it would be without switches, where none of them does more than to let values pass."""
        if self.method is None and not self.clips:
            for handle in self._handles:
                handle.remove()
            self.proxy.disable_quant = self.passes

    def load(self, other: Method | None) -> None:
        """Set the threshold from what was collected.

        Args:
            other: another rule for the same histogram.

        Raises:
            StateError: when there is nothing, or no histogram for a rule that needs one.
            ConfigurationError: when the method cannot calibrate this quantizer.
        """
        if self.method is None or self.calibrator is None or self.calibrator.empty:
            raise nothing_collected(
                self.place, "it has collected nothing" if self.method else "it was not told to collect"
            )
        if other is not None:
            self._use(other, self.calibrator)
        levels = Levels.of_quant(self.proxy.tensor_quant)
        self.method.check_levels(levels, self.place)
        self.scaling.take_threshold(self.calibrator.threshold(levels))

    def _use(self, method: Method, calibrator: Calibrator) -> None:
        """Let a calibrator find its threshold by another rule."""
        if isinstance(calibrator, HistogramCalibrator):
            calibrator.rule, calibrator.options = method.rule, dict(method.options)
        elif method.rule is not None:
            raise StateError(
                f"{method.name!r} cannot be found in what was collected",
                where=self.place,
                why="it was collected for 'max', which keeps no histogram",
                fix="Set calib_method of the descriptor to it, or call enable_calib(method) before collecting.",
            )
        self.method = method

    def _take(self, x: Tensor) -> None:
        assert self.method is not None
        if self.calibrator is None:
            with torch.no_grad():
                shape = tuple(threshold_of(self.scaling, x.detach()).shape)
            self.calibrator = self.method.calibrator(shape, signed=self.proxy.signed).to(x.device)
        self.calibrator.collect(x)

    def _before(self, quant: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        super()._before(quant, args, kwargs)
        return ((self._clipped(args[0]), *args[1:]), kwargs) if self.clips else None

    def _clipped(self, x: Tensor) -> Tensor:
        if self.scaling.awaits_data:
            raise StateError(
                "there is no amax to clip at",
                where=self.place,
                why="none was given, and none was found in data",
                fix="Give amax in the descriptor, or calibrate before enable_clip().",
            )
        bound = threshold_of(self.scaling, x).to(x.dtype)
        return torch.minimum(torch.maximum(x, -bound if self.proxy.signed else torch.zeros_like(bound)), bound)

    @property
    def _method_name(self) -> str | None:
        return None if self.method is None else self.method.name


def toolkit_method(name: str, options: dict[str, Any]) -> Method:
    """The method of a word; ``"histogram"`` leaves open what is found in it, and ``"entropy"`` stands for it.

    Raises:
        UnknownNameError: when the toolkit has no such word.

    >>> toolkit_method("histogram", {}).name
    'entropy'
    """
    if name not in CALIB_METHODS:
        raise UnknownNameError(
            f"unknown calibration method {name!r}",
            why=f"the methods are {', '.join(CALIB_METHODS)}",
            fix=did_you_mean(str(name), CALIB_METHODS),
        )
    return method_of("entropy" if name == "histogram" else name, **options)


def nothing_collected(place: str, why: str) -> StateError:
    """There is no amax to load."""
    return StateError(
        "there is no amax to load",
        where=place,
        why=why,
        fix="Call enable_calib(), run the model on data, and then load_calib_amax().",
    )
