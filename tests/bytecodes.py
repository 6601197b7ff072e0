"""What happens at a chosen bytecode of the package, as a handler or another thread may."""

from __future__ import annotations

import os
import sys

import selectors_ffi

PACKAGE = os.path.dirname(selectors_ffi.__file__)
KERNELS = os.path.join(PACKAGE, "testing")  # a real kernel has no bytecode


class AtBytecode:
    """A trace function that acts at the n-th bytecode of the package.

    PyPy traces lines only: there it is the n-th line.
    """

    def __init__(self, place):
        self.place = place
        self.passed = 0
        self.reached = False
        self.where = ""

    def counts(self, frame):
        """Tell whether the bytecodes of a frame are counted."""
        filename = frame.f_code.co_filename
        return filename.startswith(PACKAGE) and not filename.startswith(KERNELS)

    def act(self):
        """Do what is to be done there."""
        raise NotImplementedError

    def __call__(self, frame, event, argument):
        if not self.counts(frame):
            return None
        unit = "line"
        if sys.implementation.name == "cpython":
            unit = "opcode"
            frame.f_trace_opcodes = True
        if event == unit:
            self.passed += 1
            if self.passed == self.place:
                self.reached = True
                self.where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
                self.act()
        return self

    def run(self, operation):
        """Run an operation under this trace; keep its result; tell whether the place was reached."""
        # CPython 3.12 begins to tell of bytecodes with the first settrace() after this.
        sys._getframe().f_trace_opcodes = sys.implementation.name == "cpython"
        before = sys.gettrace()
        sys.settrace(self)
        try:
            self.found = operation()
        finally:
            sys.settrace(before)
        return self.reached
