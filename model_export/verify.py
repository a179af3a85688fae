"""No artefact unless ONNX Runtime answers as torch does.

python -m model_export.verify --run runs/paper --artefact networks/heston/3/paper
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calibrant.network import Network, open_session
from training.augment import AugmentOptions, quote
from training.domain import Domain
from training.networks import CnnTransformer
from training.panels import make_panels
from training.train import load_network

PARITY_TOLERANCE = 1e-5
"""Of a parameter's output range: kappa reaches from 0.1 to 10, theta from 0.005 to 0.53."""
_PANELS_SEED = 4
_BATCHES = (1, 2, 3, 64)


class ParityError(RuntimeError):
    """ONNX Runtime and torch disagree."""


def parity_inputs(domain: Domain, n_panels: int = 256) -> NDArray[np.float32]:
    """Panels to compare on: clean, noisy with masks, half empty and wholly empty, (n, n_expiries, n_strikes)."""
    iv = make_panels(domain, _PANELS_SEED, 0, n_panels)["iv"]
    noisy = quote(torch.from_numpy(iv), torch.Generator().manual_seed(_PANELS_SEED), AugmentOptions()).mid.numpy()
    sparse = iv.copy()
    sparse[:, ::2] = np.nan
    empty = np.full_like(iv[:1], np.nan)
    return np.concatenate([iv, noisy, sparse, empty])


def largest_difference(network: CnnTransformer, session: Any, iv: NDArray[np.float32]) -> float:
    """Largest difference of any parameter, as a share of its output range, over all panels and several batch sizes.

    raises  ParityError where either answer is not finite
    """
    with torch.inference_mode():
        expected = network(torch.from_numpy(iv)).numpy()
    answers = [session.run(None, {"iv": iv})[0]]
    expectations = [expected]
    for batch in _BATCHES:
        answers.append(session.run(None, {"iv": iv[:batch]})[0])
        expectations.append(expected[:batch])
    if not all(np.isfinite(values).all() for values in (*answers, expected)):
        raise ParityError("torch or ONNX Runtime gave a parameter that is not finite")
    return max(furthest_apart(network, a, e) for a, e in zip(answers, expectations, strict=True))


def furthest_apart(
    network: CnnTransformer, some: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]
) -> float:
    """Largest difference of any parameter between two sets of answers, as a share of its output range."""
    return float((_share_of_output(network, some) - _share_of_output(network, others)).abs().max())


def _share_of_output(network: CnnTransformer, params: NDArray[np.floating[Any]]) -> torch.Tensor:
    return 0.5 * network.normalised_of(torch.from_numpy(params).double())


def verify(network: CnnTransformer, model: bytes, domain: Domain) -> float:
    """The largest difference between torch and ONNX Runtime.

    raises  ParityError if it exceeds `PARITY_TOLERANCE`
    """
    difference = largest_difference(network, open_session(model), parity_inputs(domain))
    if difference > PARITY_TOLERANCE:
        raise ParityError(
            f"ONNX Runtime differs from torch by {difference:.3g} of a parameter's range, "
            f"more than {PARITY_TOLERANCE:g}: nothing was released"
        )
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of training.train")
    parser.add_argument("--artefact", type=Path, required=True, help="folder of one network of a release")
    given = parser.parse_args()
    network, domain = load_network(given.run)
    released = Network.load(given.artefact)  # hash and golden output
    difference = verify(network, (given.artefact / released.manifest.file).read_bytes(), domain)
    print(f"{released.version}: hash and golden output hold, torch and ONNX Runtime differ by {difference:.2g}")


if __name__ == "__main__":
    main()
