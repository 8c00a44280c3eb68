"""Warnings that say nothing of what is compared: those of Brevitas, and one of torch about numbers read from scales."""

import pytest

_IGNORED = (
    "ignore:Positional args are being deprecated:FutureWarning",
    "ignore:Keyword arguments are being passed but they not being used:UserWarning",
    "ignore:Converting a tensor with requires_grad=True to a scalar:UserWarning",
    "ignore:Computing zero point of output accumulator not supported yet:UserWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for warning in _IGNORED:
        config.addinivalue_line("filterwarnings", warning)
