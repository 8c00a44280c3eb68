"""The walls of the house: who may import whom, and what stays out of a light import."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {path.parent.name: path for path in sorted(ROOT.glob("packages/*/pyproject.toml"))}
OURS = {name.replace("-", "_") for name in PACKAGES}


def sources(package: str) -> Iterator[Path]:
    yield from sorted((ROOT / "packages" / package / "src").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The top packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def allowed(package: str) -> set[str]:
    own = package.replace("-", "_")
    if package == "quant-core":
        return {own}
    if package == "quant-rnn":
        return {own, "quant_core", "quant_nn"}
    return {own, "quant_core"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    found = {(path.name, top) for path in sources(package) for top in imported(path) if top in OURS}
    assert {(name, top) for name, top in found if top not in allowed(package)} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_the_siblings_that_it_imports(package: str) -> None:
    project = tomllib.loads(PACKAGES[package].read_text())["project"]
    declared = {dependency.partition(">")[0].replace("-", "_") for dependency in project["dependencies"]}
    used = {top for path in sources(package) for top in imported(path) if top in OURS}
    assert used - {package.replace("-", "_")} <= declared


def test_the_core_does_not_depend_on_onnx() -> None:
    """It may look onnx up when a target that depends on it calls; it does not import it to be imported itself."""
    code = (
        "import sys, quant_core.export, quant_core.quant, quant_core.tensor\n"
        "print([name for name in ('onnx', 'onnxscript', 'onnxruntime') if name in sys.modules])"
    )
    assert run(code) == "[]"
    project = tomllib.loads(PACKAGES["quant-core"].read_text())["project"]
    assert not any("onnx" in dependency for dependency in project["dependencies"])


@pytest.mark.parametrize(
    "module",
    ["quant_core", "quant_core.plugins", "quant_core.cli", "quant_nn", "export_finn.plugin", "export_qcdq.plugin"],
)
def test_a_light_import_does_not_import_torch(module: str) -> None:
    assert run(f"import sys, {module}; print('torch' in sys.modules)") == "False"


def test_layers_do_not_load_the_compiler() -> None:
    """Which would take a second of every start."""
    code = (
        "import sys, torch, quant_nn as qnn, quant_rnn\n"
        "torch.nn.Sequential(qnn.QuantConv2d(1, 2, 3), qnn.QuantReLU())(torch.ones(1, 1, 4, 4))\n"
        "quant_rnn.QuantLSTM(4, 2)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert run(code) == "False"


@pytest.mark.parametrize(
    ("module", "name"), [("quant_core", "QuantTensor"), ("quant_nn", "QuantLinear"), ("quant_rnn", "QuantLSTM")]
)
def test_a_star_takes_the_names_that_are_loaded_on_first_use(module: str, name: str) -> None:
    found: dict[str, object] = {}
    exec(f"from {module} import *", found)
    assert found[name].__name__ == name  # type: ignore[attr-defined]


def test_listing_targets_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; sys.argv = ['quant', 'export', '--list-targets']\n"
        "from quant_core.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'onnx', 'numpy') if name in sys.modules])"
    )
    lines = run(code).splitlines()
    assert lines[0].split() == ["target", "summary", "package", "version", "status"]
    assert any(line.startswith("qcdq ") for line in lines)
    assert lines[-1] == "[]"


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {}
    for package in PACKAGES:
        base = ROOT / "packages" / package / "src"
        for path in sources(package):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            graph[name] = list(at_import(path))
    modules = {
        name: {inner if inner in graph else outer for outer, inner in uses} & graph.keys() - {name}
        for name, uses in graph.items()
    }
    assert circle(modules) is None


def at_import(path: Path) -> Iterator[tuple[str, str]]:
    """What a file imports when it is imported itself, not within functions nor for type checkers only.

    Each import is a module and the name taken from it, which may be a module as well.
    """
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, alias.name) for alias in node.names)


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """A circle in a graph, if there is one."""
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> list[str] | None:
        if state.get(name) == 2:
            return None
        if state.get(name) == 1:
            return [*path[path.index(name) :], name]
        state[name] = 1
        for other in sorted(graph[name]):
            found = visit(other, [*path, name])
            if found:
                return found
        state[name] = 2
        return None

    for name in sorted(graph):
        found = visit(name, [])
        if found:
            return found
    return None


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()
