"""Run before the service on a GPU with TensorRT: the released networks with engines for this machine beside them.

    python engines.py NETWORKS CACHE INTO PRECISION

The image is read-only and an engine belongs to one kind of machine, so the networks are copied to INTO, which lives as
long as the pod, and the engines to CACHE, which outlives it and which several pods may share. Minutes for the first pod
on a kind of machine, seconds for the others. Fails, and the service does not start, if an engine cannot be had.
"""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from calibrant.gpu.engines import ENGINES
from calibrant.models import MODELS
from calibrant.network import MANIFEST, read_manifest
from calibrant.release import released
from calibrant.sessions import TENSORRT_PROVIDER, ArtefactError


def link_engines(networks: Path, cache: Path, into: Path) -> list[Path]:
    """Copy the networks, and have each find its engines in the cache, by its hash; the folders of the networks."""
    # `copyfile` leaves the modes behind: a pod's second run writes over the files of its first.
    ignored = shutil.ignore_patterns(ENGINES)
    shutil.copytree(networks, into, ignore=ignored, copy_function=shutil.copyfile, dirs_exist_ok=True)
    folders = sorted(path.parent for path in into.rglob(MANIFEST))
    for folder in folders:
        kept = cache / read_manifest(folder).sha256
        kept.mkdir(parents=True, exist_ok=True)
        link = folder / ENGINES
        link.unlink(missing_ok=True)
        link.symlink_to(kept)
    return folders


def served(model: str, into: Path) -> list[Path]:
    """The folders of the networks of the version that the service will take, the highest."""
    newest = max((path for path in (into / model).iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    return sorted(path.parent for path in newest.rglob(MANIFEST))


def main(arguments: list[str]) -> int:
    networks, cache, into = map(Path, arguments[:3])
    (precision,) = arguments[3:]
    link_engines(networks, cache, into)
    # One pod at a time: a build puts a finished folder in the place of another.
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for model in MODELS:
            try:
                released(into, model, TENSORRT_PROVIDER, precision)
            except ArtefactError as error:
                print(f"to be built: {error}", flush=True)
                for folder in served(model, into):
                    build = ["-m", "model_export.to_tensorrt", "--artefact", str(folder), "--precision", precision]
                    status = subprocess.run([sys.executable, *build]).returncode
                    if status:
                        return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
