"""States no API version; used by test_a_plugin_for_another_version_is_incompatible."""
