"""Warnings of Brevitas, in its own code: they say nothing of ours."""

import pytest

_OF_BREVITAS = (
    "ignore:Positional args are being deprecated:FutureWarning",
    "ignore:Computing zero point of output accumulator not supported yet:UserWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for warning in _OF_BREVITAS:
        config.addinivalue_line("filterwarnings", warning)
