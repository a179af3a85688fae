"""Speed and accuracy, measured: `python -m benchmarks` writes every table under docs/results.

One thread everywhere. The variables are read when the numerical libraries load, so they are set before any of them is
imported; a run that wants more says so to the library it uses.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
