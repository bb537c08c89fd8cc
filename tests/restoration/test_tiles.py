"""Tiles cover the image, blend without seams, and leave local networks' results as they are."""

import itertools
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.prediction import Prediction
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.restoration.footprint import Footprint
from mrdiff.restoration.tiled_denoiser import TiledDenoiser, even_tile, tile_spans
from mrdiff.restoration.tiles import Tiler

CPU = torch.device("cpu")


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


class Conditioned(Local):
    """One whose result also depends on the context of each image and of each pixel."""

    def __call__(  # type: ignore[override]
        self, x: Tensor, t: Tensor, mu: Tensor, context: dict[str, Tensor]
    ) -> Prediction:
        shift = context["task"].sum(1)[:, None, None, None] + context["mask"]
        return super().__call__(x + shift, t.reshape(-1, 1, 1, 1), mu)


@pytest.mark.parametrize("together", [2, 3, 100])
@pytest.mark.parametrize("t", [torch.tensor(0.5), torch.tensor([0.5, 0.8])])
def test_tiles_together_give_the_result_of_tiles_alone(t: Tensor, together: int) -> None:
    denoiser = Conditioned(reach=4)
    x, mu = torch.randn(2, 2, 3, 130, 99, generator=torch.Generator().manual_seed(1))
    kept = torch.rand(2, 1, 130, 99, generator=torch.Generator().manual_seed(2))
    context = {"task": torch.tensor([[0.0, 1.0], [2.0, 0.0]]), "mask": kept}
    alone = TiledDenoiser(denoiser, 48, overlap=16, context=context)(x, t, mu)
    calls = len(denoiser.sizes)
    tiles = TiledDenoiser(denoiser, 48, overlap=16, context=context, together=together)(x, t, mu)
    assert len(denoiser.sizes) - calls < calls
    torch.testing.assert_close(tiles.x0, alone.x0)


@pytest.mark.parametrize("together", [1, 3])
def test_a_context_that_comes_with_the_run_is_cut_into_tiles(together: int) -> None:
    denoiser, t = Conditioned(reach=4), torch.tensor(0.5)
    x, mu = torch.randn(2, 1, 3, 130, 99, generator=torch.Generator().manual_seed(1))
    context = {"task": torch.ones(1, 2), "mask": x[:, :1]}
    expected = TiledDenoiser(denoiser, 48, overlap=16, context=context, together=together)(x, t, mu)
    bare = TiledDenoiser(denoiser, 48, overlap=16, together=together)
    assert bare.prepare(mu, t[None], context)(x, t, mu).x0.equal(expected.x0)


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


class Cramped(Denoiser):
    """A denoiser without memory for more than ``most`` pixels."""

    most: int

    def forward(self, x: Tensor, *arguments: Any) -> Prediction:
        self.largest = max(self.largest, x.shape[-2] * x.shape[-1])
        self.calls += 1
        if x.shape[-2] * x.shape[-1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Prediction(x, x)


def cramped(most: int) -> Cramped:
    network = torch.nn.Conv2d(3, 3, 1)
    denoiser = Cramped(network, MRProcess(), Parameterization.named("data"))
    denoiser.most, denoiser.largest, denoiser.calls = most, 0, 0
    return denoiser


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12_000),
    st.integers(1, 12_000),
    st.integers(10_000, 3_000_000),
    st.sampled_from([256, 512, 2048]),
)
@example(400, 8000, 1_000_000, 2048)  # its area is that of a square that does not fit either
@example(100, 600, 50_000, 2048)  # fewer pixels than the smallest square tile
def test_automatic_tiles_end_whatever_the_shape(
    height: int, width: int, most: int, first: int
) -> None:
    if height * width > 4_000_000:
        width = 4_000_000 // height
    denoiser, attempts = cramped(most), 0
    tiler = Tiler(denoiser, "auto")
    x = torch.empty(1, 3, height, width, device="meta")  # sizes alone

    def work(model: DenoiserLike) -> Tensor:
        nonlocal attempts
        attempts += 1
        assert attempts < 9
        denoiser.largest = 0
        return model(x, torch.tensor(0.5), x).x0

    with (
        patch(
            "mrdiff.restoration.tiles.footprint", return_value=Footprint(CPU, 1, 1, 2 * first**2)
        ),
    ):
        try:
            assert tiler.run(work, height, width).shape == x.shape
        except MemoryError:
            # The last tile of a row may be 15 pixels longer.
            assert most < min(height, 256 + 15) * min(width, 256 + 15)
        else:
            assert denoiser.largest <= most


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory"
        ),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("std::bad_alloc"),
        MemoryError("std::bad_alloc"),  # what torch makes of it where C++ throws it
    ],
)
def test_every_way_of_running_out_of_memory_is_recovered_from(error: Exception) -> None:
    tiler, sides = Tiler(cramped(1 << 40), "auto"), []

    def work(model: DenoiserLike) -> Tensor:
        sides.append(getattr(model, "tile", None))
        if len(sides) == 1:
            raise error
        return torch.ones(1)

    assert tiler.run(work, 600, 600).item() == 1
    assert sides == [None, 300]


def test_tiles_that_do_not_fit_together_are_taken_one_by_one() -> None:
    """Smaller ones would be as many pixels together, and those of a chosen size get no smaller."""
    cuda, seen = torch.device("cuda"), []
    found = Footprint(cuda, 1, 1, 8 * 256**2)

    def work(model: Any) -> Tensor:
        seen.append((model.tile, model.together))
        if model.together > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.ones(1)

    tiler = Tiler(cramped(1), 256)
    with (
        patch.object(Tiler, "_device", cuda),
        patch.object(Tiler, "_footprint", lambda _: found),
    ):
        assert tiler.photos(64, 64) == 32
        assert tiler.run(work, 600, 600).item() == 1
        assert tiler.photos(64, 64) == 1
    assert seen == [(256, 4), (256, 1)]
