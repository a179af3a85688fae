"""A page of results whose sections are measured one at a time: each replaces its own and leaves the others."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reporting.machine import describe_machine, write_report

PACKAGES = ("onnxruntime", "uvicorn", "uvloop", "httptools")
Lines = Callable[[Any], list[str]]
"""From a section's data to its Markdown."""


class Measured(NamedTuple):
    data: Any
    """For JSON."""
    use: str
    """Of the machine's cores, in words."""


def recorded(page: Path, section: str) -> Any:
    """A section's data as it was last measured; None if it never was."""
    kept = page.with_suffix(".json")
    return json.loads(kept.read_text()).get(section, {}).get("data") if kept.exists() else None


def record(page: Path, title: str, lines: Mapping[str, Lines], section: str, data: Any, use: str) -> None:
    """Put a section into `page`.json, and write `page`.md from it anew.

    lines  of all sections, in order
    use    of the machine's cores, in words
    """
    kept = page.with_suffix(".json")
    sections: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    command = f"python -m {_module()} {shlex.join(sys.argv[1:])}"
    sections[section] = {"command": command, "machine": describe_machine(*PACKAGES, use=use), "data": data}
    page.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(sections, indent=1) + "\n")
    written = [title, ""]
    for name, render in lines.items():
        if name in sections:
            found = sections[name]
            heading, *rest = render(found["data"])
            written += [heading, "", f"`{found['command']}`", "", found["machine"], "", *rest, ""]
    write_report(page.with_suffix(".md"), written)


def _module() -> str:
    """That was run."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "run as `python -m`"
    return spec.name
