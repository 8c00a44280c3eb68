"""What a package without features can promise."""

from importlib.metadata import distribution, entry_points

import quant_rnn


def test_the_version_is_that_of_the_distribution() -> None:
    assert quant_rnn.__version__ == distribution("quant-rnn").version


def test_it_registers_nothing() -> None:
    assert [point for point in entry_points(group="quant") if point.dist and point.dist.name == "quant-rnn"] == []


def test_it_is_typed() -> None:
    assert "quant_rnn/py.typed" in [str(file) for file in distribution("quant-rnn").files or ()]
