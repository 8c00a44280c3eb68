"""What a package without features can promise."""

from importlib.metadata import distribution, entry_points

import export_torchq


def test_the_version_is_that_of_the_distribution() -> None:
    assert export_torchq.__version__ == distribution("export-torchq").version


def test_it_registers_nothing() -> None:
    assert [point for point in entry_points(group="quant") if point.dist and point.dist.name == "export-torchq"] == []


def test_it_is_typed() -> None:
    assert "export_torchq/py.typed" in [str(file) for file in distribution("export-torchq").files or ()]
