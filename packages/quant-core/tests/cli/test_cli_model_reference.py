"""MODEL on the command line: every way to name a model, and every way in which there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from quant_core.cli.errors import ArgumentError
from quant_core.cli.model_reference import load_model, parse_model
from quant_core.errors import LoadError

SOURCE = """
import sibling_of_net
from torch import nn

class Net(nn.Linear):
    def __init__(self):
        super().__init__(sibling_of_net.SIZE, 2)

class Sized(nn.Linear):
    pass

class Zoo:
    small = nn.Linear(2, 2)

def make():
    return Net()

def fail():
    raise RuntimeError("no weights here")

def number():
    return 3

instance = Net()
constant = 3

def leave():
    raise SystemExit("bye")
"""


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net_under_test.py").write_text(SOURCE)
    (tmp_path / "sibling_of_net.py").write_text("SIZE = 4\n")
    return tmp_path


@pytest.mark.parametrize("name", ["Net", "make", "instance"])
def test_a_file_gives_a_model_by_class_factory_or_instance(name: str, folder: Path) -> None:
    model = load_model(parse_model(f"{folder}/net_under_test.py:{name}"))
    assert isinstance(model, nn.Linear)
    assert (model.in_features, type(model).__module__) == (4, "net_under_test")


def test_a_name_may_be_dotted(folder: Path) -> None:
    model = load_model(parse_model(f"{folder}/net_under_test.py:Zoo.small"))
    assert isinstance(model, nn.Linear)
    assert model.in_features == 2


def test_a_module_is_found_from_the_current_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert isinstance(load_model(parse_model("net_under_test:Net")), nn.Linear)


def test_a_module_may_be_installed() -> None:
    assert isinstance(load_model(parse_model("torch.nn:ReLU")), nn.ReLU)


def test_a_file_does_not_replace_a_loaded_module_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("from torch import nn\nmodel = nn.ReLU()\n")
    import json

    assert isinstance(load_model(parse_model(f"{tmp_path}/json.py:model")), nn.ReLU)
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("net.py", "net.py:Net"),
        ("Net", "net.py:Net"),
        (":Net", "net.py:Net"),
        ("net.py:", "net.py:Net"),
        ("net.py:a b", "net.py:Net"),
        ("dir/net:Net", "net.py:Net"),
        ("my.py:3", "my.py:Net"),
    ],
)
def test_a_text_of_another_form_is_refused(text: str, example: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_model(text)
    assert str(caught.value) == (
        f"{text!r} names no model\n"
        "  at MODEL\n"
        "  a model is file.py:name or package.module:name\n"
        f"  Write, for example, {example}, where Net is a class, a function or an instance in there."
    )


def test_a_missing_file_is_answered_with_the_nearest_one(folder: Path) -> None:
    with pytest.raises(LoadError) as caught:
        parse_model(f"{folder}/net_undertest.py:Net")
    assert str(caught.value) == (
        f"there is no file '{folder}/net_undertest.py'\n"
        "  at MODEL\n"
        "  the directory has no such file\n"
        f"  {caught.value.fix}"
    )
    assert caught.value.fix.startswith(f"Did you mean '{folder}/net_under_test.py'")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        parse_model(f"{tmp_path}/nowhere/net.py:Net")
    assert str(caught.value) == (
        f"there is no file '{tmp_path}/nowhere/net.py'\n"
        "  at MODEL\n"
        f"  {tmp_path}/nowhere is no directory\n"
        "  Give the path of the file with the model."
    )


def test_a_missing_name_is_answered_with_what_the_file_defines(folder: Path) -> None:
    source = f"{folder}/net_under_test.py"
    with pytest.raises(LoadError) as caught:
        load_model(parse_model(f"{source}:Nett"))
    assert str(caught.value) == (
        f"'{source}' has no 'Nett'\n  at {source}:Nett\n  net_under_test defines no 'Nett'\n  Did you mean 'Net'?"
    )


@pytest.mark.parametrize(("name", "kind"), [("number", "int"), ("constant", "int")])
def test_what_is_no_module_is_refused(name: str, kind: str, folder: Path) -> None:
    source = f"{folder}/net_under_test.py"
    with pytest.raises(LoadError) as caught:
        load_model(parse_model(f"{source}:{name}"))
    assert str(caught.value) == (
        f"'{name}' gives no model\n"
        f"  at {source}:{name}\n"
        f"  it gives a {kind}, not a torch.nn.Module\n"
        "  Name a subclass of torch.nn.Module, a function that returns a module, or a module."
    )


@pytest.mark.parametrize(
    ("name", "line", "why"), [("fail", 19, "RuntimeError: no weights here"), ("leave", 28, "SystemExit: bye")]
)
def test_a_factory_that_fails_is_reported_with_its_line(name: str, line: int, why: str, folder: Path) -> None:
    source = f"{folder}/net_under_test.py"
    with pytest.raises(LoadError) as caught:
        load_model(parse_model(f"{source}:{name}"))
    assert str(caught.value) == (
        f"calling {name!r} without arguments failed\n"
        f"  at {source}:{line}\n"
        f"  {why}\n"
        "  Name a class or function that needs no arguments, if need be a small function that makes the model."
    )


def test_a_class_that_needs_arguments_is_refused(folder: Path) -> None:
    source = f"{folder}/net_under_test.py"
    with pytest.raises(LoadError) as caught:
        load_model(parse_model(f"{source}:Sized"))
    assert caught.value.what == "calling 'Sized' without arguments failed"
    assert caught.value.where == f"{source}:Sized"
    assert "missing 2 required positional arguments: 'in_features' and 'out_features'" in caught.value.why


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("x = 1\nraise ValueError('broken')\n", 2, "ValueError: broken"),
        ("import no_such_module\n", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = (\n", 1, "SyntaxError: '(' was never closed"),
        ("raise SystemExit('bye')\n", 1, "SystemExit: bye"),
    ],
)
def test_a_file_that_cannot_be_imported_is_reported_with_its_line(
    text: str, line: int, why: str, tmp_path: Path
) -> None:
    source = tmp_path / "bad_net.py"
    source.write_text(text)
    with pytest.raises(LoadError) as caught:
        load_model(parse_model(f"{source}:Net"))
    assert caught.value.what == f"'{source}' cannot be imported"
    assert caught.value.where == f"{source}:{line}"
    assert caught.value.why.startswith(why)
    assert caught.value.fix == (
        "Make `python -c 'import …'` of it work first; the full traceback is the cause of this error."
    )
    assert "bad_net" not in sys.modules


def test_a_file_that_is_part_of_a_package_is_to_be_named_as_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo_under_test").mkdir()
    (tmp_path / "zoo_under_test" / "parts.py").write_text("from torch import nn\n")
    (tmp_path / "zoo_under_test" / "net.py").write_text("from .parts import nn\n\nNet = nn.ReLU\n")
    monkeypatch.syspath_prepend(tmp_path)  # undone, with what the command adds
    with pytest.raises(LoadError) as caught:
        load_model(parse_model(f"{tmp_path}/zoo_under_test/net.py:Net"))
    assert caught.value.fix == (
        f"The file is a part of the package 'zoo_under_test': run the command in {tmp_path}, and name the module, "
        "zoo_under_test.net:Net."
    )
    assert isinstance(load_model(parse_model("zoo_under_test.net:Net")), nn.ReLU)


def test_a_module_that_is_not_installed_is_reported() -> None:
    with pytest.raises(LoadError) as caught:
        load_model(parse_model("no_such_module:Net"))
    assert str(caught.value).splitlines()[0] == "'no_such_module' cannot be imported"
    assert caught.value.where == "no_such_module:Net"  # no line of Python's own import system
    assert caught.value.why == "ModuleNotFoundError: No module named 'no_such_module'"
