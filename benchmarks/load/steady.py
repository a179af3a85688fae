"""A steady load by the client library, and what was lost of it."""

import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from calibrant.client import CalibrantError, Client, Retries

RATE = 50.0
"""Requests a second, of all threads."""
_THREADS = 4


class Load:
    """Sends one panel over and over."""

    def __init__(self, url: str, certificate: Path, key: str, quotes: dict[str, Any], attempts: int) -> None:
        """
        certificate  that is trusted
        attempts     of each request; 1 for none but the first
        """
        self.answered: Counter[str] = Counter()
        """Requests by the version that answered them."""
        self.lost: list[str] = []
        """Why each that has failed did."""
        self._quotes = quotes
        self._end = Event()
        self._client = Client(
            url,
            key=key,
            verify=ssl.create_default_context(cafile=certificate),
            retries=Retries(attempts=attempts),
        )

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """While the block runs, and until every request has ended."""
        threads = [Thread(target=self._send) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._end.set()
            for thread in threads:
                thread.join()
            self._client.close()

    def _send(self) -> None:
        due = monotonic()
        while not self._end.wait(max(due - monotonic(), 0.0)):
            due += _THREADS / RATE
            try:
                answer = self._client.calibrate(self._quotes)
                self.answered[answer.model_version or "none"] += 1
            except CalibrantError as error:
                self.lost.append(f"{error.code}, HTTP {error.status}: {error}")
