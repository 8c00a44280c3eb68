"""Imports what is not installed; used by test_a_broken_plugin_is_a_row_with_its_reason."""

import no_such_dependency  # noqa: F401
