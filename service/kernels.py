"""`python -m service.kernels`: compile all that a request can need, so that who starts next finds it compiled."""

import logging
import sys

# Its import compiles what cuts bodies into parts.
from . import worker  # noqa: F401
from .compiling import telling_of_kernels
from .engine import Engine
from .jobs.warm_up import warm_up
from .settings import Settings


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with telling_of_kernels():
        Engine.load(Settings().networks)
        warm_up()
    return 0


if __name__ == "__main__":
    sys.exit(main())
