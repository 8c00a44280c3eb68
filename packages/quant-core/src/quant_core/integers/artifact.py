"""What a lowering to integers returns: one file with arrays, a description and a header, and running it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from quant_core.errors import ArtifactError
from quant_core.export.artifact import Artifact
from quant_core.export.signature import CallSignature
from quant_core.export.trace import Trace
from quant_core.integers import archive
from quant_core.integers.header import c_header
from quant_core.integers.interpreter import dequantized, run_plan
from quant_core.integers.plan import FORMAT, VERSION, Plan, from_description

GRAPH: Final = "graph.json"
HEADER: Final = "model.h"


class IntegerArtifact(Artifact):
    """A network in integers.

    Args:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        content: the bytes of the file.
        grids: for each quantizer of the program: scale and zero-point, by the name of its node.

    What runs is what stands in the file: the steps of its description, on its arrays.
    """

    def __init__(
        self, target: str, signature: CallSignature, content: bytes, grids: Mapping[str, tuple[Tensor, Tensor]]
    ) -> None:
        super().__init__(target, signature)
        self._content = content
        self._grids = dict(grids)

    def content(self) -> bytes:
        """The bytes of the ``.npz`` file."""
        return self._content

    @cached_property
    def network(self) -> IntegerNetwork:
        """The network that the file holds."""
        return parse(self._content, "the artifact")

    @property
    def header(self) -> str:
        """The C header."""
        return self.network.header

    def integers(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run it on inputs as the model takes them, and return the integers of every value by name."""
        return self.network.integers(*self.signature.flatten(args, kwargs))

    def trace(self, inputs: list[Any]) -> Trace:
        """Run it in integers on flat inputs; the results of quantizers are dequantized as the model does it."""
        plan = self.network.plan
        found = run_plan(plan, inputs)
        values = {
            name: (found[name].to(scale.dtype) - zero_point) * scale
            for name, (scale, zero_point) in self._grids.items()
            if name in found
        }
        outputs = [dequantized(output, found, plan.arrays) for output in plan.outputs]
        return Trace(outputs=outputs, values=values, program=self.program, inputs=inputs)


class IntegerNetwork:
    """A file of the target ``integers``, read back.

    Attributes:
        plan: its steps and arrays.
        header: its C header.
    """

    def __init__(self, plan: Plan, header: str) -> None:
        self.plan = plan
        self.header = header

    def run(self, *inputs: Tensor) -> list[Any]:
        """The outputs as floats, in order, for inputs in the order of the plan.

        Raises:
            InputError: when there are more or fewer inputs than the network has.
        """
        found = run_plan(self.plan, inputs)
        return [dequantized(output, found, self.plan.arrays) for output in self.plan.outputs]

    def integers(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The integers of every value, by name.

        Raises:
            InputError: when there are more or fewer inputs than the network has.
        """
        found, given = run_plan(self.plan, inputs), {entry["name"] for entry in self.plan.inputs}
        return {name: value for name, value in found.items() if name not in given and not value.is_floating_point()}


def load(path: str | Path) -> IntegerNetwork:
    """Read a file that ``quant export integers`` wrote.

    Raises:
        ArtifactError: when there is no such file, or it is none of this target.
    """
    place = Path(path)
    try:
        content = place.read_bytes()
    except OSError as failure:
        raise ArtifactError(
            f"cannot read {place.name!r}",
            where=str(place),
            why=f"{type(failure).__name__}: {failure.strerror or failure}",
            fix="Give the path of a file that quant export integers wrote.",
        ) from failure
    return parse(content, str(place))


def parse(content: bytes, where: str) -> IntegerNetwork:
    """The network in the bytes of a file.

    Raises:
        ArtifactError: when they are none of this target.
    """
    try:
        arrays, texts = archive.read(content)
        described = json.loads(texts[GRAPH])
        if (described["format"], described["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is {described['format']!r}, version {described['version']}")
        return IntegerNetwork(from_description(described, arrays), texts[HEADER])
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as failure:
        raise ArtifactError(
            "this is no network in integers that can be read",
            where=where,
            why=f"{type(failure).__name__}: {failure}",
            fix=f"Export it again with this version: quant export integers (format {FORMAT!r}, version {VERSION}).",
        ) from failure


def pack(plan: Plan, name: str) -> bytes:
    """The bytes of the file of a plan."""
    description = json.dumps(plan.described(), indent=1, allow_nan=False)
    return archive.write(plan.arrays, {GRAPH: description + "\n", HEADER: c_header(plan, name)})
