"""What a package without features can promise."""

from importlib.metadata import distribution, entry_points

import export_dpu


def test_the_version_is_that_of_the_distribution() -> None:
    assert export_dpu.__version__ == distribution("export-dpu").version


def test_it_registers_nothing() -> None:
    assert [point for point in entry_points(group="quant") if point.dist and point.dist.name == "export-dpu"] == []


def test_it_is_typed() -> None:
    assert "export_dpu/py.typed" in [str(file) for file in distribution("export-dpu").files or ()]
