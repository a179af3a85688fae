"""The command line: `calibrant calibrate QUOTES`, `calibrant panel CHAIN`, `calibrant leverage FILE`, ..."""

import os
import sys
from collections.abc import Sequence

_INTERRUPTED, _PIPE_CLOSED = 130, 141
"""What a shell says of a program that a signal has ended: 128 and its number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 if any input was bad."""
    try:
        from .commands import run

        code = run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads has seen enough; Python's own last flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except RuntimeError as error:
        # numba's, of the first kernel that is imported.
        if "cannot cache function" not in str(error):
            raise
        needed = "set NUMBA_CACHE_DIR to a folder that can be written, where compiled kernels are kept"
        print(f"calibrant: neither its folder nor a home can be written: {needed}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
