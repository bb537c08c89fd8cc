"""DISTS against torchmetrics' own, which needs torchvision, and its properties.

With torchvision's VGG16 weights it has, to four digits, the published values: 0.3347 of r0.png and
r1.png of the authors' repository, and of the five pairs of TID2013 by which IQA-PyTorch is
calibrated 0.4742, 0.1424, 0.0682, 0.0287 and 0.3123.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchmetrics.functional.image.dists as theirs
from torch import Tensor, nn

from mrdiff.metrics import DISTS, Meter, WeightsError
from tests.random_weights import VGG16, random_features, write_random_features


def torchvisions_vgg16(state: dict[str, Tensor]) -> nn.Sequential:
    """Its ``features``: 13 convolutions of 3 x 3, ReLU behind each, five poolings."""
    layers: list[nn.Module] = []
    for index, (outputs, inputs, *_) in VGG16.items():
        if len(layers) < index:
            layers.append(nn.MaxPool2d(2, 2))
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers, nn.MaxPool2d(2, 2))
    network.load_state_dict(
        {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    )
    return network


def reference(state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network of torchmetrics with these weights."""
    vgg = SimpleNamespace(features=torchvisions_vgg16(state))
    monkeypatch.setattr(theirs, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(theirs, "vgg16", lambda weights: vgg, raising=False)
    monkeypatch.setattr(theirs, "VGG16_Weights", SimpleNamespace(DEFAULT=None), raising=False)
    return theirs.DISTSNetwork().eval()


def pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, height // 8, width // 8, generator=generator)
    truth = nn.functional.interpolate(truth, (height, width), mode="bicubic").clamp(0, 1)
    noise = torch.randn(truth.shape, generator=generator)
    return (truth + torch.tensor([0.02, 0.2]).view(2, 1, 1, 1) * noise).clamp(0, 1), truth


@pytest.mark.parametrize("weights", ["random", "real"])
@pytest.mark.parametrize("size", [(64, 72), (61, 47)])
def test_it_is_that_of_torchmetrics(
    weights: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = DISTS.weights.find() if weights == "real" else None
    if weights == "real" and file is None:
        pytest.skip("needs VGG16's weights, see docs/metrics.md")
    file = file or write_random_features(tmp_path / "vgg.pth", VGG16)
    restored, truth = pair(*size)
    expected = reference(torch.load(file, weights_only=True), monkeypatch)(restored, truth)
    found = DISTS.from_file(file)(restored, truth)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)
    assert 0 < found[0] < found[1]


@pytest.fixture(scope="module")
def network() -> DISTS:
    learned = {"alpha": torch.full((1, 1475, 1, 1), 2.0), "beta": torch.ones(1, 1475, 1, 1)}
    return DISTS(random_features(VGG16), learned)


def test_it_is_a_distance_of_what_images_look_like(network: DISTS) -> None:
    restored, truth = pair(40, 48)
    torch.testing.assert_close(network(truth, truth), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(network(restored, truth), network(truth, restored))
    torch.testing.assert_close(network(restored, truth)[1:], network(restored[1:], truth[1:]))
    noise = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    grey = torch.full_like(noise[0], 0.5)
    assert network(*noise) < 0.5 * network(grey, noise[0])  # other grains of the same texture
    with pytest.raises(ValueError, match="DISTS needs two"):
        network(truth, truth[..., 1:])


def test_its_weights_are_a_file(tmp_path: Path) -> None:
    file = write_random_features(tmp_path / "vgg.pth", VGG16)
    meter = Meter(["dists"], vgg_weights=file)
    assert meter.names == ("dists",)
    restored, truth = pair(40, 48)
    assert meter(restored, truth)["dists"].shape == (2,)
    wrong = tmp_path / "wrong.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, wrong)
    with pytest.raises(WeightsError, match=r"wrong\.pth does not hold VGG16's `features"):
        Meter(["dists"], vgg_weights=wrong)
    with pytest.raises(WeightsError, match="weights of VGG16: no such file"):
        Meter(["dists"], vgg_weights=tmp_path / "absent.pth")
