"""From the C source of the kernels to a shared library: compiled once per machine, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from quant_core.errors import QuantError

_COMPILERS = ("cc", "gcc", "clang")
_EXACT = (
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-fvisibility=hidden",
    "-fPIC",
)
_FLAGS = (("-march=native", "-fopenmp"), ("-march=native",), ())
_SECONDS = 120


class NativeBuildError(QuantError):
    """The native kernels cannot be compiled on this machine."""


def build(package: str, *names: str) -> Path:
    """One shared library of some C files, compiled if the cache does not hold it.

    Args:
        package: the package that holds the files.
        names: the files, without ``.c``; the library has the name of the first.

    Raises:
        NativeBuildError: when there is no C compiler, or it fails.
    """
    sources = {f"{name}.c": (files(package) / f"{name}.c").read_bytes() for name in names}
    compiler = find_compiler()
    file = f"{names[0]}-{_fingerprint(sources, compiler)}.so"
    for folder in _folders():
        library = folder / file
        if library.exists():
            return library
        if _is_private(folder):
            return _compile(sources, compiler, library)
    raise NativeBuildError(
        "there is no folder to keep the native kernels in",
        why="neither the cache of the user nor the temporary folder can be written",
        fix="Set XDG_CACHE_HOME to a folder of yours, or QUANT_NATIVE=0 to do without them.",
    )


def find_compiler() -> str:
    """The C compiler: ``$CC`` if it is set, else the first of ``cc``, ``gcc`` and ``clang``.

    Raises:
        NativeBuildError: when there is none.
    """
    wanted = os.environ.get("CC")
    for name in [wanted] if wanted else _COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    raise NativeBuildError(
        f"the compiler CC={wanted} was not found" if wanted else "no C compiler was found",
        why="the native kernels are compiled on the machine that runs them"
        + ("" if wanted else f", and none of {', '.join(_COMPILERS)} is on the PATH"),
        fix="Install gcc or clang; without one the same numbers are computed by torch operations, only slower.",
    )


def _fingerprint(sources: Mapping[str, bytes], compiler: str) -> str:
    """What the library depends on: the sources, the flags, the compiler, and the processor that it is tuned to."""
    settings = (repr((_EXACT, _FLAGS)), os.path.realpath(compiler), _processor())
    parts = [*sources.values(), *(setting.encode() for setting in settings)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """The model of the processor: homes are shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _folders() -> Sequence[Path]:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return base / "quant-core", Path(tempfile.gettempdir()) / f"quant-core-{user}"


def _is_private(folder: Path) -> bool:
    """Whether the folder exists, or could be made, and nobody else can put a library into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError:
        return False
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return False
    return os.access(folder, os.W_OK)


def _compile(sources: Mapping[str, bytes], compiler: str, library: Path) -> Path:
    """Compile into a folder beside the library, and move the result into its place in one step."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built, codes = Path(folder) / library.name, [str(Path(folder) / file) for file in sources]
        for code, source in zip(codes, sources.values(), strict=True):
            Path(code).write_bytes(source)
        for flags in _FLAGS:
            command = [compiler, *_EXACT, *flags, "-shared", "-o", str(built), *codes, "-lm"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise _failed(compiler, str(error)) from error
            if done.returncode == 0:
                os.replace(built, library)
                return library
    raise _failed(compiler, done.stderr.strip())


def _failed(compiler: str, output: str) -> NativeBuildError:
    last = output.splitlines()[-1] if output else f"{compiler} said nothing, on {sys.platform}"
    return NativeBuildError(
        f"{compiler} cannot compile the native kernels",
        why=last,
        fix="Set CC to another compiler, or QUANT_NATIVE=0 to do without them.",
    )
