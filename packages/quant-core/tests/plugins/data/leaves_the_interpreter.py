"""Calls sys.exit on import; used by test_a_broken_plugin_is_a_row_with_its_reason."""

import sys

sys.exit("please configure me first")
