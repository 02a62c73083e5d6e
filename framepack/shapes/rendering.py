"""Draw scenes of the shapes' world, many at a time, on any device.

Dims: b scenes, t frames, h w picture.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..training.resident import placed
from .backdrops import draw_backdrops
from .world import CIRCUMRADIUS, NEW_SHAPES, SIZE, UPRIGHT, Scene, centres

FINE = 2  # how many times larger a fine scene is drawn


def distance(shape: str, radius: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to the outline (a lower bound near corners), negative inside; the radius broadcasts."""
    if shape == "circle":
        return torch.hypot(x, y) - radius
    if shape == "ring":
        outer, half = radius * NEW_SHAPES["ring"], 0.32 * radius
        return (torch.hypot(x, y) - outer + half).abs() - half
    corner = radius * CIRCUMRADIUS[shape]
    if shape == "star":  # one edge, from a tip to the next notch, repeated by symmetry
        angle = torch.remainder(torch.atan2(y, x), 2 * math.pi / 5)
        angle = torch.minimum(angle, 2 * math.pi / 5 - angle)
        length = torch.hypot(x, y)
        px, py = length * torch.cos(angle), length * torch.sin(angle)
        nx, ny = math.sin(math.pi / 5) / 2, 1 - math.cos(math.pi / 5) / 2
        return ((px - corner) * nx + py * ny) / math.hypot(nx, ny)
    sides = 4 if shape == "square" else 3
    turns = [2 * math.pi * i / sides for i in range(sides)]
    planes = [x * math.cos(a) + y * math.sin(a) for a in turns]
    return torch.stack(planes).amax(0) - corner * math.cos(math.pi / sides)


def draw(scenes: Sequence[Scene], firsts: Sequence[int], count: int, device: torch.device | str = "cpu") -> Tensor:
    """So many frames of each scene from its own first one on: ``b 3 t h w`` in [0, 1], float32."""
    out = torch.empty(len(scenes), 3, count, SIZE, SIZE, device=device)
    alike = defaultdict(list)
    for index, scene in enumerate(scenes):
        alike[scene.shape, scene.fine].append(index)
    for (shape, fine), places in alike.items():
        some = [scenes[i] for i in places]
        times = torch.tensor([firsts[i] for i in places])[:, None] + torch.arange(count)
        back = backgrounds(some, device)[:, :, None]
        cover = covers(shape, some, times, FINE if fine else 1, device)[:, None]
        paint = placed(torch.tensor([scene.colour_values for scene in some]), out.device).view(-1, 3, 1, 1, 1)
        out[placed(torch.tensor(places), out.device)] = back + (paint - back) * cover
    return out


def render(scene: Scene, frames: Sequence[int] | Tensor) -> Tensor:
    """Draw the given frames: ``3 t h w`` in [0, 1], float32."""
    times = torch.as_tensor(frames)
    cover = covers(scene.shape, [scene], times[None], FINE if scene.fine else 1)[0]
    back = backgrounds([scene])[0][:, None]
    return back + (torch.tensor(scene.colour_values)[:, None, None, None] - back) * cover


def covers(
    shape: str, scenes: Sequence[Scene], times: Tensor, finer: int = 1, device: torch.device | str = "cpu"
) -> Tensor:
    """How much of each pixel the shape covers, ``b t h w``, at times ``b t``; all scenes have one outline."""
    centre = torch.stack([centres(scene, t) for scene, t in zip(scenes, times, strict=True)])
    device, centre = torch.device(device), placed(centre.float(), torch.device(device))

    def each(values: list[float]) -> Tensor:
        return placed(torch.tensor(values), device).view(-1, 1, 1, 1)

    grid = (torch.arange(SIZE * finer, device=device) + 0.5) / finer
    dx = grid[None, None, None, :] - centre[:, :, 0, None, None]
    dy = grid[None, None, :, None] - centre[:, :, 1, None, None]
    spin = each([scene.spin for scene in scenes])
    angle = UPRIGHT.get(shape, 0.0) + spin * placed(times.float(), device)[:, :, None, None]
    x, y = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    radius, edge = each([scene.radius for scene in scenes]), each([scene.edge for scene in scenes])
    cover = (0.5 - distance(shape, radius, x, y) / edge).clamp(0, 1)
    return F.avg_pool2d(cover, finer) if finer > 1 else cover


def backgrounds(scenes: Sequence[Scene], device: torch.device | str = "cpu") -> Tensor:
    """What is behind the shapes, ``b 3 h w``."""
    device = torch.device(device)
    greys = placed(torch.tensor([scene.greys for scene in scenes]), device)  # b 2
    down = ((torch.arange(SIZE, device=device) + 0.5) / SIZE)[:, None]
    top, bottom = greys[:, 0, None, None], greys[:, 1, None, None]
    out = (top + (bottom - top) * down)[:, None].expand(-1, 3, -1, SIZE).clone()
    others = [i for i, scene in enumerate(scenes) if scene.backdrop]
    if others:
        held = [scene.backdrop for scene in scenes if scene.backdrop]
        out[placed(torch.tensor(others), device)] = draw_backdrops(held, SIZE, device)
    return out
