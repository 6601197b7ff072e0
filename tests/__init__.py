"""The test suite of selectors_ffi."""
