"""Code that a registration names, and every way in which it is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, version

import pytest

from quant_core.errors import PluginError
from quant_core.plugins import load_attribute

Install = Callable[..., list[EntryPoint]]


def test_attributes_may_be_dotted() -> None:
    assert load_attribute("collections:OrderedDict.fromkeys")("ab") == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "math.pi",
            "'math.pi' names no code\n  code is named as 'package.module:attribute'\n"
            "  Write the reference in that form.",
        ),
        (
            "no_such_package.exporter:lower",
            "'no_such_package.exporter:lower' cannot be imported\n  at no_such_package.exporter\n"
            "  there is no module 'no_such_package'\n"
            "  Install the distribution that provides the module 'no_such_package'.",
        ),
        (
            "click.no_such_part:lower",
            "'click.no_such_part:lower' cannot be imported\n  at click.no_such_part\n"
            "  there is no module 'click.no_such_part'\n"
            "  click {click} is broken or of another version: reinstall it, or report this to its authors.",
        ),
    ],
)
def test_what_is_missing_is_named(reference: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        load_attribute(reference)
    assert str(caught.value) == message.replace("{click}", version("click"))


def test_a_missing_attribute_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(PluginError) as caught:
        load_attribute("colorsys:rgb_to_hvs")
    assert str(caught.value) == (
        "'colorsys:rgb_to_hvs' does not exist\n  at colorsys\n  colorsys has no attribute 'rgb_to_hvs'\n"
        "  Did you mean 'rgb_to_hsv' or 'rgb_to_hls' or 'rgb_to_yiq'?"
    )


def test_a_package_of_this_project_is_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "export_dpu", None)
    with pytest.raises(PluginError) as caught:
        load_attribute("export_dpu:lower")
    assert str(caught.value) == (
        "'export_dpu:lower' cannot be imported\n  at export_dpu\n  there is no module 'export_dpu'\n"
        "  Install it: pip install export-dpu"
    )


def test_a_dependency_that_is_missing_is_told_from_the_module_itself(install: Install) -> None:
    install("missing_dependency")
    with pytest.raises(PluginError) as caught:
        load_attribute("missing_dependency:lower")
    assert str(caught.value) == (
        "'missing_dependency:lower' cannot be imported\n  at missing_dependency\n"
        "  there is no module 'no_such_dependency', which missing_dependency needs\n"
        "  Install the distribution that provides the module 'no_such_dependency'."
    )


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("broken_import", "RuntimeError: the licence server does not answer"),
        ("leaves_the_interpreter", "SystemExit: please configure me first"),
    ],
)
def test_a_module_that_fails_on_import_is_broken(module: str, reason: str, install: Install) -> None:
    install(module)
    with pytest.raises(PluginError) as caught:
        load_attribute(f"{module}:lower")
    assert str(caught.value) == (
        f"'{module}:lower' cannot be imported\n  at {module}\n  importing it raised {reason}\n"
        f"  The package '{module}' is broken: reinstall it with its dependencies, or report this to its authors."
    )
