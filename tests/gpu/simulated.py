"""Run by test_refine.py in a process of its own, whose CUDA is numba's simulator: the kernel, block by block."""

import json
import sys

import numpy as np

from calibrant.fit_problem import fit_problem
from calibrant.gpu import heston_lm, target
from calibrant.gpu.refine import refine
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel, identifiable

assert target.ON_GPU
asked = json.load(sys.stdin)
heston_lm.THREADS = asked["threads"]
panels = [
    OptionPanel.from_quotes(expiry=p["expiry"], log_moneyness=p["log_moneyness"], iv=p["iv"]) for p in asked["panels"]
]
problems = [fit_problem(identifiable(panel), HESTON, CalibrationOptions()) for panel in panels]
found = refine(problems, np.array(asked["starts"]), asked["max_evaluations"])
print(json.dumps({name: values.tolist() for name, values in found._asdict().items()}))
