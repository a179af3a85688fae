"""What pyproject.toml cannot say of the build: the newest network of each model goes into the package.

The networks lie beside the package and not in it, where the service, the release tools and the images have them; an
editable installation finds them there, see `calibrant.release.networks_folder`.
"""

import shutil
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

NETWORKS = Path("networks")


def newest_releases() -> list[str]:
    """The files of the highest version of each model, without engines built on this machine."""
    files: list[Path] = []
    for model in NETWORKS.glob("*"):
        versions = [folder for folder in model.iterdir() if folder.name.isdigit()]
        if versions:
            files += max(versions, key=lambda folder: int(folder.name)).rglob("*")
    return sorted(str(file) for file in files if file.is_file() and "engines" not in file.parts)


class BuildNetworks(Command):  # type: ignore[misc]  # setuptools has no types
    """A step of the build, as setuptools documents them (`setuptools.command.build.SubCommand`)."""

    editable_mode = False
    build_lib: str

    def initialize_options(self) -> None:
        self.build_lib = ""

    def finalize_options(self) -> None:
        self.build_lib = self.get_finalized_command("build_py").build_lib

    def run(self) -> None:
        if self.editable_mode:
            return
        # An earlier build in this folder may have left an older version there.
        shutil.rmtree(Path(self.build_lib) / "calibrant" / NETWORKS, ignore_errors=True)
        for built, source in self.get_output_mapping().items():
            self.mkpath(str(Path(built).parent))
            self.copy_file(source, built)

    def get_source_files(self) -> list[str]:
        """Also what goes into a source distribution."""
        return newest_releases()

    def get_outputs(self) -> list[str]:
        return list(self.get_output_mapping())

    def get_output_mapping(self) -> dict[str, str]:
        if self.editable_mode:
            return {}
        return {str(Path(self.build_lib) / "calibrant" / source): source for source in newest_releases()}


build.sub_commands.append(("build_networks", None))
setup(cmdclass={"build_networks": BuildNetworks})
