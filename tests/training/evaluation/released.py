"""The first released network, whatever has been released since."""

from calibrant.network import Network
from tests.shared import ROOT


def first_release() -> Network:
    """Of the paper's box."""
    return Network.load(ROOT / "networks" / "heston" / "1")
