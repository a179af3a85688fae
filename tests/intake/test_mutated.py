"""Files with something wrong in them: read or refused, and nothing else."""

import random
from collections import Counter

from calibrant.errors import InvalidInput
from calibrant.intake import built_of_bytes, settings_of
from tests.intake.test_kinds import KINDS

_ODD = (
    *("", "-1", "0", "1e308", "1e-320", "nan", "inf", "x", "C", "2026-13-45", "99999999", "1,5", "1.234,5", "%", "$"),
    *(
        "01/02/2026",
        "2026-04-17T25:00",
        "\x00",
        '"',
        ";",
        "46127",
        "1776384000000",
        "3M",
        "0D",
        "1_000",
        "\uff11",
        "-0",
    ),
)
_SETTINGS = {
    "as_of": ("2026-03-02", "2026-03-02T10:00", "2026-04-17"),
    "exercise": ("european",),
    "rate": (0.04, 0.0),
    "spot": (500.0, 1e-300),
    "forward": (500.0,),
    "expiry_unit": ("days", "years"),
    "vol_unit": ("percent", "decimal"),
    "use": ("prices", "vols"),
    "settlement": ("open", "exchange"),
    "day_count": ("business/252",),
    "price_unit": ("underlying", "currency"),
    "decimal": ("comma", "point"),
    "strike_unit": (0.01, 1.0),
}


def mutated(rng: random.Random, content: bytes) -> bytes:
    """A few bytes changed, or a few cells of a few lines, or a column."""
    if rng.random() < 0.3:
        changed = bytearray(content)
        for _ in range(rng.choice((1, 2, 5, 30))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    lines = content.decode("latin-1").split("\n")[: rng.choice((2, 5, 20, 60))]
    separator = rng.choice([",", ";", "\t", '"', ":"])
    column = rng.randrange(6) if rng.random() < 0.3 else None
    for i in range(1, len(lines)) if column is not None else rng.choices(range(len(lines)), k=2):
        cells = lines[i].split(separator)
        at = rng.randrange(len(cells)) if column is None else min(column, len(cells) - 1)
        cells[at] = rng.choice(_ODD)
        lines[i] = separator.join(cells * rng.choice((1, 1, 1, 2)))
    return "\n".join(lines).encode("latin-1", "ignore")


def test_mutated_files_are_read_or_refused() -> None:
    rng = random.Random(17)
    kinds = [
        content.encode() if isinstance(content, str) else content for content in (make() for make in KINDS.values())
    ]
    found: Counter[str] = Counter()
    for _ in range(400):
        settings = {
            name: rng.choice(values)
            for name, values in _SETTINGS.items()
            if rng.random() < (0.6 if name == "as_of" else 0.03)
        }
        try:
            for built in built_of_bytes(mutated(rng, rng.choice(kinds)), "chain", settings_of(settings)):
                built.document()
            found["read"] += 1
        except InvalidInput:
            found["refused"] += 1
    assert min(found["read"], found["refused"]) > 20
