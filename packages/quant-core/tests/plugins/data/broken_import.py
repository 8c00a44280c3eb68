"""Raises on import; used by test_a_broken_plugin_is_a_row_with_its_reason."""

raise RuntimeError("the licence server\n  does not answer")
