"""A GGUF model in the real host: the same as its dequantized weights, wherever its layers are and whatever is added."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.loading import anonymous, watched
from framepack.checkpoints.convert import convert
from framepack.checkpoints.gguf_blocks import BLOCKS, dequantized
from framepack.checkpoints.gguf_file import open_checkpoint
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.shapes import builtin
from tests.framepack.test_gguf_blocks import random_blocks
from tests.host.conftest import Graph, newest_latents, node_of
from tests.host.test_loading import folder, metadata, relative  # noqa: F401 - fixtures
from tools.client import QueueError, edited
from tools.host import Host

LAYER, MODULATION = "transformer_blocks.1.attn.to_q", "transformer_blocks.1.norm1.linear"
TYPES = ("Q8_0", "Q4_0")


@pytest.fixture(scope="module")
def models(folder: Path, metadata) -> dict[str, dict[str, Tensor]]:  # noqa: F811
    """The small model in GGUF, and beside each file its values as float32."""
    found = {}
    for kind in TYPES:
        convert(builtin.DIT, folder / f"{kind}.gguf", kind)
        found[kind] = values_of(folder / f"{kind}.gguf")
        save_file(found[kind], folder / f"{kind}.safetensors", metadata)
    return found


def values_of(path: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(path)
    return {
        key: dequantized(tensor, checkpoint.kinds[key]) if key in checkpoint.kinds else tensor.float()
        for key, tensor in checkpoint.tensors().items()
    }


@pytest.fixture(scope="module")
def lora(host: Host) -> Iterator[dict[str, Tensor]]:
    """A LoRA on a matrix and on a modulation, by the layer's name its difference."""
    loras = host.base / "models" / "loras"
    loras.mkdir(exist_ok=True)
    torch.manual_seed(1)
    tensors, deltas = {}, {}
    for layer, rows in ((LAYER, 128), (MODULATION, 768)):
        up, down = torch.randn(rows, 4) * 0.1, torch.randn(4, 128) * 0.1
        tensors |= {f"{layer}.lora_B.weight": up, f"{layer}.lora_A.weight": down}
        deltas[f"{layer}.weight"] = up @ down
    save_file(tensors, loras / "blocks.safetensors")
    yield deltas


def sampled(host: Host, name: str, strength: float = 0.0, offload: bool = False, shift: float = 0.0) -> Tensor:
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=name)
    if strength:
        model = graph.add("FramePackLoraLoader", model=model, lora_name="blocks.safetensors", strength=strength)
    if shift:
        model = graph.add("ModelSamplingSD3", model=model, shift=shift)
        model = graph.add("FramePackStepCache", model=model, threshold=0.1)
    if offload:
        model = graph.add("StandInModel", model=model, plain=False, offload=True)
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    text = graph.add("CLIPTextEncode", clip=clip, text="a green square moves up")
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    names = {"seed": 3, "steps": 8 if shift else 2, "cfg": 1.0, "denoise": 1.0}
    names |= {"sampler_name": "euler", "scheduler": "simple"}
    samples = graph.add("KSampler", model=model, positive=text, negative=text, latent_image=latent, **names)
    graph.add("SaveLatent", samples=samples, filename_prefix="gguf")
    graph.queue(host)
    return newest_latents(host, "gguf")


@pytest.mark.parametrize("kind", TYPES)
def test_a_section_equals_the_same_with_dequantized_weights(host: Host, models, short, kind: str):
    found = []
    for name in (f"{kind}.gguf", f"{kind}.safetensors"):
        graph = Graph(edited(short, {("FramePackLoadModel", "model_name"): name}))
        sampler = node_of(graph.workflow, "SectionSampler")
        graph.add("SaveLatent", samples=[sampler, 0], filename_prefix="gguf_section")
        done = graph.queue(host)
        found.append(newest_latents(host, "gguf_section"))
    assert "GGUF" not in str(done.outputs)
    assert relative(*found) < 1e-6


