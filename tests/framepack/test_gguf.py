"""GGUF checkpoints: converted and back, read by memory map, refused by name where they are broken."""

from __future__ import annotations

import os
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from framepack.checkpoints.gguf_blocks import dequantized
from framepack.checkpoints.gguf_file import GGUFCheckpoint, open_checkpoint
from framepack.checkpoints.model_file import ModelFile
from framepack.cli import main
from framepack.errors import CheckpointError, MissingPackageError
from framepack.shapes import builtin
from tests.backbones import SMALL

METADATA = builtin.read_metadata(builtin.DIT)
QUERY = "transformer_blocks.1.attn.to_q.weight"
MODULATION = "transformer_blocks.1.norm1.linear.weight"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return load_file(builtin.DIT)


@pytest.fixture(scope="module", params=["Q8_0", "Q4_0"])
def converted(request, tmp_path_factory) -> tuple[str, Path]:
    target = tmp_path_factory.mktemp("gguf") / f"small_{request.param}.gguf"
    assert main(["convert", str(builtin.DIT), str(target), "--type", request.param]) == 0
    return request.param, target


def written(path: Path, tensors: dict[str, np.ndarray], arch: str = "hyvid", **kinds: str) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    for name, data in tensors.items():
        kind = kinds.get(name)
        writer.add_tensor(name, data, raw_dtype=None if kind is None else gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_converted_file_has_the_types_that_its_layers_bear(converted, weights):
    kind, path = converted
    file = ModelFile.open(path)
    dtypes = file.checkpoint.dtypes
    assert file.stated == {key: text for key, text in METADATA.items() if key.startswith("framepack.")}
    assert (dtypes[QUERY], dtypes[MODULATION], dtypes["proj_out.weight"]) == (kind, "Q8_0", "F16")
    assert (dtypes["clean_x_embedder.proj_4x.weight"], dtypes["norm_out.linear.weight"]) == ("F16", "F16")
    assert dtypes["x_embedder.proj.bias"] == "F32"
    assert set(dtypes) == set(weights)
    assert file.checkpoint.shapes["clean_x_embedder.proj_4x.weight"] == (128, 16, 4, 8, 8)


def test_a_converted_file_holds_what_the_packages_quantizer_gives(converted, weights):
    kind, path = converted
    checkpoint = open_checkpoint(path)
    tensors = checkpoint.tensors()
    for key, got in tensors.items():
        held = gguf.GGMLQuantizationType[checkpoint.dtypes[key]]
        exact = weights[key].float().numpy()
        if key in checkpoint.kinds:
            assert np.array_equal(got.numpy(), gguf.quants.quantize(exact, held)), key
        else:
            assert torch.equal(got.float(), weights[key].to(got.dtype).float()), key


def test_a_file_is_converted_back_with_its_values(converted, tmp_path: Path):
    _, path = converted
    assert main(["convert", str(path), str(tmp_path / "back.safetensors")]) == 0
    back, checkpoint = load_file(tmp_path / "back.safetensors"), open_checkpoint(path)
    assert back.keys() == checkpoint.shapes.keys()
    for key, tensor in checkpoint.tensors().items():
        kind = checkpoint.kinds.get(key)
        assert torch.equal(back[key], tensor if kind is None else dequantized(tensor, kind, torch.float16)), key
    assert ModelFile.open(tmp_path / "back.safetensors").stated == ModelFile.open(path).stated


@pytest.mark.parametrize("small", [s for s in SMALL if s.name != "wan-image"], ids=lambda small: small.name)
def test_a_model_without_packing_layers_gets_them_in_gguf(small, tmp_path: Path):
    plain = {k: v for k, v in small.model().state_dict().items() if not k.startswith("clean_x")}
    save_file(
        plain,
        tmp_path / "plain.safetensors",
        {"framepack.spec": '{"head_dim": 16, "rope_axes": [4, 6, 6], "rope_theta": 256}'},
    )
    assert main(["convert", str(tmp_path / "plain.safetensors"), str(tmp_path / "made.gguf")]) == 0
    assert ModelFile.open(tmp_path / "made.gguf").spec == small.spec


def test_the_file_is_mapped_and_not_read(converted):
    _, path = converted
    checkpoint = open_checkpoint(path)
    assert isinstance(checkpoint, GGUFCheckpoint)
    for key, tensor in checkpoint.tensors().items():
        assert tensor.untyped_storage().nbytes() >= tensor.nbytes, key
    before = resident()
    assert sum(tensor.nbytes for tensor in open_checkpoint(path).tensors().values()) > 0.9 * path.stat().st_size
    assert resident() - before < 0.05 * path.stat().st_size + 2e6  # the header's own objects


def resident() -> int:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_a_shape_that_the_file_states_comes_before_the_stored_one(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "hyvid")
    writer.add_array("comfy.gguf.orig_shape.x", [4, 2, 16])
    writer.add_tensor(
        "x",
        gguf.quants.quantize(np.ones((1, 128), np.float32), gguf.GGMLQuantizationType.Q8_0),
        raw_dtype=gguf.GGMLQuantizationType.Q8_0,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert open_checkpoint(tmp_path / "odd.gguf").shapes == {"x": (4, 2, 16)}


def test_five_axes_that_stand_in_a_file_beside_it_are_found(tmp_path: Path):
    written(tmp_path / "model.gguf", {"a": np.ones(4, np.float32)})
    beside = torch.randn(2, 3, 1, 2, 2)
    save_file({"patch": beside, "a": torch.zeros(4)}, tmp_path / "fix_5d_tensors_hyvid.safetensors")
    checkpoint = open_checkpoint(tmp_path / "model.gguf")
    assert checkpoint.shapes == {"a": (4,), "patch": (2, 3, 1, 2, 2)}
    assert torch.equal(checkpoint.tensors()["patch"], beside)
    assert torch.equal(checkpoint.tensors()["a"], torch.ones(4))


def test_parts_of_a_split_file_are_one(tmp_path: Path):
    for number, name in enumerate("ab", 1):
        written(tmp_path / f"m-{number:05}-of-00002.gguf", {name: np.full(3, number, np.float32)})
    assert open_checkpoint(tmp_path / "m-00001-of-00002.gguf").shapes == {"a": (3,), "b": (3,)}


def test_a_part_that_is_missing_is_named(tmp_path: Path):
    written(tmp_path / "m-00001-of-00002.gguf", {"a": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"m-00001-of-00002\.gguf.*m-00002-of-00002\.gguf is missing"):
        open_checkpoint(tmp_path / "m-00001-of-00002.gguf")


def header(tensors: int = 0, fields: int = 0, version: int = 3, magic: bytes = b"GGUF", rest: bytes = b"") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, fields) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


TENSOR = text(b"x") + struct.pack("<IQ", 1, 32)
BROKEN = {
    "empty": b"",
    "another format": header(magic=b"GGML"),
    "of another version": header(version=9),
    "of another byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "2^63 tensors": header(tensors=2**63),
    "2^63 fields": header(fields=2**63),
    "as many tensors as are allowed": header(tensors=2**16),
    "a name of 2^63 bytes": header(fields=1, rest=struct.pack("<Q", 2**63)),
    "an array of 2^63 values": header(fields=1, rest=text(b"x") + struct.pack("<IIQ", 9, 0, 2**63)),
    "arrays in arrays": header(fields=1, rest=text(b"x") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 9),
    "2^31 axes": header(tensors=1, rest=text(b"x") + struct.pack("<I", 2**31)),
    "2^63 values": header(tensors=1, rest=text(b"x") + struct.pack("<IQIQ", 1, 2**63, 0, 0)),
    "values beyond its end": header(tensors=1, rest=TENSOR + struct.pack("<IQ", 0, 2**40)),
    "cut": header(tensors=1, rest=TENSOR + struct.pack("<IQ", 0, 0) + bytes(60)),
    "half a block": header(tensors=1, rest=text(b"x") + struct.pack("<IQIQ", 1, 31, 8, 0) + bytes(99)),
    "an alignment of zero": header(fields=1, rest=text(b"general.alignment") + struct.pack("<II", 4, 0)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_by_name_and_at_once(tmp_path: Path, kind: str):
    (tmp_path / "broken.gguf").write_bytes(BROKEN[kind])
    start = time.monotonic()
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"broken\.gguf"):
        open_checkpoint(tmp_path / "broken.gguf")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - start < 2
    assert peak < 16e6


@pytest.mark.parametrize(("number", "name"), [(39, "MXFP4"), (16, "IQ2_XXS"), (24, "I8"), (1234, "1234")])
def test_a_type_that_is_not_known_is_refused_by_its_name(tmp_path: Path, number: int, name: str):
    (tmp_path / "odd.gguf").write_bytes(header(tensors=1, rest=TENSOR + struct.pack("<IQ", number, 0) + bytes(999)))
    with pytest.raises(CheckpointError, match=rf"odd\.gguf: x is .*{name}"):
        open_checkpoint(tmp_path / "odd.gguf")


def test_a_file_cut_short_anywhere_is_refused_by_name(converted, tmp_path: Path):
    _, path = converted
    content = path.read_bytes()
    for size in [*range(0, 400, 13), len(content) // 2, len(content) - 1000]:
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"cut\.gguf"):
            open_checkpoint(tmp_path / "cut.gguf")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_and_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(CheckpointError, match=r"pipe\.gguf"):
        open_checkpoint(tmp_path / "pipe.gguf")


@pytest.mark.parametrize("arch", ["flux", "llama"])
def test_a_file_of_another_architecture_is_refused_with_its_name(tmp_path: Path, arch: str):
    written(tmp_path / "other.gguf", {"blk.0.attn_q.weight": np.ones((4, 4), np.float32)}, arch)
    with pytest.raises(CheckpointError, match=rf"other\.gguf is no FramePack model.*{arch}"):
        ModelFile.open(tmp_path / "other.gguf")


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch, converted):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingPackageError, match="pip install gguf"):
        open_checkpoint(converted[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{gguf}", "{folder}/again.gguf"], "FramePack model already"),
        (["{dit}", "{folder}/again.safetensors"], "FramePack model already"),
        (["{gguf}", "{folder}/new.safetensors", "--type", "Q4_0"], "--type"),
        (["{dit}", "{gguf}"], "exists"),
        (["{dit}", "{folder}/no/new.gguf"], "no folder"),
        (["{gguf}", "{folder}/new.gguf", "--back"], "--back"),
    ],
)
def test_a_conversion_that_makes_no_sense_is_refused(converted, tmp_path: Path, capsys, arguments, words: str):
    places = {"gguf": converted[1], "dit": builtin.DIT, "folder": tmp_path}
    assert main(["convert", *(argument.format(**places) for argument in arguments)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
