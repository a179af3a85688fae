"""What a desk should look at although its request is valid: the `warnings` of an answer."""

from typing import Any, NamedTuple


class Caution(NamedTuple):
    """One doubt about a panel or its fit, in words for people and a code for programs."""

    code: str
    """As in the contract: `poor_fit`, `vols_look_like_percent`, ..."""
    detail: str
    """A sentence: what was seen, and what to do about it."""
    indices: tuple[int, ...] = ()
    """The quotes it is about, by their position in the request; empty where it is about the panel as a whole."""

    def document(self) -> dict[str, Any]:
        """As it goes over the wire: `indices` only where there are any."""
        about = {"code": self.code, "detail": self.detail}
        return {**about, "indices": list(self.indices)} if self.indices else about
