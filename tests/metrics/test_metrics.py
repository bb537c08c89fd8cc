"""Metrics against scikit-image, against published values, and at their edges."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from mrdiff.metrics import (
    LPIPS,
    PROTOCOLS,
    RGB,
    Meter,
    Protocol,
    WeightsError,
    Y,
    luma,
    psnr,
    sliced_wasserstein,
    ssim,
)
from mrdiff.photo import FORMATS
from mrdiff.system import names
from mrdiff.system.names import IMAGE_METRICS, METRICS
from tests.random_weights import ALEXNET, write_random_features

SSIM_OPTIONS = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 1.0,
}


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Two pairs of 8-bit images, rather different and nearly equal."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 6, 8, generator=generator)
    gt = torch.nn.functional.interpolate(coarse, (48, 61), mode="bicubic").clamp(0, 1)
    strength = torch.tensor([0.2, 0.01]).view(2, 1, 1, 1)
    lq = (gt + strength * torch.randn(gt.shape, generator=generator)).clamp(0, 1)
    return (lq * 255).round() / 255, (gt * 255).round() / 255


def array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def test_rgb_agrees_with_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    for i, (a, b) in enumerate(zip(*pair, strict=True)):
        expected = peak_signal_noise_ratio(array(b), array(a), data_range=1.0)
        assert float(psnr(*pair)[i]) == pytest.approx(expected, abs=1e-4)
        expected = structural_similarity(array(b), array(a), channel_axis=-1, **SSIM_OPTIONS)
        assert float(ssim(*pair)[i]) == pytest.approx(expected, abs=2e-5)


def test_ssim_is_its_formula(pair: tuple[Tensor, Tensor]) -> None:
    """Window by window, as Wang et al. (2004) have it."""
    a, b = (image[0].double() for image in pair)
    offset = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offset**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(0, 48 - 10, 6):
        for left in range(0, 61 - 10, 6):
            x, y = (image[:, top : top + 11, left : left + 11] for image in (a, b))
            mean_x, mean_y = ((window * part).sum((1, 2)) for part in (x, y))
            var_x = (window * x**2).sum((1, 2)) - mean_x**2
            var_y = (window * y**2).sum((1, 2)) - mean_y**2
            covariance = (window * x * y).sum((1, 2)) - mean_x * mean_y
            alike = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
            size = (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
            crop = (part[None].float() for part in (x, y))
            assert float(ssim(*crop)) == pytest.approx(float((alike / size).mean()), abs=1e-5)
            values.append(float((alike / size).mean()))
    assert len(values) == 63
    assert min(values) < 0.9


@pytest.mark.parametrize("protocol", [RGB, Y])
def test_ssim_has_the_numbers_of_torchmetrics(
    pair: tuple[Tensor, Tensor], protocol: Protocol
) -> None:
    """Which averages over a reflected border too, so that it has to be cut."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    options = {"sigma": 1.5, "kernel_size": 11, "data_range": 1.0, "return_full_image": True}
    for images, tolerance in ((pair, 1e-5), ([image.double() for image in pair], 1e-10)):
        ours, theirs = (protocol.prepare(image) for image in images)
        _, full = structural_similarity_index_measure(ours, theirs, reduction="none", **options)
        expected = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
        torch.testing.assert_close(
            ssim(*images, protocol=protocol), expected, atol=tolerance, rtol=0
        )


def test_luma_agrees_with_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    from skimage.color import rgb2ycbcr

    for i, (a, b) in enumerate(zip(*pair, strict=True)):
        ya, yb = (rgb2ycbcr(array(image))[..., 0] / 255 for image in (a, b))
        np.testing.assert_allclose(array(luma(a[None])[0])[..., 0], ya, atol=1e-6)
        expected = peak_signal_noise_ratio(yb, ya, data_range=1.0)
        assert float(psnr(*pair, protocol=Y)[i]) == pytest.approx(expected, abs=1e-4)
        expected = structural_similarity(yb, ya, **SSIM_OPTIONS)
        assert float(ssim(*pair, protocol=Y)[i]) == pytest.approx(expected, abs=2e-5)


def test_the_protocol_of_ir_sde_agrees_with_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    """Its scripts measure 8-bit pictures without their outermost pixels; luma is not rounded."""
    from skimage.color import rgb2ycbcr

    a, b = (image + 0.3 / 255 for image in pair)  # they round what they measure
    found = Meter(("psnr", "ssim", "psnr_y", "ssim_y"), protocol="ir-sde")(a, b)
    for i in range(2):
        x, y = (array(image[i])[1:-1, 1:-1] for image in pair)
        assert float(found["psnr"][i]) == pytest.approx(
            peak_signal_noise_ratio(y, x, data_range=1.0), abs=1e-4
        )
        expected = structural_similarity(y, x, channel_axis=-1, **SSIM_OPTIONS)
        assert float(found["ssim"][i]) == pytest.approx(expected, abs=2e-5)
        x, y = (rgb2ycbcr(image)[..., 0] / 255 for image in (x, y))
        assert float(found["psnr_y"][i]) == pytest.approx(
            peak_signal_noise_ratio(y, x, data_range=1.0), abs=1e-4
        )
        expected = structural_similarity(y, x, **SSIM_OPTIONS)
        assert float(found["ssim_y"][i]) == pytest.approx(expected, abs=2e-5)
    with pytest.raises(ValueError, match="known: standard, ir-sde"):
        Meter(protocol="irsde")


