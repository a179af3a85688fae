"""API keys: who may ask for what.

A key file holds the SHA-256 of each key, never the key: `python -m service.auth NAME SCOPE...` makes a key, prints it
once and the line for the file. A key is 32 random bytes, so a plain hash is enough: there is nothing to guess, and a
slow hash would cost more than the calibration.
"""

import hashlib
import hmac
import json
import secrets
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from .errors import Forbidden, Unauthenticated


class Scope(StrEnum):
    """What a key may be good for; which paths need which is in the route table."""

    CALIBRATE = "calibrate"
    BATCH = "batch"
    PRICE = "price"
    LEVERAGE = "leverage"
    METRICS = "metrics"


class Key(NamedTuple):
    """One line of the key file."""

    name: str
    """In logs, and of the rate limit."""
    digest: bytes
    """SHA-256 of the key."""
    scopes: frozenset[Scope]


class Keys:
    """The keys that open the service; none at all leave it open."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = tuple(keys.values())

    @classmethod
    def read(cls, path: Path | None) -> "Keys":
        """The keys of a file, `{"name": {"sha256": "…", "scopes": ["calibrate", …]}}`; none without a file.

        raises  ValueError if the file is not that
        """
        if path is None:
            return cls({})
        try:
            entries = json.loads(path.read_text())
            keys = {
                name: Key(name, bytes.fromhex(entry["sha256"]), frozenset(map(Scope, entry["scopes"])))
                for name, entry in entries.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read as a file of keys: {type(error).__name__} {error}") from error
        for key in keys.values():
            if len(key.digest) != hashlib.sha256().digest_size:
                raise ValueError(f"`sha256` of {key.name!r} in {path} must have 64 hexadecimal digits.")
        if not keys:
            raise ValueError(f"{path} holds no key: nobody could use the service.")
        return cls(keys)

    @property
    def required(self) -> bool:
        return bool(self._keys)

    def authorise(self, header: str | None, needed: Scope | None) -> str:
        """The name of the key in an `Authorization` header.

        raises  Unauthenticated if there is no key or an unknown one, Forbidden if it is not good for that
        """
        challenge = {"www-authenticate": "Bearer"}
        scheme, _, given = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Unauthenticated("A key is required: `Authorization: Bearer KEY`.", headers=challenge)
        digest = hashlib.sha256(given.strip().encode("latin-1")).digest()
        found = None
        # All of them, each in constant time: how long it takes says nothing about which is near.
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise Unauthenticated("The key is not known.", headers=challenge)
        if needed is not None and needed not in found.scopes:
            raise Forbidden(f"The key {found.name!r} is not good for {needed.value}.")
        return found.name


def main(arguments: list[str]) -> int:
    """Make a key."""
    try:
        name, *scopes = arguments
        chosen = [Scope(scope).value for scope in scopes] or [scope.value for scope in Scope]
    except ValueError:
        print(f"usage: python -m service.auth NAME [{'|'.join(Scope)}]...", file=sys.stderr)
        return 2
    key = secrets.token_urlsafe(32)
    print(f"key, shown only now: {key}", file=sys.stderr)
    print(json.dumps({name: {"sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": chosen}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
