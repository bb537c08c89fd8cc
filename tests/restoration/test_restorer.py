"""The Restorer gives back the kind it was given, and depends on (photo, seed, name) alone."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mrdiff.checkpoints.description import describe_denoiser
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.prediction import Prediction
from mrdiff.diffusion.process import MRProcess
from mrdiff.networks.unet import UNet
from mrdiff.restoration import tiles as tiler
from mrdiff.restoration.footprint import Footprint, budget, footprint
from mrdiff.restoration.restorer import Restorer
from mrdiff.restoration.tiles import Tiler


def tiny_denoiser() -> Denoiser:
    torch.manual_seed(0)
    network = UNet(widths=(4, 8), encoder=(1,), middle=1, decoder=(1,), time_width=8)
    for parameter in network.parameters():  # the U-Net starts at zero: make it say something
        torch.nn.init.normal_(parameter, std=0.1)
    return Denoiser(network, MRProcess(), Parameterization.named("data")).eval()


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return tiny_denoiser()


@pytest.fixture
def restorer(denoiser: Denoiser) -> Restorer:
    return Restorer(denoiser, nfe=2)


def photo(channels: int = 3, size: tuple[int, int] = (17, 22)) -> torch.Tensor:
    return torch.rand(channels, *size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tensors_keep_their_channels_and_alpha(restorer: Restorer, channels: int) -> None:
    image = photo(channels)
    result = restorer(image)
    assert result.shape == image.shape
    assert result.min() >= 0
    assert result.max() <= 1
    if channels in (2, 4):
        assert torch.equal(result[-1], image[-1])
    assert not torch.equal(result[0], image[0])


def test_batches_and_number_types_are_kept(restorer: Restorer) -> None:
    image = photo()
    batch = restorer(torch.stack([image, image]).double())
    assert batch.dtype == torch.float64
    torch.testing.assert_close(batch[0].float(), restorer(image))
    assert not torch.equal(batch[0], batch[1])  # each image has noise of its own


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(17, 22), (17, 22, 1), (17, 22, 3), (17, 22, 4)])
def test_arrays_keep_shape_and_type(restorer: Restorer, dtype: type, shape: tuple) -> None:
    values = np.random.default_rng(0).random(shape)
    top = 1 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    result = restorer((values * top).astype(dtype))
    assert result.shape == shape
    assert result.dtype == dtype
    assert result.max() > 0.3 * top


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pillow_images_keep_their_mode(restorer: Restorer, mode: str) -> None:
    pixels = (photo().permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    result = restorer(image)
    assert result.mode == mode
    assert result.size == image.size


def test_all_kinds_agree(restorer: Restorer) -> None:
    pixels = (photo().permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    array = restorer(pixels, name="x")
    assert np.array_equal(np.asarray(restorer(Image.fromarray(pixels), name="x")), array)
    tensor = restorer(torch.from_numpy(pixels).permute(2, 0, 1) / 255, name="x")
    assert np.array_equal((tensor * 255).round().byte().permute(1, 2, 0).numpy(), array)


def test_result_depends_on_seed_and_name_alone(denoiser: Denoiser) -> None:
    image = photo()
    one = Restorer(denoiser, nfe=2, seed=0)
    assert torch.equal(one(image, name="a"), Restorer(denoiser, nfe=2, seed=0)(image, name="a"))
    assert not torch.equal(one(image, name="a"), one(image, name="b"))
    other_seed = Restorer(denoiser, nfe=2, seed=1)
    assert not torch.equal(one(image, name="a"), other_seed(image, name="a"))
    batch = one.restore(torch.stack([photo(), photo().flip(-1)]), ["a", "b"])
    assert torch.equal(batch[0], one(image, name="a"))


def test_tiled_result_is_the_untiled_one(denoiser: Denoiser) -> None:
    image = photo(size=(150, 170))
    whole = Restorer(denoiser, nfe=2, tile="off")(image)
    tiled = Restorer(denoiser, nfe=2, tile=96)(image)
    assert not torch.equal(whole, tiled)  # tiles were used
    assert (whole - tiled).abs().max() < 0.02


def test_tile_sides(denoiser: Denoiser) -> None:
    assert Tiler(denoiser, "off").side(9000, 9000) is None
    assert Tiler(denoiser, "128").side(10, 10) == 128
    for wrong in ("of", 63, "-5"):
        with pytest.raises(ValueError, match="tile must be"):
            Tiler(denoiser, wrong)


def test_the_largest_tile_is_found_by_trying_once(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = footprint(denoiser, torch.zeros(1, 3, 1, 1))
    # The states of two images alone, and what the network makes of them.
    assert 6 * 4 < each.bytes < 2000
    assert 6 <= each.numbers < each.bytes / 4  # those of the two images in one tensor at least
    tries: list[Denoiser] = []

    def count(tried: Denoiser, like: Tensor, context: object) -> Footprint:
        tries.append(tried)
        return each._replace(room=2 * each.bytes * 700.5**2)

    monkeypatch.setattr(tiler, "footprint", count)
    found = Tiler(denoiser, "auto")
    assert found.side(700, 580) is None
    assert found.side(900, 700) == 640  # the multiple of 64 below 700
    assert tries == [denoiser]


def test_memory_of_a_known_network() -> None:
    class Doubled(torch.nn.Module):
        process = MRProcess()

        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Identity()

        def forward(self, x: Tensor, t: Tensor, mu: Tensor, context: None) -> Prediction:
            wide = torch.cat([x, mu, x, mu], dim=1)  # 12 channels of 4 bytes
            return Prediction(wide[:, :3].clone(), wide[:, :3])  # and 3 more

    found = footprint(Doubled(), torch.zeros(1, 3, 1, 1))
    assert found.bytes == pytest.approx(4 * (12 + 3), rel=0.01)
    assert found[2:] == (12, 1 << 30)
    sides = {2 * 60 * 1000**2: 960, 1: 256, 1 << 60: 2048}
    assert [found._replace(bytes=60, room=room).side for room in sides] == [*sides.values()]


GPU = torch.device("cuda")


def test_a_gpu_takes_as_much_at_once_as_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 30, 20 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 << 30)
    assert budget(GPU) == int(0.6 * (10 << 30))  # what torch keeps and holds nothing is free
    found = Footprint(GPU, 1000, 20, budget(GPU))
    assert found.side == 1792
    assert [found.together(side**2) for side in (512, 2048, 64)] == [12, 1, 32]
    assert found._replace(device=torch.device("cpu")).together(64) == 1


@given(st.floats(1, 1e5), st.floats(1, 1e4), st.integers(1 << 30, 1 << 40), st.integers(1, 10**8))
def test_tensors_stay_within_what_kernels_count(
    each: float, numbers: float, room: int, pixels: int
) -> None:
    """A tile may be larger than 2048 pixels on a GPU, but no tensor of 2^31 numbers."""
    found = Footprint(GPU, each, numbers, room)
    for most in (found.side**2, found.together(pixels) * pixels):
        if most > max(256**2, pixels):
            assert most * numbers <= 2**31
            assert 2 * most * each <= room
    assert Footprint(GPU, 200, 16, 47e9).side > 2048


def test_photos_go_together_where_they_fit_whole(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Tiler(denoiser, "auto")
    assert found.photos(64, 64) == 1  # on a CPU, and the network was not tried for it
    monkeypatch.setattr(Tiler, "_device", GPU)
    whole = Footprint(GPU, 100, 20, 200 * 1024**2)
    monkeypatch.setattr(Tiler, "_footprint", lambda _: whole)
    sizes = [(64, 64), (256, 512), (1024, 1024), (1024, 1025)]
    assert [found.photos(*size) for size in sizes] == [32, 8, 1, 1]
    assert [Tiler(denoiser, "512").photos(*size) for size in sizes[:3]] == [32, 8, 1]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")]
)
def test_smaller_tiles_when_the_memory_runs_out(
    denoiser: Denoiser, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(Denoiser):
        """It fails above 300 x 300 pixels, but for the probe."""

        def forward(self, x: Tensor, *arguments: Any) -> Prediction:
            if x.shape[-2] * x.shape[-1] > 300**2 or self.broken:
                raise error
            return super().forward(x, *arguments)

    small = Small(denoiser.network, denoiser.process, denoiser.parameterization).eval()
    small.broken = False
    image = photo(size=(330, 350))
    restorer = Restorer(small, nfe=2)
    restored = restorer(image)
    assert restorer.tiler.side(*image.shape[-2:]) == 256
    expected = Restorer(denoiser, nfe=2, tile=256)(image)
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)
    with pytest.raises(MemoryError, match="tiles of 350 pixels"):
        Restorer(small, nfe=2, tile="off")(image)
    small.broken = True
    with pytest.raises(MemoryError, match="tiles of 256 pixels"):
        restorer(image)


def test_other_errors_are_not_taken_for_lack_of_memory(denoiser: Denoiser) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        Tiler(denoiser, "auto").run(broken, 10, 10)


def test_wrong_inputs_are_refused(restorer: Restorer) -> None:
    with pytest.raises(TypeError, match="float tensor"):
        restorer(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(TypeError, match="uint8, uint16 or float"):
        restorer(np.zeros((4, 4, 3), np.int64))
    with pytest.raises(ValueError, match="1 to 4 channels"):
        restorer(torch.zeros(5, 4, 4))
    with pytest.raises(ValueError, match="unknown sampler"):
        Restorer(restorer.denoiser, sampler="mr-ode-9")


RGB = np.random.default_rng(0).random((4, 5, 3))
HOLE = np.where(RGB[2, 3, 0] == RGB, np.nan, RGB)


@pytest.mark.parametrize("image", [RGB * 255, RGB * 2 - 1, HOLE, RGB * np.inf, RGB * 1.05])
def test_numbers_that_are_not_in_the_range_are_refused(
    restorer: Restorer, image: np.ndarray
) -> None:
    with np.errstate(all="ignore"):
        kinds = (image, image.astype(np.float32), torch.from_numpy(image).permute(2, 0, 1))
        for given in (*kinds, Image.fromarray(image[..., 0].astype(np.float32))):
            with pytest.raises(ValueError, match=r"values from .* expected 0 to 1"):
                restorer(given)
        with pytest.raises(ValueError, match=r"values from .* expected 0 to 1"):
            restorer(torch.from_numpy(image).permute(2, 0, 1)[None])


def test_a_little_beyond_the_range_is_cut(restorer: Restorer) -> None:
    image = np.full((4, 5, 3), 1.004)
    assert np.array_equal(restorer(image), restorer(np.ones_like(image)))
    assert torch.equal(restorer(torch.full((3, 4, 5), -1e-3)), restorer(torch.zeros(3, 4, 5)))


@pytest.mark.parametrize(
    "image",
    [
        *(np.zeros(shape, np.uint8) for shape in ((2, 4, 4, 3), (0, 4, 3), (4, 4, 0), (4,))),
        *(np.zeros(shape) for shape in ((3, 4, 5), (4, 4, 5))),
        *(torch.zeros(shape) for shape in ((4, 4), (0, 4, 4), (3, 0, 4), (0, 3, 4, 4), (5, 4, 4))),
        Image.new("RGB", (0, 4)),
    ],
)
def test_other_shapes_are_refused_with_what_is_expected(restorer: Restorer, image: Any) -> None:
    with pytest.raises(ValueError, match=r"expected .* and some pixels, got \("):
        restorer(image)


def test_from_checkpoint_gives_the_same(denoiser: Denoiser, tmp_path: Path) -> None:
    weights = {f"denoiser.{key}": value for key, value in denoiser.state_dict().items()}
    config = {"format": 1, "model": describe_denoiser(denoiser), "data": None}
    torch.save({"state_dict": weights, "mrdiff": config}, tmp_path / "a.ckpt")
    loaded = Restorer.from_checkpoint(tmp_path / "a.ckpt", device="cpu", nfe=2)
    torch.testing.assert_close(loaded(photo()), Restorer(denoiser, nfe=2)(photo()))


def test_a_picture_keeps_sixteen_bits_profile_and_resolution(restorer: Restorer) -> None:
    deep = Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50)
    deep.info.update(icc_profile=b"profile", dpi=(300, 300), comment="left out")
    restored = restorer(deep)
    assert (restored.mode, restored.size) == ("I;16", (40, 30))
    assert restored.info == {"icc_profile": b"profile", "dpi": (300, 300)}
    assert len(np.unique(np.asarray(restored) % 256)) > 50  # the lower 8 bits are in use


def test_floats_and_print_colours_of_pillow_come_back(restorer: Restorer) -> None:
    image = Image.fromarray(photo()[0].numpy())
    assert restorer(image).mode == "F"
    ink = Image.new("CMYK", (6, 5), (0, 255, 255, 0))
    ink.info["icc_profile"] = b"of an ink"
    restored = restorer(ink)
    assert (restored.mode, restored.info) == ("RGB", {})


def test_a_preview_comes_at_every_call(restorer: Restorer) -> None:
    seen: list[tuple[int, int, tuple[int, ...]]] = []
    last: list[Tensor] = []

    def callback(step: int, nfe: int, x0: Tensor) -> None:
        seen.append((step, nfe, tuple(x0.shape)))
        last[:] = [x0]

    restored = restorer(photo(), callback=callback)
    shape = (1, 3, *photo().shape[-2:])
    assert seen == [(step, restorer.sampler.nfe, shape) for step in range(1, len(seen) + 1)]
    assert len(seen) == restorer.sampler.nfe
    torch.testing.assert_close(last[0][0].clamp(0, 1), restored)


def test_the_last_preview_is_left_as_it_was(restorer: Restorer) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    lq = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))

    def callback(step: int, nfe: int, x0: Tensor) -> None:
        seen.append((x0, x0.clone()))

    restored = restorer.restore(lq, ["a"], callback=callback)
    now, then = seen[-1]
    assert now.equal(then)
    assert (then < 0).any() or (then > 1).any(), "clamping must have something to do"
    assert restored.equal(then.clamp(0, 1))


def test_threads_may_share_a_restorer(denoiser: Denoiser) -> None:
    restorer = Restorer(denoiser, nfe=2)
    names = [f"{i}" for i in range(8)]
    alone = [restorer(photo(), name=name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: restorer(photo(), name=name), names))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_notebook_shows_before_and_after(restorer: Restorer) -> None:
    image = Image.new("RGBA", (40, 30), (200, 100, 50, 0))
    shown = restorer.compare(image)
    picture = Image.open(io.BytesIO(shown._repr_png_()))
    assert picture.size == (2 * 40 + 8, 30 + 20)
    assert picture.getpixel((39, 49)) == (255, 255, 255)  # transparent: laid on white
    assert shown.after.mode == "RGBA"


def test_samples_have_a_mean_and_a_deviation(denoiser: Denoiser) -> None:
    restorer = Restorer(denoiser, nfe=2, sampler="mr-sde-1")
    image = photo()[None]
    single = restorer.draw(image, ["a"], samples=1)
    assert torch.equal(single.mean[0], restorer(photo(), name="a"))
    assert single.std.eq(0).all()
    several = restorer.draw(image, ["a"], samples=4)
    assert several.std.min() >= 0
    assert several.std.mean() > 0
    with pytest.raises(ValueError, match="temperature 0"):
        Restorer(denoiser, sampler="fidelity").draw(image, ["a"], samples=2)
