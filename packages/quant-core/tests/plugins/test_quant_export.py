"""`quant export` from the command line to the file, with targets that a test plugin provides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from quant_core.cli.main import quant

Run = Callable[..., Result]


@pytest.fixture
def run(environment: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("export", "listing", …)`` runs the command in a directory that holds ``nets.py``."""
    environment("listing_plugin", modules=("listing_exporter", "nets"))
    monkeypatch.chdir(tmp_path / "site")

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(quant, arguments, catch_exceptions=False)

    return command


def _files() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"__pycache__"}


def test_the_result_is_a_table_and_nothing_else(run: Run) -> None:
    result = run("export", "listing", "nets.py:Net", "--input", "1x4", "-o", "net.json")
    assert result.exit_code == 0
    head, _, row = result.stdout.splitlines()
    assert head.split("  ")[0] == "target"
    assert row.split()[:4] == ["listing", "net.json", "67", "B"]
    assert row.split()[-1] == "yes"
    assert "a model that talks" in result.stderr
    assert json.loads(Path("net.json").read_text()) == [
        "aten.linear.default",
        "aten.relu.default",
        "aten.linear.default",
    ]


def test_the_result_as_json(run: Run) -> None:
    result = run("export", "listing", "nets.py:Net", "--input", "1x4", "-o", "net.json", "--json")
    done = json.loads(result.stdout)
    assert done.pop("seconds") > 0
    assert done == {
        "target": "listing",
        "file": "net.json",
        "size": 67,
        "verified": True,
        "reason": None,
        "largest_difference": 0.0,
        "largest_difference_in_steps": None,
        "uncalibrated": [],
        "notes": [],
    }


def test_what_the_check_notes_is_told_beside_the_result(run: Run) -> None:
    arguments = ["noting", "nets.py:Net", "--input", "1x4", "-o", "net.json"]
    result = run("export", *arguments)
    assert result.exit_code == 0
    assert "Note: readers of lists count 3 operations\n  at the file\n" in result.stderr
    assert "Note" not in result.stdout
    note = {"where": "the file", "what": "readers of lists count 3 operations"}
    assert json.loads(run("export", *arguments, "--json").stdout)["notes"] == [note]


@pytest.mark.parametrize("name", ["--weights", "MODEL"])
def test_a_file_that_is_read_is_not_written(name: str, run: Run) -> None:
    torch.save({}, "linear.pt")
    read = {"--weights": "linear.pt", "MODEL": "nets.py"}[name]
    before = Path(read).read_bytes()
    arguments = ["nets.py:Net", "--weights", "linear.pt", "--input", "1x4", "-o", read]
    result = run("export", "listing", *arguments)
    assert result.exit_code == 2
    assert result.stderr == (
        f"ArgumentError: --output would overwrite {name}\n"
        f"  at {read}\n"
        "  the export reads that file, and would replace it by the artifact\n"
        f"  Write to another file, for example {Path(read).with_suffix('.json')}.\n"
    )
    assert Path(read).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["listing", "--no-verify"], "--no-verify"),
        (["never-run"], "nothing runs its artifacts"),
        (["cannot-run"], "no_such_runtime is not installed"),
    ],
)
def test_why_a_result_is_not_verified(arguments: list[str], reason: str, run: Run) -> None:
    target, *rest = arguments
    common = ["nets:Net", "--input", "1x4", "-o", "net.json", *rest]
    assert f"no: {reason}" in run("export", target, *common).stdout
    done = json.loads(run("export", target, *common, "--json").stdout)
    assert (done["verified"], done["reason"], done["largest_difference"]) == (False, reason, None)


def test_keyword_inputs_and_a_dynamic_batch(run: Run) -> None:
    arguments = ["nets.py:Net", "--input", "2x4", "--input", "shift=2x2", "--dynamic-batch", "-o", "net.json"]
    assert run("export", "listing", *arguments).exit_code == 0
    assert "aten.add.Tensor" in Path("net.json").read_text()


def test_a_model_is_exported_as_it_computes_in_eval_mode(run: Run) -> None:
    assert run("export", "listing", "nets.py:OtherInTraining", "--input", "1x4", "-o", "net.json").exit_code == 0
    assert json.loads(Path("net.json").read_text()) == ["aten.tanh.default"]


def test_the_weights_of_the_file_are_exported(run: Run) -> None:
    model = nn.Linear(4, 2)
    torch.save(model.state_dict(), "linear.pt")
    common = ["nets.py:linear", "--input", "1x4", "-o", "net.json", "--option", "weights=true"]
    assert run("export", "listing", *common, "--weights", "linear.pt").exit_code == 0
    assert json.loads(Path("net.json").read_text())["weight"] == model.weight.tolist()
    assert run("export", "listing", *common).exit_code == 0
    assert json.loads(Path("net.json").read_text())["weight"] != model.weight.tolist()


def test_an_artifact_that_differs_is_not_written(run: Run) -> None:
    before = _files()
    arguments = ["export", "listing", "nets.py:Net", "--input", "1x4", "-o", "net.json", "--option", "error=0.5"]
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert (
        "VerificationError: the listing artifact computes something else than the model\n  at output 0\n"
        in result.stderr
    )
    assert _files() == before


def test_a_refused_model_is_not_written(run: Run) -> None:
    before = _files()
    result = run("export", "linear-only", "nets.py:Net", "--input", "1x4", "-o", "net.json")
    assert result.exit_code == 1
    assert "UnsupportedError: target 'linear-only' cannot lower aten.relu.default" in result.stderr
    assert _files() == before


