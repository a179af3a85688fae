"""What start-up says of itself while kernels compile."""

import logging
from typing import Any

import numba
import pytest

from service.compiling import telling_of_kernels


def test_what_is_compiled_is_told_and_what_is_compiled_already_is_not(caplog: pytest.LogCaptureFixture) -> None:
    double: Any = numba.njit(lambda x: 2.0 * x)
    quadruple: Any = numba.njit(lambda x: double(double(x)))
    with caplog.at_level(logging.INFO, "calibrant.service"):
        with telling_of_kernels(every=1e-3) as compiled:
            assert quadruple(1.0) == 4.0
        first, *between, last = caplog.messages
        assert first.startswith("compiling kernels, which takes minutes")
        # A single kernel takes longer than that.
        assert between
        assert all(line.startswith("still compiling: ") for line in between)
        assert last.startswith("compiled 2 kernels in ")
        assert compiled.n == 2
        caplog.clear()
        with telling_of_kernels(every=1e-3) as compiled:
            assert quadruple(1.0) == 4.0
        assert caplog.messages == []
        assert compiled.n == 0
