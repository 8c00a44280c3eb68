"""The targets of this project's own packages: what is said when the package is there and the target is not."""

from __future__ import annotations

from typing import Literal

import pytest

from quant_core.plugins import PluginStatus
from quant_core.plugins.providers import unknown_target


def _status(status: Literal["active", "broken", "disabled"], reason: str = "") -> PluginStatus:
    return PluginStatus(name="qcdq", distribution="export-qcdq", version="0.1.0", status=status, reason=reason)


def test_an_old_package_is_to_be_updated() -> None:
    assert str(unknown_target("qop", ["qcdq"], [_status("active")])) == (
        "unknown target 'qop'\n"
        "  export-qcdq 0.1.0 does not register it; installed targets: qcdq\n"
        "  Update it: pip install --upgrade export-qcdq"
    )


@pytest.mark.parametrize("status", ["broken", "disabled"])
def test_an_unusable_package_is_to_be_repaired(status: Literal["broken", "disabled"]) -> None:
    assert str(unknown_target("qcdq", [], [_status(status, "because of this")])) == (
        "unknown target 'qcdq'\n"
        f"  export-qcdq 0.1.0 is {status}: because of this\n"
        "  Repair or enable that plugin; `quant plugins` shows all of them."
    )
