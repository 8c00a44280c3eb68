"""The registry: what plugins register, and that nothing which is wrong with one of them harms the others."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

import quant_core.quant
from quant_core.errors import PluginError, UnknownNameError
from quant_core.plugins import Registry, registry

Install = Callable[..., list[EntryPoint]]

BROKEN = {
    "broken_import": "importing broken_import raised RuntimeError: the licence server does not answer",
    "missing_dependency": "importing missing_dependency raised ModuleNotFoundError: "
    "No module named 'no_such_dependency'",
    "leaves_the_interpreter": "importing leaves_the_interpreter raised SystemExit: please configure me first",
    "wrong_type": "quant_targets gave {'name': 'npu'}; it yields Target objects",
    "wrong_kind": "quant_targets gave Quantizer(name='Int4', summary='4 bits', quantizer='mine:Int4'); "
    "it yields Target objects",
    "returns_nothing": "quant_targets gave None; it gives an iterable of Target objects",
    "raising_hook": "quant_quantizers raised LookupError: no table of quantizers",
    "bad_reference": "quant_quantizers raised PluginError: Quantizer 'Int4' has quantizer='mine.Int4' "
    "code is named as 'package.module:attribute', so that it is imported on first use only "
    "Write the reference as a string of that form.",
    "one_name_twice": "quant_quantizers gives the name 'Int4' twice",
    "unknown_hook": "quant_target is not a hook. Did you mean 'quant_targets'?",
    "unmarked_hook": "quant_targets is not marked as a hook: put @hookimpl over it",
    "reserved_name": "quant_quantiser has a name that is reserved for hooks. Did you mean 'quant_quantizers'?",
    "unknown_argument": "quant_targets asks for config; the hook gives no arguments",
    "wrapper": "quant_targets is a wrapper; plugins cannot wrap each other's hooks",
}


@pytest.mark.parametrize("module", BROKEN)
def test_a_broken_plugin_is_a_row_with_its_reason(module: str, install: Install) -> None:
    install("good_targets")
    plugins = Registry(install(module, version="0.3"))
    status = {plugin.name: plugin for plugin in plugins.plugins}[module.replace("_", "-")]
    assert (status.status, status.version) == ("broken", "0.3")
    assert status.reason == BROKEN[module]
    assert list(plugins.targets) == ["board", "npu"]
    assert not plugins.quantizers


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("no_version", "no_version does not state QUANT_API_VERSION; this is version 1"),
        ("future_version", "written for version 2 of the plugin API; this is version 1"),
    ],
)
def test_a_plugin_for_another_version_is_incompatible(module: str, reason: str, install: Install) -> None:
    (status,) = Registry(install(module)).plugins
    assert (status.status, status.reason) == ("incompatible", reason)


def test_an_entry_point_names_a_module() -> None:
    (status,) = Registry([EntryPoint("odd", "math:pi", "quant")]).plugins
    assert (status.distribution, status.version) == ("unknown", "unknown")
    assert (status.status, status.reason) == ("broken", "math:pi is a float; an entry point names a module")


def test_an_interrupt_by_the_user_passes_through(install: Install) -> None:
    points = install("interrupted")
    with pytest.raises(KeyboardInterrupt):
        Registry(points)


def test_entries_know_where_they_come_from(install: Install) -> None:
    plugins = Registry(install("good_targets", version="1.2"))
    target = plugins.target("npu")
    assert (target.item.summary, target.distribution, target.version) == (
        "an accelerator that does not exist",
        "good-targets",
        "1.2",
    )
    assert list(plugins.layers) == ["QuantMish"]
    assert list(plugins.ops) == ["mine::log2"]
    assert list(plugins.commands) == ["hello"]


def test_the_order_of_entry_points_changes_nothing(install: Install) -> None:
    for module in ("good_targets", "no_version"):
        install(module)
    points = install("broken_import")
    seen = set()
    for order in itertools.permutations(points):
        plugins = Registry(order)
        seen.add((plugins.plugins, tuple(plugins.targets)))
    assert len(seen) == 1
    names = [plugin.name for plugin in Registry(points).plugins]
    assert names == sorted(names)


def test_two_providers_of_one_name_are_a_conflict(install: Install) -> None:
    install("good_targets", version="1.0")
    plugins = Registry(install("also_npu", version="2.1"))
    assert [plugin.status for plugin in plugins.plugins] == ["active", "active"]
    assert list(plugins.layers) == ["QuantMish"]
    assert [str(conflict) for conflict in plugins.conflicts] == [
        "target 'npu' is registered by also-npu 2.1 and good-targets 1.0"
    ]
    for ask in (lambda: plugins.targets, lambda: plugins.target("board")):
        with pytest.raises(PluginError) as caught:
            ask()
        assert str(caught.value) == (
            "the target 'npu' is registered 2 times\n"
            "  at also-npu 2.1 and good-targets 1.0\n"
            "  a name means one thing, and nothing tells which of them is meant\n"
            "  Uninstall all but one of them, or name the others in QUANT_DISABLE_PLUGINS."
        )


def test_a_command_cannot_take_the_name_of_a_built_in_one(install: Install) -> None:
    plugins = Registry(install("shadowing_command"))
    (conflict,) = plugins.conflicts
    assert (conflict.kind, conflict.name) == ("command", "export")
    with pytest.raises(
        PluginError, match=r"^the command 'export' is registered 2 times\n  at quant-core .* and shadowing"
    ):
        _ = plugins.commands


@pytest.mark.parametrize("words", ["also-npu", "good-targets, also-npu ", "Also_NPU", "*"])
def test_a_disabled_plugin_is_not_imported(words: str, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("good_targets")
    points = install("also_npu")
    monkeypatch.setenv("QUANT_DISABLE_PLUGINS", words)
    status = Registry(points).plugins[0]
    assert (status.name, status.status, status.reason) == ("also-npu", "disabled", "named in QUANT_DISABLE_PLUGINS")
    assert "also_npu" not in sys.modules


def test_disabling_one_provider_settles_a_conflict(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("good_targets")
    points = install("also_npu")
    monkeypatch.setenv("QUANT_DISABLE_PLUGINS", "good-targets")
    assert Registry(points).target("npu").distribution == "also-npu"


def test_strict_mode_reports_all_that_cannot_be_used(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("good_targets", "broken_import"):
        install(module)
    points = install("no_version", version="0.1")
    monkeypatch.setenv("QUANT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError) as caught:
        Registry(points)
    assert str(caught.value) == (
        "2 plugins cannot be used\n"
        "  at broken-import 1.0, no-version 0.1\n"
        "  broken-import is broken: importing broken_import raised RuntimeError: the licence server does not answer\n"
        "  no-version is incompatible: no_version does not state QUANT_API_VERSION; this is version 1\n"
        "  Update or remove what is listed, name it in QUANT_DISABLE_PLUGINS, or unset QUANT_STRICT_PLUGINS."
    )


def test_strict_mode_takes_what_is_disabled(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    points = install("broken_import")
    monkeypatch.setenv("QUANT_STRICT_PLUGINS", "1")
    monkeypatch.setenv("QUANT_DISABLE_PLUGINS", "broken-import")
    assert Registry(points).plugins[0].status == "disabled"


def test_strict_mode_is_off_when_it_is_zero(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    points = install("broken_import")
    monkeypatch.setenv("QUANT_STRICT_PLUGINS", "0")
    assert Registry(points).plugins[0].status == "broken"


@pytest.mark.parametrize(
    ("name", "why", "fix"),
    [
        ("npv", "no installed package registers it; installed targets: board, npu", "Did you mean 'npu'?"),
        (
            "qcdq",
            "the package that provides it is not installed; installed targets: board, npu",
            "Install it: pip install export-qcdq",
        ),
        (
            "qdcq",
            "no installed package registers it; installed targets: board, npu",
            "Did you mean 'qcdq' (pip install export-qcdq)?",
        ),
        (
            "zzzzz",
            "no installed package registers it; installed targets: board, npu",
            "See `quant export --list-targets`.",
        ),
    ],
)
def test_an_unknown_target_says_what_to_do(name: str, why: str, fix: str, install: Install) -> None:
    with pytest.raises(UnknownNameError) as caught:
        Registry(install("good_targets")).target(name)
    assert str(caught.value) == f"unknown target {name!r}\n  {why}\n  {fix}"


def test_no_targets_at_all() -> None:
    with pytest.raises(UnknownNameError, match="no installed package registers it; installed targets: none"):
        Registry([]).target("mine")


def test_the_registry_of_the_process_holds_the_named_quantizers_of_the_core() -> None:
    plugins = registry()
    assert plugins is registry()
    own = {name for name, registered in plugins.quantizers.items() if registered.distribution == "quant-core"}
    assert own == set(quant_core.quant.__all__)