def test_a_refusal_as_json_holds_its_fields(run: Run) -> None:
    arguments = ["export", "linear-only", "nets.py:Net", "--input", "1x4", "-o", "net.json", "--json"]
    result = run(*arguments)
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 1
    assert error["type"] == "UnsupportedError"
    assert error["why"] == "linear-only takes aten and quant operations, of aten only linear.default"
    assert [refusal["op"] for refusal in error["refusals"]] == ["aten.relu.default"]
    assert set(error["refusals"][0]) == {"where", "op", "actual", "constraint", "fix"}


@pytest.mark.parametrize(("target", "code", "ok"), [("listing", 0, True), ("linear-only", 1, False)])
def test_check_reports_and_writes_nothing(target: str, code: int, ok: bool, run: Run) -> None:
    before = _files()
    text = run("export", target, "nets.py:Net", "--input", "1x4", "--check")
    data = run("export", target, "nets.py:Net", "--input", "1x4", "--check", "-o", "net.json", "--json")
    assert (text.exit_code, data.exit_code) == (code, code)
    report = json.loads(data.stdout)
    assert (report["target"], report["ok"], len(report["refusals"])) == (target, ok, 0 if ok else 1)
    assert text.stdout.splitlines()[0] == (
        f"target {target!r} takes this model" if ok else f"target {target!r} cannot take this model: 1 refusal"
    )
    assert _files() == before


def test_an_unknown_option_is_a_usage_error(run: Run) -> None:
    arguments = ["nets.py:Net", "--input", "1x4", "-o", "net.json", "--option", "eror=1"]
    result = run("export", "listing", *arguments)
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "UnknownNameError: target 'listing' has no option 'eror'\n"
        "  its options are error, weights\n"
        "  Did you mean 'error'?\n"
    )


def test_an_output_that_cannot_be_written_is_found_before_the_model_is_made(run: Run) -> None:
    result = run("export", "listing", "nets.py:Net", "--input", "1x4", "-o", "missing/net.json")
    assert result.exit_code == 1
    assert result.stderr == (
        "ArtifactError: cannot write 'net.json'\n"
        "  at missing/net.json\n"
        "  missing is not a directory\n"
        "  Create it first: mkdir -p missing\n"
    )


def test_a_model_that_cannot_be_captured_is_refused(run: Run) -> None:
    result = run("export", "listing", "nets.py:Branching", "--input", "1x4", "-o", "net.json")
    assert result.exit_code == 1
    assert "CaptureError: torch.export cannot capture the model\n  at " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("argument", "name"), [("listing", "TARGET"), ("--check", "--check"), ("-oa", "--output")])
def test_nothing_is_exported_beside_a_listing(argument: str, name: str, run: Run) -> None:
    result = run("export", "--list-targets", "--json", argument)
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"] == {
        "type": "ArgumentError",
        "what": f"{name} has no effect beside --list-targets",
        "where": "quant export",
        "why": "a listing exports nothing, and reads --json only",
        "fix": f"Leave --list-targets out to export, or {name} to list.",
    }


def test_a_seed_that_torch_does_not_take_is_a_usage_error(run: Run) -> None:
    result = run("export", "listing", "nets.py:Net", "--input", "1x4", "--seed", str(2**64), "-o", "net.json")
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in result.stderr


USAGE: dict[str, tuple[list[str], dict[str, Any]]] = {
    "no target": ([], {"type": "ArgumentError", "what": "TARGET is missing"}),
    "no model": (["listing"], {"type": "ArgumentError", "what": "MODEL is missing"}),
    "no input": (["listing", "nets.py:Net"], {"type": "ArgumentError", "what": "no example input"}),
    "no output": (
        ["listing", "nets.py:Net", "--input", "1x4"],
        {"type": "ArgumentError", "what": "--output is missing"},
    ),
    "unknown target": (["listin"], {"type": "UnknownNameError", "what": "unknown target 'listin'"}),
    "bad model": (["listing", "nets.py"], {"type": "ArgumentError", "what": "'nets.py' names no model"}),
    "no file": (["listing", "net.py:Net"], {"type": "LoadError", "what": "there is no file 'net.py'"}),
    "bad shape": (
        ["listing", "nets.py:Net", "--input", "1*4"],
        {"type": "ArgumentError", "what": "'1*4' is not an input"},
    ),
    "no weights": (
        ["listing", "nets.py:Net", "--input", "1x4", "--weights", "net.pt"],
        {"type": "LoadError", "what": "there is no weights file 'net.pt'"},
    ),
    "bad option": (
        ["listing", "nets.py:Net", "--input", "1x4", "--option", "fast"],
        {"type": "ArgumentError", "what": "'fast' is not an option"},
    ),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors_exit_with_2_in_both_forms(case: str, run: Run) -> None:
    arguments, expected = USAGE[case]
    text, data = run("export", *arguments), run("export", *arguments, "--json")
    error = json.loads(data.stdout)["error"]
    assert (text.exit_code, data.exit_code) == (2, 2)
    assert {key: error[key] for key in expected} == expected
    place = f"  at {error['where']}\n" if error["where"] else ""
    assert text.stderr == f"{error['type']}: {error['what']}\n{place}  {error['why']}\n  {error['fix']}\n"
    assert text.stdout == ""
