"""The second paper's pipeline for double Heston with jumps, as it describes it: a baseline, not what is served.

`scenarios` draws panels, `lbfgs` calibrates as the paper does, `targets` makes the 500 calibrations of its second
stage, `network` is its feed-forward network on ten features, `train` trains it in its two stages. What the text leaves
open is decided in these modules, each time said so; `docs/the_papers.md` says what came of it.
"""
