"""TensorRT engines beside a network: which one is taken, and what is said where none is. Planted machines and files."""

import hashlib
import json
from pathlib import Path

import pytest

from calibrant.gpu.engines import (
    Engine,
    Machine,
    engine_folder,
    gpu_of,
    matching_engine,
    read_engine,
    read_part,
    tensorrt_version,
    write_engine,
)
from calibrant.sessions import ArtefactError

H200 = Machine("NVIDIA H200", "9.0", "580.159.04", "10.13.3", "1.31.1")
A100 = Machine("NVIDIA A100-SXM4-80GB", "8.0", "580.159.04", "10.13.3", "1.31.1")
SOURCE = "ab" * 32
BODY = b"an engine"


def plant(network: Path, machine: Machine, precision: str = "fp32", place: Machine | None = None) -> Engine:
    """A manifest with its files, in the folder of `place`."""
    folder = engine_folder(network, place or machine, precision)
    folder.mkdir(parents=True)
    (folder / "body_1.onnx").write_bytes(BODY)
    engine = Engine(
        machine=machine,
        precision=precision,
        source_sha256=SOURCE,
        tolerance=1e-4,
        difference=3e-6,
        n_panels=1000,
        features="features.onnx",
        bodies={1: "body_1.onnx", 64: "body_64.onnx"},
        sha256={"body_1.onnx": hashlib.sha256(BODY).hexdigest()},
    )
    write_engine(folder, engine)
    return engine


def test_the_engine_of_this_machine_is_found_among_those_of_others(tmp_path: Path) -> None:
    plant(tmp_path, A100)
    plant(tmp_path, H200, "fp16")
    mine = plant(tmp_path, H200)
    found, folder = matching_engine(tmp_path, SOURCE, H200, "fp32")
    assert found == mine
    assert folder == engine_folder(tmp_path, H200, "fp32")
    assert read_part(folder, found, "body_1.onnx") == BODY


@pytest.mark.parametrize(
    "other",
    [
        H200._replace(gpu="NVIDIA H100"),
        H200._replace(compute_capability="10.0"),
        H200._replace(driver="590.1"),
        H200._replace(tensorrt="10.16.1"),
        H200._replace(onnxruntime="1.32.0"),
    ],
    ids=lambda machine: machine.key,
)
def test_any_other_machine_is_refused_with_the_command_to_run(tmp_path: Path, other: Machine) -> None:
    plant(tmp_path, H200)
    with pytest.raises(ArtefactError) as refused:
        matching_engine(tmp_path, SOURCE, other, "fp32")
    said = str(refused.value)
    assert f"run `python -m model_export.to_tensorrt --artefact {tmp_path} --precision fp32` on this machine" in said
    assert str(H200) in said
    assert str(other) in said


def test_without_any_engine_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there are none"):
        matching_engine(tmp_path, SOURCE, H200, "fp16")


def test_a_folder_moved_to_the_name_of_another_machine_does_not_pass_for_its_own(tmp_path: Path) -> None:
    plant(tmp_path, A100, place=H200)
    with pytest.raises(ArtefactError, match=r"built for NVIDIA A100-SXM4-80GB .*, but this is NVIDIA H200"):
        matching_engine(tmp_path, SOURCE, H200, "fp32")


def test_an_engine_of_another_release_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, H200)
    with pytest.raises(ArtefactError, match="another release"):
        matching_engine(tmp_path, "cd" * 32, H200, "fp32")


def test_a_damaged_or_unnamed_or_missing_part_is_refused(tmp_path: Path) -> None:
    engine = plant(tmp_path, H200)
    folder = engine_folder(tmp_path, H200, "fp32")
    (folder / "body_1.onnx").write_bytes(b"an enginf")
    (folder / "body_64.onnx").write_bytes(BODY)
    for name in ("body_1.onnx", "body_64.onnx"):
        with pytest.raises(ArtefactError, match="damaged or belongs to another engine"):
            read_part(folder, engine, name)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_part(folder, engine, "features.onnx")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": 3}', '{"machine": {"gpu": "x"}}'])
def test_an_unreadable_manifest_is_refused(tmp_path: Path, text: str) -> None:
    plant(tmp_path, H200)
    folder = engine_folder(tmp_path, H200, "fp32")
    (folder / "engine.json").write_text(text)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_engine(folder)


def test_a_manifest_without_a_field_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, H200)
    path = engine_folder(tmp_path, H200, "fp32") / "engine.json"
    fields = json.loads(path.read_text())
    del fields["sha256"]
    path.write_text(json.dumps(fields))
    with pytest.raises(ArtefactError, match="sha256"):
        read_engine(path.parent)


def test_keys_are_names_of_folders_and_tell_machines_apart() -> None:
    assert H200.key == "nvidia-h200-9.0-580.159.04-trt10.13.3-ort1.31.1"
    assert A100._replace(gpu="NVIDIA A100/80GB PCIe").key.startswith("nvidia-a100-80gb-pcie-8.0-")


def test_nvidia_smi_is_read_as_it_prints() -> None:
    assert gpu_of("NVIDIA H200, 9.0, 580.159.04\n") == ("NVIDIA H200", "9.0", "580.159.04")
    for line in ("", "NVIDIA H200, 9.0", "NVIDIA H200, , 580.1", "No devices were found"):
        with pytest.raises(ArtefactError, match="nvidia-smi was asked"):
            gpu_of(line)


@pytest.mark.parametrize(("number", "text"), [(8601, "8.6.1"), (101303, "10.13.3"), (101601, "10.16.1")])
def test_tensorrt_counts_its_versions_in_two_ways(number: int, text: str) -> None:
    assert tensorrt_version(number) == text