def test_k_types_and_plain_ones_in_one_file_equal_their_values(host: Host, folder: Path, metadata):  # noqa: F811
    """Every type in turn where its blocks fit the rows, F16, BF16 and F32 elsewhere."""
    weights, path = load_file(builtin.DIT), folder / "mixed.gguf"
    writer, kinds = gguf.GGUFWriter(path, "hyvid"), [*BLOCKS] * 9
    for name, text in metadata.items():
        writer.add_string(name, text)
    for key, tensor in weights.items():
        fits = [kind for kind in kinds if tensor.ndim == 2 and tensor.shape[1] % BLOCKS[kind][0] == 0]
        if ".ff" in key and fits:
            kinds.remove(fits[0])
            values, size, _ = BLOCKS[fits[0]]
            count = tensor.numel() // values
            packed = random_blocks(fits[0], count).reshape(-1, size)[:count].reshape(len(tensor), -1)
            writer.add_tensor(key, packed, raw_dtype=gguf.GGMLQuantizationType[fits[0]])
        elif tensor.ndim == 2:
            bits = tensor.bfloat16().view(torch.uint8).numpy()
            writer.add_tensor(key, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(key, tensor.float().numpy() if tensor.ndim == 1 else tensor.half().numpy())
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    assert len(set(open_checkpoint(path).kinds.values())) > 8
    save_file(values_of(path), folder / "mixed.safetensors", metadata)
    assert relative(sampled(host, "mixed.gguf"), sampled(host, "mixed.safetensors")) < 1e-6


@pytest.mark.parametrize("strength", [0.7, -0.5])
@pytest.mark.parametrize("offload", [False, True], ids=["resident", "streamed"])
def test_a_lora_is_added_to_the_values(host: Host, folder: Path, models, metadata, lora, strength, offload):  # noqa: F811
    merged = dict(models["Q4_0"])
    for key, delta in lora.items():
        merged[key] = merged[key] + strength * delta
    save_file(merged, folder / "merged.safetensors", metadata)
    by_hand, without = sampled(host, "merged.safetensors"), sampled(host, "Q4_0.safetensors")
    assert relative(sampled(host, "Q4_0.gguf", strength, offload), by_hand) < 1e-5
    assert relative(without, by_hand) > 1e-3
    assert relative(sampled(host, "Q4_0.gguf"), without) < 1e-6  # nothing stays in the blocks


def test_streamed_layers_another_shift_and_the_step_cache_give_the_same_as_dequantized_weights(host: Host, models):
    expected = sampled(host, "Q8_0.safetensors", shift=3.0)
    assert relative(sampled(host, "Q8_0.gguf", shift=3.0, offload=True), expected) < 1e-6


def test_a_model_counts_at_its_true_size(host: Host, models):
    sizes = {}
    for name in ("Q4_0.gguf", "Q8_0.gguf", "Q8_0.safetensors"):
        graph = Graph()
        graph.add("StandInResident", model=graph.add("FramePackLoadModel", model_name=name))
        counted, held = map(int, graph.queue(host).outputs["2"]["text"])
        assert counted < held + 1e5  # the host's table of noise levels
        sizes[name] = counted
    assert sizes["Q4_0.gguf"] < sizes["Q8_0.gguf"] < 0.6 * sizes["Q8_0.safetensors"]


def test_a_model_is_known_by_its_blocks_and_its_patches(host: Host, models, lora):
    found = []
    for name, strength in (("Q4_0.gguf", 0.0), ("Q4_0.gguf", 0.5), ("Q4_0.gguf", 0.6), ("Q8_0.gguf", 0.0)):
        graph = Graph()
        model = graph.add("FramePackLoadModel", model_name=name)
        if strength:
            model = graph.add("FramePackLoraLoader", model=model, lora_name="blocks.safetensors", strength=strength)
        graph.add("StandInKey", model=model)
        found += graph.queue(host).outputs[str(len(graph.workflow))]["text"]
    assert len(set(found)) == 4


def test_a_merge_with_a_plain_model_takes_the_values(host: Host, folder: Path, models, metadata):  # noqa: F811
    half = {key: 0.5 * (models["Q4_0"][key] + value) for key, value in models["Q8_0"].items()}
    save_file(half, folder / "half.safetensors", metadata)
    graph = Graph()
    one, two = (graph.add("FramePackLoadModel", model_name=name) for name in ("Q4_0.gguf", "Q8_0.gguf"))
    merged = graph.add("ModelMergeSimple", model1=one, model2=two, ratio=0.5)
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    text = graph.add("CLIPTextEncode", clip=clip, text="a green square moves up")
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    names = {"seed": 3, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    samples = graph.add("KSampler", model=merged, positive=text, negative=text, latent_image=latent, **names)
    graph.add("SaveLatent", samples=samples, filename_prefix="gguf_merged")
    graph.queue(host)
    assert relative(newest_latents(host, "gguf_merged"), sampled(host, "half.safetensors")) < 1e-3


@pytest.mark.parametrize("patched", [False, True])
def test_saving_is_refused_with_what_to_do(host: Host, models, lora, patched: bool):
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name="Q4_0.gguf")
    if patched:
        model = graph.add("FramePackLoraLoader", model=model, lora_name="blocks.safetensors", strength=1.0)
    graph.add("ModelSave", model=model, filename_prefix="gguf_saved")
    with pytest.raises(QueueError, match="GGUF model cannot be .*framepack convert"):
        graph.queue(host)
    assert host.alive
    assert not list((host.base / "output").glob("gguf_saved*"))


def test_another_weight_dtype_is_refused(host: Host, models):
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name="Q4_0.gguf", weight_dtype="fp8_e4m3fn")
    graph.add("StandInResident", model=model)
    with pytest.raises(QueueError, match=r"Q4_0\.gguf.*Q4_0.*fp8_e4m3fn.*default"):
        graph.queue(host)


