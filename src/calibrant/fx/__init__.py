"""Currency options as desks quote them, by delta.

from calibrant.fx import conventions_of, quotes_to_strikes

pillars = quotes_to_strikes(Market.flat(1.231, 0.026, -0.003), [0.25, 1.0],
                            {"atm": [0.072, 0.076], "rr25": [0.0, -0.003], "bf25": [0.002, 0.003]},
                            conventions_of("EURUSD"))
pillars.strike, pillars.vol, pillars.name
"""

from .conventions import Conventions, conventions_of, currencies_of
from .quotes import Pillars, SmileQuotes, quotes_of, quotes_to_strikes

__all__ = ["Conventions", "Pillars", "SmileQuotes", "conventions_of", "currencies_of", "quotes_of", "quotes_to_strikes"]
