"""From a model to a target's file: capture, check, lower, verify.

>>> import torch
>>> from quant_core.export import capture
>>> program = capture(torch.nn.Linear(4, 2), (torch.zeros(1, 4),))
>>> [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
['aten.linear.default']
"""

from quant_core.export.artifact import Artifact
from quant_core.export.builder import ProgramBuilder, constant_inputs
from quant_core.export.capture import capture
from quant_core.export.check import check
from quant_core.export.check_report import CheckReport, Note, Refusal
from quant_core.export.grid import grids
from quant_core.export.landing import landings
from quant_core.export.lower import lower
from quant_core.export.pipeline import Exported, compare, export
from quant_core.export.program import Program, is_quantizer
from quant_core.export.provenance import Provenance
from quant_core.export.quantizer import Quantizer
from quant_core.export.signature import CallSignature
from quant_core.export.spec import verify_spec
from quant_core.export.trace import Trace, TraceRow
from quant_core.export.verification import Divergence, Verification
from quant_core.export.verify import verify

__all__ = [
    "Artifact",
    "CallSignature",
    "CheckReport",
    "Divergence",
    "Exported",
    "Note",
    "Program",
    "ProgramBuilder",
    "Provenance",
    "Quantizer",
    "Refusal",
    "Trace",
    "TraceRow",
    "Verification",
    "capture",
    "check",
    "compare",
    "constant_inputs",
    "export",
    "grids",
    "is_quantizer",
    "landings",
    "lower",
    "verify",
    "verify_spec",
]
