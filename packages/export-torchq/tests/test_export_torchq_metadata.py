"""What an empty beginning can promise."""

from importlib.metadata import distribution, entry_points

import export_torchq


def test_the_version_is_that_of_the_distribution() -> None:
    assert export_torchq.__version__ == distribution("export-torchq").version == "0.0.1"


def test_it_registers_nothing() -> None:
    assert "export-torchq" not in {point.dist.name for point in entry_points(group="quant") if point.dist is not None}


def test_it_is_typed() -> None:
    assert any(str(file).endswith("export_torchq/py.typed") for file in distribution("export-torchq").files or ())
