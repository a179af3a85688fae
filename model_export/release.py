"""Release a version: the networks of some training runs, one for each domain.

    python -m model_export.release --run runs/paper --run runs/market --out networks/heston/6
    python -m model_export.release --run runs/market --keep networks/heston/4/paper --out networks/heston/5

Each run brings its `evaluation.json`, written by `training.evaluate --run`; a network that is kept brings its file and
what its manifest says. The folder appears only when ONNX Runtime answers as torch does for each run's network, the
finished release loads as a service loads it, and its starts are worth no less than those of the release before it
(`comparison`); `--force` insists.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calibrant.network import MANIFEST, Network
from calibrant.release import CONTENTS, Release
from training.run_folder import read_record
from training.train import load_network

from .card import CARD, write_card
from .comparison import Comparison, compared, require_no_worse
from .manifest import build_manifest, write_manifest
from .to_onnx import to_onnx
from .verify import verify

FILE = "model.onnx"
EVALUATION = "evaluation.json"


def release(
    runs: Sequence[Path], out: Path, kept: Sequence[Path] = (), *, force: bool = False, replace: bool = False
) -> Release:
    """Export, verify, write manifests and card, load the result as a service would, and only then put it in place.

    runs     folders of training.train with an evaluation.json each, one for each domain
    out      networks/<model>/<version>
    kept     folders of earlier releases' networks that stay as they are
    force    release it even if it is worse than the one before
    replace  the folder of that version, should there be one
    raises   ParityError, ArtefactError; WorseRelease; FileExistsError if that version is already released; ValueError
             for two networks of one domain
    """

    def stage(source: Path, staged: Path) -> dict[str, Any]:
        if source in kept:
            return _keep(source, staged, version=int(out.name))
        return _stage(source, staged, name=out.parent.name, version=int(out.name))

    return put_in_place(out, [*runs, *kept], stage, force=force, replace=replace)


def put_in_place(
    out: Path,
    sources: Sequence[Path],
    stage: Callable[[Path, Path], dict[str, Any]],
    *,
    force: bool = False,
    replace: bool = False,
) -> Release:
    """Write a release of one network from each source, and let its folder appear only when it is whole, loads and is no
    worse than the one before.

    stage   writes the network of a source into a folder named after its domain, in the folder of the release that is
            its second argument; returns its manifest
    raises  as `release`, and what `stage` raises
    """
    if out.exists() and not replace:
        raise FileExistsError(f"{out} is already released: choose the next version")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".unreleased-") as scratch:
        staged = Path(scratch) / "release"
        staged.mkdir()
        manifests: dict[str, dict[str, Any]] = {}
        for source in sources:
            manifest = stage(source, staged)
            manifests[manifest["training_domain"]["name"]] = manifest
        if len(manifests) < len(sources):
            raise ValueError(f"each network must be of a domain of its own, but they are of {', '.join(manifests)}")
        digests = {domain: manifest["sha256"] for domain, manifest in manifests.items()}
        (staged / CONTENTS).write_text(json.dumps({"networks": digests}, indent=1) + "\n")
        before = _before(out)
        comparisons: list[Comparison] = []
        if before is not None:
            comparisons = compared(before, Release.load(staged))
            if not force:
                require_no_worse(before, comparisons)
        write_card(staged / CARD, manifests, None if before is None else before.version, comparisons)
        Release.load(staged)
        if out.exists():
            shutil.rmtree(out)
        os.replace(staged, out)
    return Release.load(out)


def _before(out: Path) -> Release | None:
    """The release that this one replaces: of the highest version below its own."""
    versions = [
        int(path.name) for path in out.parent.iterdir() if path.name.isdigit() and int(path.name) < int(out.name)
    ]
    return Release.load(out.parent / str(max(versions))) if versions else None


def _stage(run: Path, staged: Path, *, name: str, version: int) -> dict[str, Any]:
    """Export one run into a folder named after its domain; its manifest."""
    network, domain = load_network(run)
    record = read_record(run)
    begun_by = record["options"].get("begun_by")
    model = to_onnx(network, domain)
    difference = verify(network, model, domain)
    folder = staged / domain.name
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_bytes(model)
    manifest = build_manifest(
        name=name,
        release=version,
        file=FILE,
        model=model,
        network=network,
        domain=domain,
        run=record,
        begun_by=None if begun_by is None else read_record(Path(begun_by)),
        metrics=json.loads((run / EVALUATION).read_text()),
        parity=difference,
    )
    write_manifest(folder, manifest)
    return manifest


def _keep(artefact: Path, staged: Path, *, version: int) -> dict[str, Any]:
    """Copy a released network, once it has proved itself, into a folder named after its domain; its new manifest."""
    before = Network.load(artefact)
    folder = staged / before.manifest.domain
    folder.mkdir(exist_ok=True)
    shutil.copy(artefact / before.manifest.file, folder / before.manifest.file)
    manifest: dict[str, Any] = json.loads((artefact / MANIFEST).read_text())
    manifest |= {"version": version, "kept_from": before.version}
    write_manifest(folder, manifest)
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, action="append", help="folder of training.train, repeatable")
    parser.add_argument("--keep", type=Path, action="append", default=[], help="a released network, repeatable")
    parser.add_argument("--out", type=Path, required=True, help="networks/<model>/<version>")
    parser.add_argument("--replace", action="store_true", help="of a version that nobody has got yet")
    parser.add_argument("--force", action="store_true", help="even if it is worse than the release before it")
    given = parser.parse_args()
    loaded = release(given.run, given.out, given.keep, force=given.force, replace=given.replace)
    sizes = ", ".join(f"{path.stat().st_size} bytes" for path in sorted(given.out.rglob(FILE)))
    print(f"{loaded.version} released in {given.out}: {sizes}")


if __name__ == "__main__":
    main()
