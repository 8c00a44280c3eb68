"""The names of the ways to calibrate."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from quant_core.errors import ConfigurationError, UnknownNameError, UnusedAttributeError, did_you_mean
from quant_nn.calibration.calibrators import Calibrator, HistogramCalibrator, Rule, check_bins
from quant_nn.calibration.levels import Levels
from quant_nn.calibration.relative_entropy import entropy
from quant_nn.calibration.rules import check_percentile, mse, percentile

STATISTICS: Final = "statistics"
"""Each quantizer collects the statistic that it would collect in training."""

AUTO: Final = "auto"
"""The smallest squared error where there are integers with the zero-point 0, and else the quantizer's own statistics."""

RULES: Final[Mapping[str, Rule]] = {"entropy": entropy, "percentile": percentile, "mse": mse}
METHODS: Final = (AUTO, STATISTICS, "max", *RULES)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to calibrate.

    Attributes:
        name: one of ``METHODS``, or what a rule of one's own is called.
        rule: what it makes of a histogram; ``None`` for those that need none.
        bins: of the histogram.
        options: options of the rule.
    """

    name: str
    rule: Rule | None = None
    bins: int = 2048
    options: Mapping[str, Any] = field(default_factory=dict)

    def calibrator(self, scale_shape: tuple[int, ...], *, signed: bool) -> Calibrator:
        """An empty calibrator for a scale."""
        if self.rule is None:
            return Calibrator(scale_shape, signed)
        return HistogramCalibrator(scale_shape, signed, self.bins, self.rule, self.options)

    def leaves(self, levels: Levels | None) -> bool:
        """Whether it leaves a quantizer with such levels to its own statistics."""
        return self.rule in (None, mse) and (self.name == STATISTICS or (self.name == AUTO and levels is None))

    def check_levels(self, levels: Levels | None, where: str) -> None:
        """Entropy and squared error ask for the integers that a range is spread over.

        Raises:
            ConfigurationError: when they are not known.
        """
        if levels is None and self.rule in (entropy, mse):
            raise ConfigurationError(
                f"the method {self.name!r} cannot calibrate this quantizer",
                where=where,
                why="it compares ranges by the integers that they are rounded to, with the zero-point 0",
                fix=f"Use method={STATISTICS!r}, which collects what the quantizer itself asks for, or 'max'.",
            )


def method_of(method: str | Rule, /, bins: int | None = None, **options: Any) -> Method:
    """The method of a name, or that of a rule of one's own.

    Args:
        method: one of ``METHODS``, or a function ``rule(histogram, levels, **options)``.
        bins: of the histogram; 2048 by default.
        options: options of the rule.

    Raises:
        UnknownNameError: when there is none of that name.
        UnusedAttributeError: for an option that it does not read.
        ConfigurationError: for one that is out of range, before any data is gone through.

    >>> method_of("percentile", percentile=99.9).name
    'percentile'
    """
    if not isinstance(method, str) and not callable(method):
        raise _unknown(method)
    if isinstance(method, str) and method not in METHODS:
        raise _unknown(method)
    rule = RULES.get("mse" if method == AUTO else method) if isinstance(method, str) else method
    name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
    given = {**options, **({} if bins is None else {"bins": bins})}
    known = ["bins", *list(inspect.signature(rule).parameters)[2:]] if rule is not None else []
    unread = next((option for option in given if option not in known), None)
    if unread is not None:
        raise UnusedAttributeError(
            f"the method {name!r} has no option {unread!r}",
            why=f"its options are {', '.join(known)}" if known else "it has no options",
            fix=did_you_mean(unread, known) if known else f"Leave {unread} out.",
        )
    if bins is not None:
        check_bins(bins)
    if rule is percentile and "percentile" in options:
        check_percentile(options["percentile"])
    return Method(name=name, rule=rule, bins=2048 if bins is None else bins, options=options)


def _unknown(method: object) -> UnknownNameError:
    return UnknownNameError(
        f"unknown calibration method {method!r}",
        why=f"the methods are {', '.join(METHODS)}, or a function of a histogram",
        fix=did_you_mean(str(method), METHODS),
    )
