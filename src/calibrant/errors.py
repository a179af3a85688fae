"""What is wrong with an input, said so that a person and a program can both find the place."""

from typing import NamedTuple

Path = tuple[str | int, ...]


def shown(came: object, most: int = 80) -> str:
    """As much of what came as has a place in a sentence: it may be as long as a body."""
    text = str(came)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def name_of(path: Path) -> str:
    """`("quotes", "expiry", 17)` as people write it: `quotes.expiry[17]`."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{shown(part)}" if name else shown(part)
    return name


class Problem(NamedTuple):
    """One thing wrong with one field."""

    path: Path
    """Where, from the root of the request: `("quotes", "expiry", 17)`."""
    detail: str
    """The whole sentence: the name in backticks, what was needed, what came."""

    @property
    def name(self) -> str:
        return name_of(self.path)

    @property
    def pointer(self) -> str:
        """JSON pointer (RFC 6901): `/quotes/expiry/17`. Names that a sentence cannot hold are cut short in it too."""
        return "".join("/" + shown(part).replace("~", "~0").replace("/", "~1") for part in self.path)

    @classmethod
    def at(cls, path: Path, needed: str) -> "Problem":
        """A problem whose sentence begins with the field's name: `at(path, "must be > 0, but is -1.")`."""
        return cls(path, f"`{name_of(path)}` {needed}")


class InvalidInput(ValueError):
    """Input that no calibration can be run on, with every problem found."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(problems[0].detail)
        self.problems = problems
