"""What a package without features can promise."""

from importlib.metadata import distribution, entry_points

import export_finn


def test_the_version_is_that_of_the_distribution() -> None:
    assert export_finn.__version__ == distribution("export-finn").version


def test_it_registers_nothing() -> None:
    assert [point for point in entry_points(group="quant") if point.dist and point.dist.name == "export-finn"] == []


def test_it_is_typed() -> None:
    assert "export_finn/py.typed" in [str(file) for file in distribution("export-finn").files or ()]
