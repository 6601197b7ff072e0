"""Real programs on our selectors and on the standard library's: ``python -m tests.programs``."""
