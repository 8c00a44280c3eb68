"""Written for a later API; used by test_a_plugin_for_another_version_is_incompatible."""

QUANT_API_VERSION = 2
