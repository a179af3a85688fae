"""What the network is shown of a held-out panel: clean, noisy, masked, or as a market quotes it."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from calibrant.arrays import Matrix
from calibrant.errors import InvalidInput
from calibrant.panel import OptionPanel, identifiable
from training.augment import AugmentOptions, Quotes, quote
from training.domain import Domain
from training.panels import irregular_panels, make_panels, panel_parameters

from .surfaces import Nodes, Surfaces, nodes_of

MARKET = "as quoted"
"""The one input of a standardised domain: irregular quotes with the noise of their panel, projected onto the grid."""
FILLED = "as quoted, nodes filled"
"""The same input, judged on the nodes that the projection fills: of the others such a panel says nothing."""


def quoted(iv: Surfaces, seed: int, options: AugmentOptions) -> Quotes:
    """`augment.quote` of panels (n, n_expiries, n_strikes) from a seed: one seed, one draw of noise and of gaps."""
    return quote(torch.from_numpy(iv), torch.Generator().manual_seed(seed), options)


def inputs(domain: Domain, iv: Surfaces, seed: int) -> dict[str, NDArray[np.float64]]:
    """The panels as the network sees them, (n, n_expiries, n_strikes) with NaN where missing, by kind of input.

    iv    (n, n_expiries, n_strikes), the exact vols on the domain's grid
    seed  of the panels, and of the paper's noise (0.5 bp) and masking (5 %) on them
    """
    if domain.standardised:
        return {MARKET: make_panels(domain, seed, 0, len(iv))["iv"].astype(np.float64)}
    paper = AugmentOptions()
    kinds = {"noisy": replace(paper, masked=0.0), "masked": replace(paper, noise_bp=0.0), "noisy and masked": paper}
    return {"clean": iv, **{kind: quoted(iv, seed, options).mid.numpy() for kind, options in kinds.items()}}


def grid_panel(nodes: Nodes, i: int, mid: Matrix, bid: Matrix | None = None, ask: Matrix | None = None) -> OptionPanel:
    """Panel i as a request brings it, every quote with the weight one.

    mid, bid, ask  (n_expiries, n_strikes), NaN where missing
    """
    expiry = np.repeat(nodes.expiry, mid.shape[1])
    return OptionPanel.from_quotes(
        expiry=expiry,
        log_moneyness=nodes.log_moneyness[i].ravel(),
        iv=mid.ravel(),
        bid_iv=None if bid is None else bid.ravel(),
        ask_iv=None if ask is None else ask.ravel(),
        weight=np.ones(expiry.size),
    )


def held_out_panels(domain: Domain, seed: int, n: int) -> list[OptionPanel]:
    """Panels as requests bring them to the domain's network, less those of fewer usable quotes than parameters.

    With the paper's noise and gaps on a grid; else irregular, of surfaces that the model has and of others.
    """
    if domain.standardised:
        drawn = irregular_panels(domain, seed, 0, n)
    else:
        drawn = quoted_panels(nodes_of(domain, panel_parameters(domain, seed, 0, n)), seed)
    return [panel for panel in drawn if _n_usable(panel) >= domain.n_params]


def _n_usable(panel: OptionPanel) -> int:
    try:
        return identifiable(panel).n_quotes
    except InvalidInput:
        return 0


def quoted_panels(nodes: Nodes, seed: int, options: AugmentOptions | None = None) -> list[OptionPanel]:
    """Every panel with the paper's noise, spreads and gaps."""
    mid, bid, ask = (part.numpy() for part in quoted(nodes.iv, seed, options or AugmentOptions()))
    return [grid_panel(nodes, i, mid[i], bid[i], ask[i]) for i in range(len(mid))]
