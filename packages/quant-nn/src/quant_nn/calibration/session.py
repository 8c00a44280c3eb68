"""Calibration in steps: collect, perhaps in several runs or processes, and then set all ranges at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError, StateError
from quant_core.export.eval_mode import in_eval_mode
from quant_nn.calibration.batches import Forward, eager, no_data, progressing, run
from quant_nn.calibration.calibrators import Calibrator, Rule
from quant_nn.calibration.checkpoint import calibrators_of, check_state, state_of
from quant_nn.calibration.levels import Levels
from quant_nn.calibration.methods import STATISTICS, method_of
from quant_nn.calibration.observing import Observer, quantizers
from quant_nn.calibration.own_statistics import OwnStatistics
from quant_nn.calibration.places import Place, places, threshold_of
from quant_nn.calibration.reduction import check_all_well, process_count, reduced, share_failure
from quant_nn.calibration.report import Calibrated, CalibrationReport


class Calibration:
    """Finds the ranges of all quantizers that take them from data.

    While :meth:`collecting`, the model computes in eval mode and in full precision. Nothing about it changes before
    :meth:`finish`, which sets all ranges, or none if one cannot be found. A batch that is interrupted is not taken into account
    at all, so that collecting can go on with it.

    Args:
        model: any model.
        method: one of ``METHODS``, or a rule of one's own.
        bins: of histograms.
        only: the paths of the quantizers to calibrate; all by default.
        again: whether those that are calibrated already are taken too.
        options: options of the method, such as ``percentile``.

    Attributes:
        batches: how many batches were collected by :meth:`collect`; what to skip after an interruption.
        calibrators: what was collected, by the path of the quantizer.

    Raises:
        UnknownNameError: when the method or a name in ``only`` is unknown.
        ConfigurationError: when there is nothing to calibrate, or the method cannot calibrate a quantizer.
        StateError: when a quantizer is calibrated already.

    >>> import quant_nn as qnn
    >>> act = qnn.QuantReLU()
    >>> calibration = Calibration(act, "max")
    >>> with calibration.collecting():
    ...     _ = act(torch.tensor([1.0, 2.55]))
    >>> calibration.finish().thresholds["act_quant"].item(), act.act_quant.scale().item()
    (2.549999952316284, 0.009999999776482582)
    """

    def __init__(
        self,
        model: nn.Module,
        method: str | Rule = "auto",
        *,
        bins: int | None = None,
        only: Iterable[str] | None = None,
        again: bool = False,
        **options: Any,
    ) -> None:
        self.model = model = eager(model)
        self.method = method_of(method, bins, **options)
        self.batches = 0
        self.calibrators: dict[str, Calibrator] = {}
        self._places = places(model, only, again=again)
        left = [place for place in self._places if self.method.leaves(Levels.of_quant(place.quant))]
        self._left = {place.name for place in left}
        self._own = OwnStatistics(left)
        self._kept: dict[str, dict[str, Any]] = {}
        self._open = False
        for place in self._places:
            if place.name not in self._left:
                self._check(place)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Look at all tensors that reach the quantizers, for the length of a block in which the model is run.

        When the block raises, what it has collected is forgotten, and the other processes, where there are several, are told.

        Raises:
            StateError: within such a block, where everything would count twice.
        """
        if self._open:
            raise StateError(
                "this calibration is collecting already",
                where=type(self.model).__name__,
                why="a block of collecting() has not ended, and tensors would count twice",
                fix="Run the model by itself in such a block, or call collect(data) outside of it.",
            )
        with ExitStack() as stack:
            stack.enter_context(share_failure())
            stack.enter_context(self._forgotten_when_it_fails())
            stack.enter_context(torch.no_grad())
            stack.enter_context(in_eval_mode(self.model))
            stack.enter_context(self._own.collecting())  # leaving eval mode brings back the modes of all modules
            collectors = {id(proxy): place for place in self._places for proxy in place.proxies}
            for proxy in quantizers(self.model).values():
                place = collectors.get(id(proxy))
                stack.enter_context(self._observer(place).on(proxy))
            yield
            self._keep()

    def collect(self, data: Iterable[Any], *, progress: bool | None = None, forward: Forward = run) -> None:
        """Run the model on all batches; when it is interrupted, those before count, and :attr:`batches` tells how many.

        Args:
            data: any iterable of tensors, of tuples of arguments, or of mappings of keywords.
            progress: whether there is a progress bar; by default where standard error is a terminal.
            forward: ``forward(model, batch)`` runs the model, where batches are of another form.

        Raises:
            InputError: when a tensor holds infinities or NaN, or there is no data.
        """
        before = self.batches
        with self.collecting():
            for batch in progressing(data, "calibrating", progress):
                forward(self.model, batch)
                self._keep()
                self.batches += 1
            if self.batches == before and process_count() == 1:
                raise no_data(type(self.model).__name__)

    def finish(self) -> CalibrationReport:
        """Set all ranges; with several processes those of all data of all of them, on each.

        Raises:
            StateError: when a quantizer has seen no data; names it.
            ConfigurationError: when a rule of one's own gives no threshold.
        """
        check_all_well()
        found, batches = reduced(self.calibrators, self._empty_calibrator, self.batches)
        with self._own.applied(), torch.no_grad():
            self._check_seen(found, batches)
            thresholds = {place.name: _threshold(place, found[place.name]) for place in self._measured}
        for place in self._measured:
            place.scaling.take_threshold(thresholds[place.name])
        rows = [_row(place, None if place.name in self._left else found[place.name]) for place in self._places]
        return CalibrationReport(method=self.method.name, batches=batches, quantizers=tuple(rows))

    def state_dict(self) -> dict[str, Any]:
        """What was collected, to go on later; made of tensors and numbers, so that ``torch.load(weights_only=True)`` reads it."""
        return state_of(self.method, self.batches, self.calibrators, self._own.collected)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what another calibration of the same model collected, with the same method and number of bins.

        Raises:
            StateError: when it was another one.
        """
        check_state(state, self.method, [place.name for place in self._measured])
        if state["own"] is not None:
            self._own.load(state["own"])
        self.batches = int(state["batches"])
        self.calibrators = calibrators_of(state, self._empty_calibrator)

    def _observer(self, place: Place | None) -> Observer:
        if place is None or place.name in self._left:
            return Observer()
        return Observer(lambda x: self._collect(place, x))

    def _collect(self, place: Place, x: Tensor) -> None:
        calibrator = self.calibrators.get(place.name)
        if calibrator is None:
            shape = tuple(threshold_of(place.scaling, x).shape)
            calibrator = self.calibrators[place.name] = self._empty_calibrator(place.name, shape).to(x.device)
        calibrator.collect(x)

    def _empty_calibrator(self, name: str, shape: tuple[int, ...]) -> Calibrator:
        place = next(place for place in self._places if place.name == name)
        return self.method.calibrator(shape, signed=place.signed)

    def _check(self, place: Place) -> None:
        """A named method finds one threshold; what has a zero-point to be found as well collects its own statistics."""
        self.method.check_levels(Levels.of_quant(place.quant), place.name)
        zero_point = getattr(place.quant, "zero_point_impl", None)
        if isinstance(getattr(zero_point, "collected", None), StepCounter):
            raise ConfigurationError(
                f"the method {self.method.name!r} cannot calibrate this quantizer",
                where=place.name,
                why="it has a zero-point that is to be found in data as well, and the method finds a threshold only",
                fix=f"Use method={STATISTICS!r}, which collects what the quantizer itself asks for.",
            )

    @property
    def _measured(self) -> list[Place]:
        """Those that are not left to their own statistics."""
        return [place for place in self._places if place.name not in self._left]

    def _keep(self) -> None:
        """What has been collected by now counts, whatever comes."""
        self._own.keep()
        self._kept = {name: dict(calibrator.state_dict()) for name, calibrator in self.calibrators.items()}

    @contextmanager
    def _forgotten_when_it_fails(self) -> Iterator[None]:
        self._kept = {name: dict(calibrator.state_dict()) for name, calibrator in self.calibrators.items()}
        self._open = True
        try:
            yield
        except BaseException:
            self.calibrators = {name: self.calibrators[name] for name in self._kept}
            for name, state in self._kept.items():
                self.calibrators[name].load_state_dict(state, assign=True)
            raise
        finally:
            self._open = False

    def _check_seen(self, found: Mapping[str, Calibrator], batches: int) -> None:
        missing = [place.name for place in self._places if not self._has_seen(place, found)]
        if missing:
            raise StateError(
                "quantizers have seen no data",
                where=", ".join(missing),
                why=f"no tensor reached them in {batches} batches; nothing has been calibrated",
                fix="Give data that takes every path through the model, or name the others as only=[…].",
            )

    def _has_seen(self, place: Place, found: Mapping[str, Calibrator]) -> bool:
        if place.name in self._left:
            return self._own.collected is not None and not place.scaling.awaits_data
        return place.name in found and not found[place.name].empty


def _threshold(place: Place, calibrator: Calibrator) -> Tensor:
    try:
        return calibrator.threshold(Levels.of_quant(place.quant))
    except ConfigurationError as error:
        raise error.at(place.name) from error.__cause__


def _row(place: Place, calibrator: Calibrator | None) -> Calibrated:
    """What a quantizer has now; the largest magnitude and the number of elements are known where they were measured."""
    return Calibrated(
        name=place.name,
        threshold=threshold_of(place.scaling).detach().clone(),
        largest=None if calibrator is None else calibrator.largest.reshape(calibrator.scale_shape),
        elements=None if calibrator is None else int(calibrator.elements),
    )
