"""From a stock file to a LoRA: a random HunyuanVideo is converted, trained, and its LoRA is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from framepack.checkpoints.convert import convert
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.training.adapters import merge
from framepack.training.cache import Clip, Index, clip_path, text_path, write_tensors
from framepack.training.command import Means, Prepared, prepare
from framepack.training.config import Config, Data, Lora, Model, Run, Share, Stage
from framepack.training.step_data import draw
from tests.host.conftest import Graph
from tests.host.test_lora import latents
from tests.parity import test_hunyuan
from tests.parity.reference import Case, models
from tools.host import Host

SIZES = {"small": (1, 1, 2), "0.3B": (8, 4, 8)}  # heads, double and single blocks
NAME, GRID, STEPS = "converted", (8, 12), 20


def case_of(size: str) -> Case:
    """A model without an image encoder whose words are the built-in text encoder's."""
    heads, double, single = SIZES[size]
    blocks = {"heads": heads, "double": double, "single": single, "refiner": 1, "axes": (16, 56, 56)}
    how = {"guidance": True, "image": False, "text_dim": 128, "pooled_dim": 128, "std": 0.04}
    return Case(seed=0, batch=1, height=GRID[0], width=GRID[1], words=(5,), forward=False, **blocks, **how)


def trained(model: Path, folder: Path) -> tuple[Prepared, list[float]]:
    """A LoRA trained on one section of one clip, and the loss of one batch before and after."""
    write_tensors(clip_path(folder, "0.safetensors"), {"0": torch.randn(16, 10, *GRID)})
    write_tensors(text_path(folder, "random", ""), {"context": torch.randn(5, 128), "y": torch.randn(128)})
    clip = Clip(file="0.safetensors", name="0", shape=(16, 10, *GRID), captions=("",))
    Index(encoder="random", clips=(clip,)).write(folder)
    share = Share(schedule="inverted", num_lat_frames=10)
    config = Config(
        model=Model(path=model, compute="fp32", device="cpu"),
        data=Data(cache=folder),
        run=Run(out=folder / "run"),
        stage=(Stage(steps=STEPS, mixture=(share,), optimizer="adamw", rate=3e-3),),
        lora=Lora(rank=4),
    )
    run = prepare(config, Means(encoder=lambda path: pytest.fail("nothing is to be encoded")))
    run.place()
    fixed = draw(config, 0, run.trainer.clips)

    def loss() -> float:
        done, run.trainer.done = run.trainer.done, 0  # whose noise it is
        found = float(run.trainer.backward(fixed)[1])
        run.trainer.model.zero_grad(set_to_none=True)
        run.trainer.done = done
        return found

    before = loss()
    assert run.trainer.run()
    return run, [before, loss()]


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("size", ["small", pytest.param("0.3B", marks=pytest.mark.slow)])
def test_a_lora_of_a_converted_model_learns_and_is_the_same_to_every_loader(
    alive: Host, tmp_path: Path, monkeypatch, size: str
):
    case = case_of(size)
    theirs, _ = models(case)
    plain = {k: v.contiguous() for k, v in theirs.state_dict().items() if not k.startswith("clean_x_embedder")}
    save_file(plain, tmp_path / "plain.safetensors")
    folder = alive.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    packed = folder / f"{NAME}_{size}.safetensors"
    convert(tmp_path / "plain.safetensors", packed)
    run, (before, after) = trained(packed, tmp_path / "cache")
    assert after < 0.98 * before
    loras = alive.base / "models" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    lora = run.export(loras / f"{NAME}_{size}.safetensors")

    weights = load_file(packed)
    spec = HunyuanSpec.from_shapes({k: tuple(v.shape) for k, v in weights.items()})
    ours = HunyuanDiT(spec, exact=True).eval().requires_grad_(False)
    ours.load_state_dict(weights)
    merge(ours, lora)
    known = theirs.state_dict().keys()
    theirs.load_state_dict({k: v.float() for k, v in weights.items() if k in known})
    monkeypatch.setattr(test_hunyuan, "models", lambda case: (theirs, ours))
    torch.manual_seed(0)
    changed, without = test_hunyuan.both(case)
    theirs.load_lora_adapter(str(loras), prefix="transformer", weight_name=lora.name)
    torch.manual_seed(0)
    got, expected = test_hunyuan.both(case)
    assert relative(got, expected) < 1e-4
    assert relative(changed, without) > 1e-3

    found = []
    for loader, how in (
        ("FramePackLoraLoader", {"strength": 1.0}),
        ("LoraLoaderModelOnly", {"strength_model": 1.0}),
    ):
        graph = Graph()
        model = graph.add("FramePackLoadModel", model_name=packed.name, weight_dtype="fp32")
        model = graph.add(loader, model=model, lora_name=lora.name, **how)
        found.append(latents(alive, graph, model, f"{loader}_{size.replace('.', '_')}")[0])
    assert relative(*found) < 1e-4
