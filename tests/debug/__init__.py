"""Tests of what the debug flags show."""
