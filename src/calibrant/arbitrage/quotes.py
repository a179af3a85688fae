"""Static arbitrage of the quotes themselves: what can be traded at the bids and asks given, model or no model.

Implied vols become calls in units of the forward, and `hull.static_arbitrage` does the rest. Where a quote has bid and
ask, it is sold at the one and bought at the other, so that only what can be executed counts. A lone bid is sold but
cannot be bought below the forward, a lone ask bought but sold only for the intrinsic value. A quote with neither is
bought and sold at its mid: its violations are inconsistencies of the data, with no spread to excuse them.

Duplicates (one strike and expiry quoted twice) need no merging: the cheaper ask and the dearer bid count, and two mids
that differ are a `vertical` of width zero, its size their difference. Expiries are compared at fixed
strike / forward, which supposes that forwards are known (deterministic carry).
"""

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..black import otm_and_vega
from ..compiled import careful
from ..panel import OptionPanel
from .hull import PRICE_ERROR, static_arbitrage
from .violations import KINDS, Verdict, verdict_of

_FREE = Verdict(free=True, n_violations=0, violations=(), numerical_error=PRICE_ERROR)


def check_quotes(panel: OptionPanel) -> Verdict:
    """Every static arbitrage among the quotes of a panel.

    returns  violations of more than `PRICE_ERROR` of the larger of strike and forward, each named after the quote that
             is sold; `quote` is its position in the panel
    """
    excess = np.empty((len(KINDS), panel.n_quotes))
    if _excess(panel.expiry, panel.log_moneyness, panel.mid, panel.bid, panel.ask, panel.offsets, excess) == 0:
        return _FREE
    return verdict_of(excess, panel.expiry, panel.log_moneyness, PRICE_ERROR, of_quotes=True)


# NaN means absent in here: compiled without the promise that there is none.
@careful
def _excess(
    expiry: Vector,
    log_moneyness: Vector,
    mid: Vector,
    bid: Vector,
    ask: Vector,
    offsets: IntVector,
    excess: Matrix,
) -> int:
    """`static_arbitrage` of vols instead of prices."""
    n = mid.size
    strike, bid_sd, ask_sd, bid_call, ask_call, vega = np.empty((6, n))
    spreads = False
    for i in range(n):
        strike[i] = np.exp(log_moneyness[i])
        root = np.sqrt(expiry[i])
        low, high = bid[i], ask[i]
        if np.isnan(low) and np.isnan(high):
            low = high = mid[i]
        else:
            spreads = True
            # A vol of zero is the intrinsic value; what cannot be bought is put right below.
            if np.isnan(low):
                low = 0.0
            if np.isnan(high):
                high = mid[i]
        bid_sd[i] = low * root
        ask_sd[i] = high * root
    otm_and_vega(log_moneyness, bid_sd, bid_call, vega)
    if spreads:
        otm_and_vega(log_moneyness, ask_sd, ask_call, vega)
    else:
        ask_call[:] = bid_call
    for i in range(n):
        intrinsic = max(1.0 - strike[i], 0.0)
        bid_call[i] += intrinsic
        ask_call[i] = 1.0 if np.isnan(ask[i]) and not np.isnan(bid[i]) else ask_call[i] + intrinsic
    return static_arbitrage(strike, offsets, bid_call, ask_call, PRICE_ERROR, excess)
