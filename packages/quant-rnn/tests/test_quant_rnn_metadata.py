"""What an empty beginning can promise."""

from importlib.metadata import distribution, entry_points

import quant_rnn


def test_the_version_is_that_of_the_distribution() -> None:
    assert quant_rnn.__version__ == distribution("quant-rnn").version == "0.0.1"


def test_it_registers_nothing() -> None:
    assert "quant-rnn" not in {point.dist.name for point in entry_points(group="quant") if point.dist is not None}


def test_it_is_typed() -> None:
    assert any(str(file).endswith("quant_rnn/py.typed") for file in distribution("quant-rnn").files or ())
