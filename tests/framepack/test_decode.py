"""Decoding as a stream: any pieces give the frames of the whole, and each tile is decoded once, as soon as possible."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from framepack.errors import FramePackError, LatentSizeError
from framepack.units import RELEASED as GEOMETRY
from framepack.vae.tiles import RELEASED, STREAMED, TileGrid, TileStream, decode_tiled, longest_grid

GRIDS = [RELEASED, STREAMED, TileGrid(tile=4, stride=3), TileGrid(tile=5, stride=2), TileGrid(tile=2, stride=1)]


class Decoder:
    """A causal stand-in of a decoder whose norm spans all that is decoded together; counts its tiles."""

    def __init__(self):
        self.tiles: list[int] = []

    def __call__(self, latents: Tensor) -> Tensor:
        self.tiles.append(latents.shape[2])
        x = (latents - latents.mean()) / latents.std()
        return (
            x.cumsum(2).repeat_interleave(4, 2)[:, :, 3:]
            + torch.arange(GEOMETRY.pixel_frames(latents.shape[2]))[:, None, None]
        )


def latents(num: int) -> Tensor:
    return torch.randn(1, 2, num, 2, 3, generator=torch.Generator().manual_seed(num))


def pieces(num: int, seed: int) -> list[int]:
    """A random partition of `num`."""
    draw, found = random.Random(seed), []
    while left := num - sum(found):
        found.append(draw.randint(1, min(left, 11)))
    return found


def overlap_added(decode: Decoder, x: Tensor, grid: TileGrid) -> Tensor:
    """The grid written the other way round: all tiles laid over one canvas, each weighted by ramps."""
    frames: dict[int, Tensor] = {}
    for tile in grid.tiles(x.shape[2]):
        own = decode(x[:, :, tile.start : tile.stop].contiguous())
        for i in range(1 if tile.start else 0, own.shape[2]):
            at, share = 4 * tile.start + i, (i - 1) / max(4 * grid.overlap, 1)
            old = frames.get(at)
            frames[at] = own[:, :, i] if old is None else (1 - share) * old + share * own[:, :, i]
    return torch.stack([frames[i] for i in range(len(frames))], 2)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("num", [*range(1, 17), 28, 37])
def test_any_pieces_give_the_frames_of_the_whole(grid: TileGrid, num: int):
    x = latents(num)
    whole = decode_tiled(Decoder(), x, grid)
    assert whole.shape[2] == GEOMETRY.pixel_frames(num)
    assert torch.allclose(whole, overlap_added(Decoder(), x, grid), atol=1e-5)
    for seed in range(5):
        stream = TileStream(Decoder(), grid)
        found = [frames for piece in x.split(pieces(num, seed), 2) for frames in stream.push(piece)]
        assert torch.equal(torch.cat([*found, *stream.flush()], 2), whole)


@pytest.mark.parametrize("num", [1, 2, 5, 6, 28])
def test_each_tile_of_the_grid_is_decoded_once(num: int):
    decode = Decoder()
    decode_tiled(decode, latents(num))
    assert decode.tiles == [len(tile) for tile in RELEASED.tiles(num)]
    assert sorted({i for tile in RELEASED.tiles(num) for i in tile}) == list(range(num))


def test_frames_come_as_soon_as_they_are_final():
    stream = TileStream(Decoder())
    come = [sum(frames.shape[2] for frames in stream.push(x)) for x in latents(12).split(1, 2)]
    assert come == [0, 0, 0, 0, 13, 0, 0, 12, 0, 0, 12, 0]
    assert [frames.shape[2] for frames in stream.flush()] == [8]
    assert list(stream.flush()) == []


def test_a_push_whose_frames_are_not_read_loses_nothing():
    stream, x = TileStream(Decoder()), latents(12)
    stream.push(x[:, :, :9])
    assert torch.equal(torch.cat([*stream.push(x[:, :, 9:]), *stream.flush()], 2), decode_tiled(Decoder(), x))


@pytest.mark.parametrize(
    ("whole", "room", "expected"),
    [
        (28, 28, TileGrid(tile=28, stride=27)),
        (28, 27, TileGrid(tile=17, stride=15)),
        (28, 16, STREAMED),
        (28, 8, RELEASED),
        (28, 0, RELEASED),
        (9, 9, TileGrid(tile=9, stride=8)),
        (9, 8, RELEASED),
        (None, 1000, STREAMED),
        (None, 9, STREAMED),
        (None, 8, RELEASED),
        (5, 9, RELEASED),
        (1, 9, RELEASED),
        (1000, 999, TileGrid(tile=129, stride=127)),
    ],
)
def test_tiles_are_as_long_as_memory_allows_and_no_shorter_than_released(
    whole: int | None, room: int, expected: TileGrid
):
    assert longest_grid(lambda tile: tile <= room, whole) == expected


@pytest.mark.parametrize("num", [6, 9, 28])
def test_a_tile_over_the_whole_video_is_one_decode_of_it(num: int):
    decode = Decoder()
    frames = decode_tiled(decode, latents(num), longest_grid(lambda tile: True, num))
    assert decode.tiles == [num]
    assert torch.equal(frames, Decoder()(latents(num)))


@pytest.mark.parametrize("num", [1, 2, 4, 5, 6, 7, 8, 9, 10, 11])
def test_the_released_grid_is_the_one_that_diffusers_decodes_by(num: int):
    pytest.importorskip("diffusers")
    from benchmarks.decode import hunyuan_vae

    vae, x = hunyuan_vae(), torch.randn(1, 16, num, 2, 2, generator=torch.Generator().manual_seed(num))
    with torch.no_grad():
        ours = decode_tiled(lambda tile: vae.decoder(vae.post_quant_conv(tile)), x)
        theirs = vae.decode(x).sample
    assert float((ours - theirs).abs().max()) <= 1e-6 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize(("tile", "stride"), [(5, 5), (5, 0), (5, 1), (1, 1)])
def test_a_grid_with_gaps_or_more_than_two_layers_is_rejected(tile: int, stride: int):
    with pytest.raises(FramePackError, match=f"{tile} every {stride}"):
        TileGrid(tile=tile, stride=stride)


def test_latents_that_do_not_fit_are_rejected():
    stream = TileStream(Decoder())
    stream.push(latents(3))
    with pytest.raises(LatentSizeError, match=r"\(1, 2, 2, 4\)"):
        stream.push(torch.zeros(1, 2, 3, 2, 4))
    for shape in [(1, 2, 3, 2), (1, 2, 0, 2, 3)]:
        with pytest.raises(LatentSizeError, match=str(shape).strip("()")):
            TileStream(Decoder()).push(torch.zeros(shape))


def test_a_vae_of_another_compression_is_rejected():
    with pytest.raises(FramePackError, match="17 frames"):
        decode_tiled(lambda tile: tile, latents(7))
