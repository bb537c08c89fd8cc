"""FID and KID against closed forms, scipy and torchmetrics, and the features they compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from mrdiff.metrics import Features, WeightsError, frechet_distance, kernel_distance
from mrdiff.metrics.sets import DISTANCES
from mrdiff.system.names import BACKBONES
from tests.places import ROOT
from tests.random_weights import ALEXNET, VGG16, random_inception, write_random_features

GOLDEN = json.loads((ROOT / "tests/data/networks/inception.json").read_text())


def drawn(count: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed)).double()


def white(count: int, columns: int) -> Tensor:
    """Features whose mean is 0 and whose covariance is the identity, exactly."""
    values = drawn(count, columns)
    values = values - values.mean(dim=0)
    return values @ torch.linalg.inv(torch.linalg.cholesky(values.T.cov()).T)


def test_fid_of_gaussians_is_its_closed_form() -> None:
    """|m - n|² + sum (s - t)² for covariances that are diagonal."""
    sample = white(50, 6)
    first, second = torch.linspace(1, 2, 6).double(), torch.linspace(3, 0, 6).double()
    shift = torch.linspace(-1, 1, 6).double()
    expected = float(shift.square().sum() + (first - second).square().sum())
    found = frechet_distance(sample * first, sample * second + shift)
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("counts", [(60, 40), (12, 40), (12, 9)])
def test_fid_is_that_of_scipy_and_torchmetrics(counts: tuple[int, int]) -> None:
    """With covariances of full rank and without."""
    columns = 16
    mix = drawn(columns, columns, seed=2)
    a, b = drawn(counts[0], columns) @ mix, drawn(counts[1], columns, seed=1) + 0.5
    means, covariances = zip(*((x.mean(dim=0), x.T.cov()) for x in (a, b)), strict=True)
    root = sqrtm((covariances[0] @ covariances[1]).numpy()).real
    spread = covariances[0].trace() + covariances[1].trace() - 2 * np.trace(root)
    expected = float((means[0] - means[1]).square().sum() + spread)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    library = float(_compute_fid(means[0], covariances[0], means[1], covariances[1]))
    assert frechet_distance(a, b) == pytest.approx(library, rel=1e-5)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


@pytest.mark.parametrize("count", [2, 30, 700])
def test_equal_sets_are_at_no_distance(count: int) -> None:
    """Of fewer images than features, too, which torchmetrics' roots of eigenvalues get wrong."""
    features = 10 * drawn(count, 512) + 3
    spread = float(features.T.cov().trace())
    assert 0 <= frechet_distance(features.float(), features.float().flip(0)) < 1e-12 * spread
    other = frechet_distance(features, 10 * drawn(count, 512, seed=1))
    assert 512 < other < 1e6


def test_kid_is_its_formula() -> None:
    a, b = drawn(7, 4), drawn(7, 4, seed=1) + 1
    kernel = lambda x, y: (float(x @ y) / 4 + 1) ** 3  # noqa: E731
    within = [
        sum(kernel(x, y) for i, x in enumerate(f) for j, y in enumerate(f) if i != j) / 42
        for f in (a, b)
    ]
    between = sum(kernel(x, y) for x in a for y in b) / 49
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * between, rel=1e-12)
    assert kernel_distance(a.flip(0), b) == pytest.approx(kernel_distance(a, b), rel=1e-12)


def test_kid_of_many_is_the_mean_over_subsets() -> None:
    a, b = drawn(300, 4), drawn(200, 4, seed=1) + 1
    whole = kernel_distance(a[:200], b)
    found = [kernel_distance(a, b, subset=50, subsets=200, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found == pytest.approx([whole] * 3, rel=0.1)
    assert abs(kernel_distance(a[:100], a[100:200])) < 0.05 * whole  # without bias, it may be < 0


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_what_is_no_set_of_features_is_refused(distance: object) -> None:
    assert callable(distance)
    for a, b in [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))]:
        with pytest.raises(ValueError, match=r"two sets of features \[N, D\] with N >= 2"):
            distance(torch.zeros(a), torch.zeros(b))


