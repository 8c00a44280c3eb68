"""`quant plugins`, `quant export --list-targets` and the commands of plugins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from quant_core.cli.main import quant
from quant_core.plugins.registry import BUILT_IN_COMMANDS

Environment = Callable[..., None]


@pytest.fixture(autouse=True)
def _no_other_targets(monkeypatch: pytest.MonkeyPatch, environment: Environment) -> None:
    """The packages of this project that happen to be installed beside the core are not part of what is tested."""
    others = "export-qcdq,export-finn,export-torchq,export-dpu,quant-nn,quant-rnn,acme-backend"
    monkeypatch.setenv("QUANT_DISABLE_PLUGINS", others)


def _rows(output: str) -> list[list[str]]:
    """The cells of a table, which are three spaces apart."""
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in output.splitlines()]


def test_targets_are_listed_with_their_origin(environment: Environment) -> None:
    environment("good_targets", "listing_plugin")
    result = CliRunner().invoke(quant, ["export", "--list-targets"])
    assert result.exit_code == 0
    rows = _rows(result.stdout)
    assert rows[0] == ["target", "summary", "package", "version", "status"]
    by_name = {row[0]: row[1:] for row in rows[2:]}
    assert by_name["npu"] == ["an accelerator that does not exist", "good-targets", "1.0", "runtime missing"]
    assert by_name["never-run"] == ["the operations of a program (never-run)", "listing-plugin", "1.0", "no runtime"]
    assert by_name["linear-only"][-1] == "ready"


def test_two_packages_with_one_target_are_an_error_that_names_both(environment: Environment) -> None:
    environment("good_targets", "also_npu")
    result = CliRunner().invoke(quant, ["export", "--list-targets"])
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "PluginError: the target 'npu' is registered 2 times\n  at also-npu 1.0 and good-targets 1.0\n"
    )


def test_targets_as_json(environment: Environment) -> None:
    environment("good_targets")
    listed = json.loads(CliRunner().invoke(quant, ["export", "--list-targets", "--json"]).stdout)
    assert listed[-1] == {
        "name": "npu",
        "summary": "an accelerator that does not exist",
        "package": "good-targets",
        "version": "1.0",
        "status": "runtime missing",
        "suffix": ".npu",
        "runtime": "no_such_runtime",
    }


def test_a_listing_mentions_what_is_not_in_use(environment: Environment) -> None:
    environment("good_targets", "broken_import")
    result = CliRunner().invoke(quant, ["export", "--list-targets"])
    assert result.exit_code == 0
    assert "broken-import" in result.stderr
    assert result.stderr.endswith("`quant plugins` says why.\n")


def test_plugins_are_listed_with_the_reason_and_the_conflicts(environment: Environment) -> None:
    environment("good_targets", "also_npu", "broken_import", "future_version")
    result = CliRunner().invoke(quant, ["plugins"])
    rows = _rows(result.stdout)
    assert result.exit_code == 0
    assert rows[0] == ["plugin", "package", "version", "status", "reason"]
    assert ["also-npu", "also-npu", "1.0", "active"] in rows
    assert [
        "broken-import",
        "broken-import",
        "1.0",
        "broken",
        "importing broken_import raised RuntimeError: the licence server does not answer",
    ] in rows
    assert [rows[i][j] for i in [_row(rows, "future-version")] for j in (0, 3)] == ["future-version", "incompatible"]
    assert result.stdout.endswith("Conflict: target 'npu' is registered by also-npu 1.0 and good-targets 1.0.\n")


def _row(rows: list[list[str]], name: str) -> int:
    return next(number for number, row in enumerate(rows) if row[0] == name)


def test_plugins_as_json(environment: Environment) -> None:
    environment("good_targets", "also_npu")
    found = json.loads(CliRunner().invoke(quant, ["plugins", "--json"]).stdout)
    assert {"name": "also-npu", "package": "also-npu", "version": "1.0", "status": "active", "reason": ""} in found[
        "plugins"
    ]
    assert found["conflicts"] == [{"kind": "target", "name": "npu", "providers": ["also-npu 1.0", "good-targets 1.0"]}]


def test_strict_mode_fails_every_command_with_the_reason(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment("broken_import")
    monkeypatch.setenv("QUANT_STRICT_PLUGINS", "1")
    result = CliRunner().invoke(quant, ["export", "--list-targets"])
    assert result.exit_code == 1
    assert result.stderr.startswith("PluginError: 1 plugin cannot be used\n  at broken-import 1.0\n")


def test_a_command_of_a_plugin_is_listed_and_runs(environment: Environment) -> None:
    environment("good_targets", modules=("good_command",))
    assert "  hello    says hello\n" in CliRunner().invoke(quant, ["--help"]).stdout
    result = CliRunner().invoke(quant, ["hello", "--name", "plugin"])
    assert (result.exit_code, result.stdout) == (0, "hello plugin\n")


def test_a_command_whose_code_is_missing_is_still_listed(environment: Environment) -> None:
    environment("good_targets")
    assert "  hello    says hello\n" in CliRunner().invoke(quant, ["--help"]).stdout
    result = CliRunner().invoke(quant, ["hello"])
    assert result.exit_code == 1
    assert result.stderr.startswith("PluginError: 'good_command:hello' cannot be imported\n  at good_command\n")


def test_no_plugin_takes_the_place_of_a_built_in_command(environment: Environment) -> None:
    environment("shadowing_command", modules=("good_command",))
    shown = CliRunner().invoke(quant, ["--help"])
    assert shown.exit_code == 0
    assert "  export   Export a model to a target.\n" in shown.stdout
    assert "PluginError: the command 'export' is registered 2 times" in shown.stderr
    assert CliRunner().invoke(quant, ["export", "--list-targets"]).exit_code == 0
    other = CliRunner().invoke(quant, ["number"])
    assert other.exit_code == 1
    assert other.stderr.startswith("PluginError: the command 'export' is registered 2 times\n")


def test_what_plugins_print_is_no_result(environment: Environment) -> None:
    environment("good_targets", "talking")
    result = CliRunner().invoke(quant, ["export", "--list-targets", "--json"])
    assert [row["name"] for row in json.loads(result.stdout)][-1] == "npu"
    assert result.stderr.startswith("a plugin that talks\na hook that talks\n")


def test_a_distribution_without_metadata_is_a_row(environment: Environment, tmp_path: Path) -> None:
    for name in ("stripped-1.0.dist-info", "bare-1.0.dist-info"):
        folder = tmp_path / "site" / name
        folder.mkdir()
        (folder / "entry_points.txt").write_text("[quant]\nnpu = no_such_module\nodd = not a module\n")
    environment()
    shown = CliRunner().invoke(quant, ["plugins"])
    assert shown.exit_code == 0
    rows = [row for row in _rows(shown.stdout) if row[1:3] == ["unknown", "unknown"]]
    reason = "importing no_such_module raised ModuleNotFoundError: No module named 'no_such_module'"
    assert rows == [
        *[["npu", "unknown", "unknown", "broken", reason]] * 2,
        *[["odd", "unknown", "unknown", "broken", "'not a module' names no module"]] * 2,
    ]
    versions = CliRunner().invoke(quant, ["--version"])
    assert versions.exit_code == 0
    assert "unknown unknown\n" in versions.stdout


def test_the_registry_knows_every_built_in_command() -> None:
    assert sorted(BUILT_IN_COMMANDS) == sorted(quant.commands)


def test_a_command_that_is_none_is_refused(environment: Environment) -> None:
    environment("odd_command", modules=("good_command",))
    result = CliRunner().invoke(quant, ["number"])
    assert result.exit_code == 1
    assert result.stderr == (
        "PluginError: the command 'number' cannot be run\n"
        "  at odd-command 1.0\n"
        "  'good_command:not_a_command' is a int, not a click command\n"
        "  Report this to the authors of that package.\n"
    )


def test_an_unknown_command_is_answered_with_the_nearest_one(environment: Environment) -> None:
    environment("good_targets")
    result = CliRunner().invoke(quant, ["helo"])
    assert result.exit_code == 2
    assert result.stderr == (
        "UnknownNameError: unknown command 'helo'\n  the commands are export, plugins, show, hello\n  Did you mean 'hello'?\n"
    )
