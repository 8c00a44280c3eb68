"""What a lowering returns: something that can be saved and, where the target's runtime is installed, run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from quant_core.export.files import write_atomically
from quant_core.export.signature import CallSignature


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run of an artifact, with what its quantizers gave.

    Attributes:
        outputs: the flat outputs, in the order of the program's.
        values: the dequantized result of each activation quantizer, by the quantizer's name; as many as the runtime can show.
    """

    outputs: list[Tensor]
    values: Mapping[str, Tensor]


class Artifact(ABC):
    """Base of all artifacts.

    Attributes:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
    """

    def __init__(self, target: str, signature: CallSignature) -> None:
        self.target = target
        self.signature = signature

    @abstractmethod
    def content(self) -> bytes:
        """The bytes of its file. Law: equal programs and options give equal bytes."""

    @abstractmethod
    def trace(self, inputs: list[Any]) -> Trace:
        """Run it in the target's own runtime on flat inputs. Law: the same inputs give the same trace.

        Raises:
            ArtifactError: when the runtime is not installed or refuses the file.
        """

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run it in the target's own runtime; inputs and outputs as the model takes and returns them.

        Raises:
            ArtifactError: when the runtime is not installed or refuses the file.
            InputError: when the inputs do not have the structure that the model was captured with.
        """
        return self.signature.nest(self.trace(self.signature.flatten(args, kwargs)).outputs)

    @property
    def size(self) -> int:
        """The size of its file in bytes."""
        return len(self.content())

    def save(self, path: str | Path) -> Path:
        """Write it to ``path`` in one step, and return the path.

        Raises:
            ArtifactError: when the file cannot be written; a file that was there before is unchanged.
        """
        place = Path(path)
        write_atomically(place, self.content())
        return place
