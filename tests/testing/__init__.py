"""Tests of ``selectors_ffi.testing``: faults, chaos, simulated kernels, and how they are reached."""
