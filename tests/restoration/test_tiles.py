"""Tiles cover the image, blend without seams, and leave local networks' results as they are."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mrdiff.diffusion.denoiser import Prediction
from mrdiff.diffusion.process import MRProcess
from mrdiff.restoration.tiled_denoiser import TiledDenoiser, even_tile, tile_spans


class Local:
    """A denoiser that sees ``reach`` pixels each way; it counts its calls and their sizes."""

    process = MRProcess()

    def __init__(self, reach: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.randn(3, 3, 2 * reach + 1, 2 * reach + 1, generator=generator)
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        self.sizes.append((x.shape[-2], x.shape[-1]))
        reach = self.kernel.shape[-1] // 2
        x0 = functional.conv2d(x + mu * t, self.kernel, padding=reach)
        return Prediction(x0, self.process.noise_in(x, x0, mu, t))


@given(st.integers(1, 900), st.integers(49, 300), st.integers(4, 32))
def test_spans_cover_in_order_with_the_overlap(length: int, tile: int, overlap: int) -> None:
    spans = tile_spans(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    for (start, stop), (following, end) in itertools.pairwise(spans):
        assert start < following
        assert stop < end
        assert stop - following >= overlap
        assert following % 16 == 0
    assert all(stop - start < tile + 16 for start, stop in spans)


@given(st.integers(1, 5000), st.integers(4, 40), st.integers(1, 8))
def test_even_tiles_are_as_few_and_share_little_more_than_asked(
    length: int, tile_steps: int, overlap_steps: int
) -> None:
    overlap = 16 * overlap_steps
    tile = overlap + 16 * tile_steps
    even = even_tile(length, tile, overlap)
    few, spans = tile_spans(length, tile, overlap), tile_spans(length, even, overlap)
    assert even <= tile
    assert len(spans) == len(few)
    if len(spans) > 1:
        shared = sum(stop - start for start, stop in spans) - length
        assert shared <= (len(spans) - 1) * overlap + 16 * len(spans)


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 150), st.integers(20, 150))
def test_a_local_network_gives_the_untiled_result(height: int, width: int) -> None:
    denoiser = Local(reach=4)
    x, mu = torch.randn(2, 2, 3, height, width, generator=torch.Generator().manual_seed(1))
    whole = denoiser(x, torch.tensor(0.5), mu)
    tiled = TiledDenoiser(denoiser, 48, overlap=16)(x, torch.tensor(0.5), mu)
    torch.testing.assert_close(tiled.x0, whole.x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tiled.eps, whole.eps, rtol=1e-4, atol=1e-4)


class Told(Local):
    """One whose result also depends on what it is told of each image and of each pixel."""

    def __call__(  # type: ignore[override]
        self, x: Tensor, t: Tensor, mu: Tensor, context: dict[str, Tensor]
    ) -> Prediction:
        shift = context["task"].sum(1)[:, None, None, None] + context["mask"]
        return super().__call__(x + shift, t.reshape(-1, 1, 1, 1), mu)


@pytest.mark.parametrize("together", [2, 3, 100])
@pytest.mark.parametrize("t", [torch.tensor(0.5), torch.tensor([0.5, 0.8])])
def test_tiles_together_give_the_result_of_tiles_alone(t: Tensor, together: int) -> None:
    denoiser = Told(reach=4)
    x, mu = torch.randn(2, 2, 3, 130, 99, generator=torch.Generator().manual_seed(1))
    kept = torch.rand(2, 1, 130, 99, generator=torch.Generator().manual_seed(2))
    context = {"task": torch.tensor([[0.0, 1.0], [2.0, 0.0]]), "mask": kept}
    alone = TiledDenoiser(denoiser, 48, overlap=16, context=context)(x, t, mu)
    calls = len(denoiser.sizes)
    tiles = TiledDenoiser(denoiser, 48, overlap=16, context=context, together=together)(x, t, mu)
    assert len(denoiser.sizes) - calls < calls
    torch.testing.assert_close(tiles.x0, alone.x0)


def test_a_small_image_goes_through_in_one_call() -> None:
    denoiser = Local(reach=1)
    x = torch.rand(1, 3, 48, 30)
    tiled = TiledDenoiser(denoiser, 48, overlap=16)(x, torch.tensor(0.5), x)
    assert denoiser.sizes == [(48, 30)]
    assert torch.equal(tiled.x0, denoiser(x, torch.tensor(0.5), x).x0)


def test_tiles_bound_the_size_of_a_call() -> None:
    denoiser = Local(reach=1)
    x = torch.rand(1, 3, 130, 99)
    TiledDenoiser(denoiser, 48, overlap=16)(x, torch.tensor(0.5), x)
    assert len(denoiser.sizes) > 4
    assert max(max(size) for size in denoiser.sizes) < 48 + 8


@pytest.mark.parametrize(("tile", "overlap"), [(40, 32), (64, 3)])
def test_impossible_sizes_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="tile must exceed"):
        TiledDenoiser(Local(reach=1), tile, overlap)
