"""Quotes as people have them, to panels: files of any usual kind, columns by any usual name, prices or vols or deltas.

    files     `sources` reads them (`delimited`, `documents`) to a `table` of cells
    columns   `columns` finds which holds what, by `names`; `numbers`, `dates` and `contracts` read cells
    quotes    `quotes` are the cells understood, in years (`clock`), in known `units`, panels told apart
    panels    `chain` makes them of prices, by put-call `parity`, of `american` prices too; `surface` of vols; `delta`
              of quotes by delta; `built` is what comes of it, and how it was made

`reading` goes all the way. What a file leaves open is settled by `settings`, or asked: never guessed.
"""

from .built import Built, EarlyExercise, Expiry
from .reading import built_of_bytes, outcomes_of_files, panel_steps, quotes_of_file, read_quotes
from .settings import Settings, settings_of

__all__ = [
    "Built",
    "EarlyExercise",
    "Expiry",
    "Settings",
    "built_of_bytes",
    "outcomes_of_files",
    "panel_steps",
    "quotes_of_file",
    "read_quotes",
    "settings_of",
]
