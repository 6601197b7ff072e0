"""All measurements of this package against others; ``python -m benchmarks --help``.

How a row is measured is in ``selectors_ffi.cli.bench``, which users have too.
"""
