"""The target ``integers``: a network as arrays of integers, a description of what is done with them, and a C header.

- :func:`load` reads a file back, and runs it in integers of 64 bits;
- :class:`IntegerArtifact` is what ``quant_core.export.lower(program, "integers")`` returns.
"""

from typing import TYPE_CHECKING

from quant_core.lazy import lazy_names

if TYPE_CHECKING:
    from quant_core.integers.artifact import IntegerArtifact as IntegerArtifact
    from quant_core.integers.artifact import IntegerNetwork as IntegerNetwork
    from quant_core.integers.artifact import load as load
    from quant_core.integers.plan import Plan as Plan
    from quant_core.integers.plan import Step as Step

__getattr__, __dir__ = lazy_names(
    __name__,
    "quant-core",
    {
        "IntegerArtifact": "quant_core.integers.artifact",
        "IntegerNetwork": "quant_core.integers.artifact",
        "Plan": "quant_core.integers.plan",
        "Step": "quant_core.integers.plan",
        "load": "quant_core.integers.artifact",
    },
)
