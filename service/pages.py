"""The files that a browser is given: the console, the page of the API, and the scripts that both take from packages.

Nothing of them comes from outside, and no page may load anything from there: each says so by its content security
policy.
A file is kept by browsers for as long as its name stands with the hash of its content, as all references here do.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from calibrant.errors import shown

from .errors import NotFound

FOLDER = Path(__file__).parent / "console"
VENDOR = {
    "plotly.min.js": ("plotly", "plotly/package_data/plotly.min.js"),
    "swagger-ui-bundle.js": ("fastapi-offline", "fastapi_offline/static/swagger-ui-bundle.js"),
    "swagger-ui.css": ("fastapi-offline", "fastapi_offline/static/swagger-ui.css"),
}
"""Of the extra `console`: the package of each file and where in it. The packages themselves are never imported."""
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_REFERENCE = re.compile(rb'"((?:\./|console/)([\w-]+(?:\.[\w-]+)+))"')
"""To another of these files, in a page or a module; no two name each other."""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


CONSOLE, DOCS = "index.html", "docs.html"


def policy(name: str) -> str:
    """What a page may load and run."""
    # Plotly 7 places its layers by styles in the page: without them they are misplaced. Swagger UI does without.
    return _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'") if name == CONSOLE else _POLICY


@dataclass(frozen=True)
class Asset:
    content: bytes
    version: str
    """A hash of the content."""
    media_type: str

    @cached_property
    def compressed(self) -> bytes:
        """By gzip; the same bytes whenever it is made."""
        packer = zlib.compressobj(wbits=31)
        return packer.compress(self.content) + packer.flush()


@cache
def asset(name: str) -> Asset:
    """A file by its name, its references with the hash of what they lead to.

    raises  NotFound if there is none, or the package that has it is not installed
    """
    suffix = Path(name).suffix
    if name in VENDOR:
        content = _of_package(name)
    # By the list: a name may hold anything but a slash.
    elif name not in {file.name for file in FOLDER.iterdir()}:
        raise NotFound(f"The console has no file {shown(name)!r}.")
    else:
        content = (FOLDER / name).read_bytes()
        if suffix in (".html", ".js"):
            content = _REFERENCE.sub(_versioned, content)
    return Asset(content, hashlib.sha256(content).hexdigest()[:16], _MEDIA_TYPES[suffix])


def _versioned(reference: re.Match[bytes]) -> bytes:
    target = reference[2].decode()
    try:
        return b'"%b?v=%b"' % (reference[1], asset(target).version.encode())
    except NotFound:
        # Told to whoever asks for it; the page says what it cannot show.
        return reference[0]


def _of_package(name: str) -> bytes:
    package, path = VENDOR[name]
    try:
        return Path(str(distribution(package).locate_file(path))).read_bytes()
    except (PackageNotFoundError, FileNotFoundError):
        raise NotFound(f"{name} is of the package {package}: install calibrant[console].") from None
