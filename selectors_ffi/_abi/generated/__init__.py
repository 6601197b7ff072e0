"""One module per target, written by build_ffi.py from ../cdef/; do not edit."""
