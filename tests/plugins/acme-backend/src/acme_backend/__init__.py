"""A third-party plugin: one quantizer, and one target that lists a program as JSON."""