@pytest.mark.parametrize("content", [b"", b"GGUF" + bytes(20), b"GGUF\x03\0\0\0" + b"\xff" * 16], ids=str)
def test_a_broken_file_is_refused_by_name(host: Host, folder: Path, content: bytes):  # noqa: F811
    (folder / "broken.gguf").write_bytes(content)
    with pytest.raises(QueueError, match=r"FramePackLoadModel.*broken\.gguf"):
        sampled(host, "broken.gguf")
    assert host.alive


def test_a_scale_that_is_not_finite_is_refused_by_its_tensors_name(host: Host, folder: Path, models):  # noqa: F811
    content = bytearray((folder / "Q8_0.gguf").read_bytes())
    reader = gguf.GGUFReader(folder / "Q8_0.gguf")
    (tensor,) = [tensor for tensor in reader.tensors if tensor.name == f"{LAYER}.weight"]
    content[tensor.data_offset : tensor.data_offset + 2] = np.float16("nan").tobytes()
    (folder / "nan.gguf").write_bytes(content)
    with pytest.raises(QueueError, match=rf"nan\.gguf: {LAYER}\.weight"):
        sampled(host, "nan.gguf")


def test_a_missing_package_is_named_when_a_workflow_is_queued(host: Host, models):
    for missing in (True, False):
        graph = Graph()
        graph.add("StandInPackage", name="gguf", missing=missing)
        graph.queue(host)
        graph = Graph()
        graph.add("StandInResident", model=graph.add("FramePackLoadModel", model_name="Q4_0.gguf"))
        if missing:
            with pytest.raises(QueueError, match=r"(?s)failed validation.*pip install gguf"):
                graph.queue(host)
        else:
            graph.queue(host)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_loading_takes_no_memory_of_its_own(host: Host, folder: Path):  # noqa: F811
    """A file of 250 MB of random blocks; once before, so that what the first load imports does not count."""
    spec = HunyuanSpec(heads=16, double_blocks=1, single_blocks=2, refiner_blocks=1, text_dim=128, image_dim=None)
    writer, kind = gguf.GGUFWriter(folder / "large.gguf", "hyvid"), gguf.GGMLQuantizationType.Q8_0
    for name, tensor in HunyuanDiT(spec, device="meta").state_dict().items():
        if tensor.ndim == 2 and tensor.shape[1] % 96 == 0 or tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            blocks = np.tile(random_blocks("Q8_0", 1), (tensor.numel() // 96 + 1, 1)).reshape(-1, 34)
            packed = blocks[: tensor.numel() // 32].reshape(len(tensor), -1)
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.zeros(tuple(tensor.shape), np.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    size = (folder / "large.gguf").stat().st_size
    for name in ("Q8_0.gguf", "large.gguf"):
        graph = Graph()
        graph.add("PreviewAny", source=graph.add("FramePackLoadModel", model_name=name))
        before = anonymous(host)
        with watched(host) as peak:
            graph.queue(host)
    assert size > 2e8
    assert peak.most - before < 0.05 * size
