"""The engine: terms between a student and its teachers."""
