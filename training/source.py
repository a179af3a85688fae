"""Which code is running: written into the record of a run and the manifest of a release."""

import subprocess


def source_commit() -> str:
    """The commit of the working tree, marked where files differ from it, or a sentence where there is none."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "training", "model_export")
    except (OSError, subprocess.CalledProcessError):
        return "not under version control"
    return commit + ("+uncommitted" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