@pytest.mark.parametrize("metric", DISTANCES)
def test_of_what_is_not_finite_the_distance_is_not_known(metric: str) -> None:
    """A model may diverge, which must not end its training."""
    features = drawn(5, 8)
    for value in (torch.nan, torch.inf):
        broken = features.clone()
        broken[1, 2] = value
        assert np.isnan(DISTANCES[metric](broken, features))
        assert np.isnan(DISTANCES[metric](features, broken))


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Features:
    file = tmp_path_factory.mktemp("inception") / "weights-inception-2015-12-05-6726825d.pth"
    torch.save(random_inception(GOLDEN["shapes"]), file)
    found = Features.find("inception", file)
    assert found is not None
    return found


def test_inception_is_that_of_torch_fidelity(inception: Features) -> None:
    """With equal weights, smaller and larger than 299 pixels; what it is given has 8 bits."""
    generator = torch.Generator().manual_seed(1)
    for size, expected in GOLDEN["features"].items():
        images = torch.rand(2, 3, *map(int, size.split("x")), generator=generator)
        found = inception(images)
        assert found.shape == (2, 2048)
        torch.testing.assert_close(found[:, ::128], torch.tensor(expected), rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(inception((255 * images).round() / 255), found)


def test_inception_takes_no_nan_for_black(inception: Features) -> None:
    images = torch.full((2, 3, 4, 4), 0.2)
    images[1, 0, 0, 0] = torch.nan
    found = inception(images)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def test_other_inceptions_are_refused(tmp_path: Path) -> None:
    """torchvision's has the same layers, and a layer may be missing or of another shape."""
    state = random_inception(GOLDEN["shapes"])
    layer = "Mixed_6c.branch7x7_2"
    short = {key: value for key, value in state.items() if not key.startswith(layer)}
    wide = state | {f"{layer}.conv.weight": torch.zeros(160, 128, 1, 7)}
    for other in (state | {"fc.bias": torch.zeros(1000)}, short, wide, {"fc.bias": torch.ones(1)}):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match=r"other\.pth does not hold the features of incep"):
            Features.find("inception", tmp_path / "other.pth")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of torch hub, with none of this machine's weights."""
    for name in ("LPIPS", "VGG", "INCEPTION"):
        monkeypatch.delenv(f"MRDIFF_{name}_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_the_backbone_is_the_first_that_can_be_had(weights: Path) -> None:
    assert Features.find() is None
    assert [Features.find(name) for name in BACKBONES] == [None] * 3
    write_random_features(weights / "alexnet-owt-7be5be79.pth", ALEXNET)
    first = Features.find()
    write_random_features(weights / "vgg16-397923af.pth", VGG16)
    second = Features.find()
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("alexnet", "vgg16")
    images = torch.rand(3, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    assert first(images).shape == (3, 256)
    assert second(images).shape == (3, 512)
    again = Features.find("alexnet", weights / "alexnet-owt-7be5be79.pth")
    assert again is not None
    shown = (images * 255).round() / 255
    torch.testing.assert_close(again(shown + 1e-3)[1:], first(shown[1:]))
    with pytest.raises(ValueError, match="alexnet needs at least 31 px"):
        first(images[..., :30])


def test_bad_backbones_are_named(weights: Path) -> None:
    with pytest.raises(ValueError, match="unknown backbone 'resnet'; known: inception, vgg16"):
        Features.find("resnet")
    with pytest.raises(ValueError, match="needs the name of its backbone"):
        Features.find(file=weights / "some.pth")
    with pytest.raises(WeightsError, match="no such file"):
        Features.find("vgg16", weights / "absent.pth")
    file = write_random_features(weights / "other.pth", ALEXNET)
    with pytest.raises(WeightsError, match=r"other\.pth does not hold the features of vgg16"):
        Features.find("vgg16", file)
    with pytest.raises(WeightsError, match=r"other\.pth does not hold the features of inception"):
        Features.find("inception", file)