def test_the_commands_names_are_those_of_the_library() -> None:
    assert tuple(PROTOCOLS) == names.PROTOCOLS
    assert {f".{name}" for name in names.FORMATS} <= set(FORMATS)


def test_luma_has_the_weights_of_matlab() -> None:
    """Those of grey, in studio swing."""
    red_green_blue = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
    weights = 255 * (luma(red_green_blue) - luma(0 * red_green_blue)).flatten()
    torch.testing.assert_close(weights, torch.tensor([65.481, 128.553, 24.966]).double())


def test_luma_range() -> None:
    ends = luma(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)).flatten()
    torch.testing.assert_close(ends, torch.tensor([16 / 255, 235 / 255]))
    with pytest.raises(ValueError, match="RGB"):
        luma(torch.zeros(1, 1, 4, 4))


def test_predictions_are_measured_as_they_are_saved(pair: tuple[Tensor, Tensor]) -> None:
    lq, gt = pair
    jitter = 0.4 / 255 * torch.rand(lq.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(psnr(lq + jitter, gt), psnr(lq, gt))
    torch.testing.assert_close(psnr(3 * lq - 1, gt), psnr((3 * lq - 1).clamp(0, 1), gt))
    unrounded = Protocol(name="raw", levels=None)
    assert not torch.equal(psnr(lq + jitter, gt, protocol=unrounded), psnr(lq, gt))


def test_crop_border(pair: tuple[Tensor, Tensor]) -> None:
    lq, gt = pair
    cropped = psnr(lq, gt, protocol=Protocol(name="crop", crop_border=4))
    torch.testing.assert_close(cropped, psnr(lq[..., 4:-4, 4:-4], gt[..., 4:-4, 4:-4]))
    with pytest.raises(ValueError, match="nothing is left"):
        psnr(lq, gt, protocol=Protocol(name="crop", crop_border=24))


def test_identical_images() -> None:
    black = torch.zeros(1, 3, 16, 16)
    assert ssim(black, black).tolist() == [1.0]
    image = torch.rand(2, 3, 16, 16)
    assert psnr(image, image).tolist() == [math.inf, math.inf]
    torch.testing.assert_close(ssim(image, image), torch.ones(2))


def test_unsuitable_images_are_refused() -> None:
    small = torch.rand(1, 3, 10, 64)
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(small, small)
    with pytest.raises(ValueError, match="differ in shape"):
        psnr(small, small[..., :32])
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        psnr(small[0], small[0])


def test_half_precision_is_measured_in_single() -> None:
    gt = torch.rand(1, 3, 16, 16)
    lq = (gt + 0.1).bfloat16()
    torch.testing.assert_close(psnr(lq, gt), psnr(lq.float(), gt))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever weights this machine has."""
    for name in ("LPIPS", "VGG", "INCEPTION"):
        monkeypatch.delenv(f"MRDIFF_{name}_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.usefixtures("no_weights")
def test_measured_by_name_is_what_can_be(pair: tuple[Tensor, Tensor]) -> None:
    meter = Meter(["ssim_y", "lpips", "dists", "psnr"])
    scores = meter(*pair)
    assert list(scores) == [*meter.names] == ["ssim_y", "psnr"]
    torch.testing.assert_close(scores["ssim_y"], ssim(*pair, protocol=Y))
    assert meter.missing == {
        "lpips": "no weights of AlexNet here, see MRDIFF_LPIPS_WEIGHTS",
        "dists": "no weights of VGG16 here, see MRDIFF_VGG_WEIGHTS",
    }
    assert Meter().names == METRICS[:-1]
    with pytest.raises(ValueError, match="unknown metric 'fid'; known: psnr"):
        Meter(["fid"])  # which is none of a single image
    with pytest.raises(ValueError, match=r"two batches .* of one shape"):
        meter(pair[0], pair[1][..., 1:])


def test_a_border_that_is_cropped_holds_no_window() -> None:
    meter = Meter(["psnr", "ssim", "ssim_y", "sw"], protocol="ir-sde")
    fitting = {13: ["psnr", "ssim", "ssim_y", "sw"], 12: ["psnr", "sw"], 3: ["psnr"], 2: []}
    for side, wanted in fitting.items():
        image = torch.rand(1, 3, side, side)
        assert list(meter(image, image)) == wanted


# ---- LPIPS -------------------------------------------------------------------------------------


def test_lpips_equals_the_reference(shared: Path) -> None:
    meter = Meter(["lpips"], lpips_weights=shared / "lpips" / "alexnet-features.pth")
    golden = json.loads((shared / "lpips" / "golden.json").read_text())
    for name, expected in golden.items():
        lq = shared / "data" / "paired" / name
        (gt,) = (lq.parents[1] / "GT").glob(f"{lq.stem}.*")
        a, b = (
            torch.from_numpy(np.asarray(Image.open(file).convert("RGB")) / np.float32(255))
            for file in (lq, gt)
        )
        scores = meter(a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None])
        assert float(scores["lpips"]) == pytest.approx(expected, abs=1e-4), name


def test_lpips_of_a_batch_and_of_itself(tmp_path: Path) -> None:
    file = write_random_features(tmp_path / "alexnet.pth", ALEXNET)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    network = LPIPS.from_file(file)
    assert torch.equal(torch.get_rng_state(), before)  # training repeats with and without LPIPS
    assert not any(parameter.requires_grad for parameter in network.parameters())
    a, b = torch.rand(2, 3, 40, 37), torch.rand(2, 3, 40, 37)
    together = network(a, b)
    assert together.shape == (2,)
    assert (together > 0).all()
    torch.testing.assert_close(together[1:], network(a[1:], b[1:]))
    torch.testing.assert_close(network(a, a), torch.zeros(2))
    with pytest.raises(ValueError, match="at least 31 px"):
        network(a[..., :30], b[..., :30])
    assert network(a[..., :31, :31], b[..., :31, :31]).isfinite().all()


def test_bad_lpips_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no such file: .*absent\.pth"):
        LPIPS.from_file(tmp_path / "absent.pth")
    broken = tmp_path / "broken.pth"
    broken.write_text("<html>404</html>")
    with pytest.raises(WeightsError, match=r"cannot read weights from .*broken\.pth"):
        LPIPS.from_file(broken)
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(WeightsError, match=r"other\.pth does not hold AlexNet"):
        LPIPS.from_file(other)


@pytest.mark.usefixtures("no_weights")
def test_where_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_lpips_weights = LPIPS.weights.find
    assert find_lpips_weights() is None
    assert LPIPS.find() is None
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_lpips_weights() == cached
    named, explicit = tmp_path / "named.pth", tmp_path / "explicit.pth"
    monkeypatch.setenv("MRDIFF_LPIPS_WEIGHTS", str(named))
    with pytest.raises(WeightsError, match=r"MRDIFF_LPIPS_WEIGHTS: no such file"):
        find_lpips_weights()
    named.touch()
    assert find_lpips_weights() == named
    with pytest.raises(WeightsError, match="no such file"):
        find_lpips_weights(explicit)
    explicit.touch()
    assert find_lpips_weights(str(explicit)) == explicit


def test_protocols_are_named() -> None:
    assert (RGB.name, Y.name) == ("rgb", "y")


def test_sliced_wasserstein_of_a_shift_is_the_shift_along_the_directions() -> None:
    """Every patch moves by the same vector v; a unit direction sees <v, d>."""
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(images, images) == 0
    shifted = sliced_wasserstein(images + 0.1, images, projections=4000)
    assert shifted == pytest.approx(0.1, rel=0.05)  # sqrt(E <v, d>²) = |v| / sqrt(dimension)


def test_sliced_wasserstein_is_blind_to_places_and_sees_blur() -> None:
    images = torch.rand(4, 3, 25, 25, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(images.flip(0), images) < 1e-6
    blurred = torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2)
    assert sliced_wasserstein(blurred, images) > 0.1
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(images[:2], images)
    with pytest.raises(ValueError, match="at least 7 px"):
        sliced_wasserstein(images[..., :5], images[..., :5])


def test_sw_is_of_each_image_by_itself_as_it_is_saved(pair: tuple[Tensor, Tensor]) -> None:
    jitter = 0.4 / 255 * torch.rand(pair[0].shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = pair
    found = Meter(["sw", "psnr"])(ours + jitter, theirs)
    assert list(found) == ["sw", "psnr"]
    each = [
        sliced_wasserstein(a[None], b[None]) for a, b in zip(ours.clamp(0, 1), theirs, strict=True)
    ]
    assert found["sw"].tolist() == pytest.approx(each, rel=1e-5)
    assert each[0] > 2 * each[1] > 0
    assert found["sw"].dtype == torch.float32
    # Of a crowd of patches nothing is lost by turning it upside down but the patches themselves.
    assert float(Meter(["sw"])(theirs, theirs)["sw"].max()) == 0


@pytest.mark.parametrize(
    ("height", "width", "fitting"),
    [
        (192, 192, ["psnr", "ssim", "psnr_y", "ssim_y", "sw", "niqe", "piqe"]),
        (191, 200, ["psnr", "ssim", "psnr_y", "ssim_y", "sw", "piqe"]),
        (64, 10, ["psnr", "psnr_y", "sw"]),
        (7, 7, ["psnr", "psnr_y", "sw"]),
        (6, 64, ["psnr", "psnr_y"]),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_metrics_whose_windows_do_not_fit_are_left_out(
    height: int, width: int, fitting: list[str]
) -> None:
    """And those that are left can be measured."""
    meter = Meter(IMAGE_METRICS)
    assert meter.fitting(height, width) == fitting
    a, b = torch.rand(2, 2, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = meter(a, b)
    assert list(found) == fitting
    assert all(torch.isfinite(scores).all() for scores in found.values())
