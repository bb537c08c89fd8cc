"""Trajectories: what is recorded, what the strip shows, and the geometry of the principal plane."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mrdiff import BrownianBridge
from mrdiff.cli.sample import trajectory
from mrdiff.cli.sample.trajectory import (
    Trajectory,
    compared_samplers,
    record,
    strip,
    write_trajectory,
)
from mrdiff.cli.sample.trajectory_plane import Plane, pca_figure
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.process import MRProcess
from mrdiff.networks.unet import UNet
from mrdiff.photo import PhotoError, read_rgb
from mrdiff.photo.sheets import GAP, fitted
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.corrections import AveragedDenoiser
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import EVIDENCE, make_sampler
from mrdiff.solvers.sampler import MRSampler
from mrdiff.system.names import SAMPLERS
from tests.oracles import GaussianOracle

MR_NAMES = [name for name in SAMPLERS if isinstance(make_sampler(name, nfe=1), MRSampler)]


def oracle() -> GaussianOracle:
    return GaussianOracle(MRProcess())


def photo(height: int = 12, width: int = 16) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


def follow(name: str, nfe: int = 4) -> Trajectory:
    return record(oracle(), make_sampler(name, nfe=nfe), photo(), named_noise(0, ["a"]))


@pytest.fixture
def restorer() -> Restorer:
    """A tiny network with random weights."""
    torch.manual_seed(0)
    network = UNet(widths=(4, 8), encoder=(1,), middle=1, decoder=(1,), time_width=8)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Restorer(Denoiser(network, MRProcess(), Parameterization.named("data")).eval(), nfe=2)


def same_line(line, points: np.ndarray) -> bool:
    return line.get_xydata().shape == points.shape and np.allclose(line.get_xydata(), points)


# What is recorded


@pytest.mark.parametrize("name", MR_NAMES)
def test_the_times_are_the_grid_and_the_last_prediction_is_the_end(name: str) -> None:
    for nfe in (1, 4):
        sampler = make_sampler(name, nfe=nfe)
        assert isinstance(sampler, MRSampler)
        way = follow(name, nfe)
        assert way.times == sampler.times(MRProcess())[:-1].tolist()
        assert way.states.shape == way.predictions.shape == (nfe, 3, 12, 16)
        torch.testing.assert_close(way.predictions[-1], way.end, atol=1e-6, rtol=0)
        assert torch.equal(way.path[-1], way.end)


@pytest.mark.parametrize("name", SAMPLERS)
def test_recording_starts_at_the_prior_and_changes_nothing(name: str) -> None:
    sampler, mu, noise = make_sampler(name, nfe=4), photo(), named_noise(0, ["a"])
    way = record(oracle(), sampler, mu, noise)
    prior = MRProcess().prior(mu, sampler.temperature * noise(0, (1, *mu.shape))[0])
    torch.testing.assert_close(way.states[0], prior, atol=1e-6, rtol=0)
    assert torch.equal(way.end, sampler(oracle(), mu[None], noise)[0])
    assert len(way.times) == 4
    # The predictions are those that the sampler goes on with.
    denoiser = AveragedDenoiser(oracle()) if getattr(sampler, "average", False) else oracle()
    for t, state, prediction in zip(way.times, way.states, way.predictions, strict=True):
        expected = denoiser(state, torch.tensor(t), mu).x0
        torch.testing.assert_close(prediction, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_of_many_calls_an_even_part_is_kept(name: str) -> None:
    sampler, mu, noise = make_sampler(name, nfe=40), photo(), named_noise(0, ["a"])
    whole = record(oracle(), sampler, mu, noise)
    part = record(oracle(), sampler, mu, noise, most=16, predicted=False)
    assert (len(whole.times), len(part.times)) == (40, 16)
    places = [round(i * 39 / 15) for i in range(16)]
    assert part.times == [whole.times[i] for i in places]
    assert torch.equal(part.states, whole.states[places])
    assert torch.equal(part.end, whole.end)
    assert part.path.shape == (17, 3, 12, 16)
    assert part.predictions.shape == (0, 3, 12, 16)


# The strip


def panels(picture: Tensor, width: int, height: int) -> list[list[Tensor]]:
    """The two rows of panels, without their labels."""
    pitch, label = width + GAP, trajectory._LABEL
    columns = (picture.shape[-1] + GAP) // pitch
    tops = (label, 2 * label + height)
    return [
        [picture[:, top : top + height, i * pitch : i * pitch + width] for i in range(columns)]
        for top in tops
    ]


def test_the_strip_holds_states_over_predictions_and_the_result() -> None:
    way, mu = follow("mr-ode-2"), photo()
    picture = strip(way, beside=("degraded", mu), side=16)
    assert picture.shape == (3, 2 * (34 + 12), 5 * 16 + 4 * 8)
    upper, lower = panels(picture, 16, 12)
    for shown, image in zip(upper, way.path, strict=True):
        assert torch.equal(shown, image.clamp(0, 1))
    for shown, image in zip(lower, [*way.predictions, mu], strict=True):
        assert torch.equal(shown, image.clamp(0, 1))
    assert way.states.max() > 1  # clipped for display, not in the record


def test_labels_are_over_every_panel() -> None:
    picture = strip(follow("mr-ode-2"), beside=("degraded", photo()))
    assert picture.shape == (3, 2 * (34 + 192), 5 * 256 + 4 * 8)  # enlarged sixteen times
    for top, i in itertools.product((0, 34 + 192), range(5)):
        label = picture[:, top : top + 34, i * 264 : i * 264 + 256]
        assert label.min() < 0.5  # letters
        assert label[..., 0].min() == 1  # that fit


def test_wide_photos_are_shrunk_and_long_ways_thinned() -> None:
    images = torch.arange(20.0).div(20).reshape(20, 1, 1, 1).expand(20, 3, 30, 40)
    way = Trajectory(torch.linspace(1, 0.1, 20).tolist(), images, 1 - images, images[-1])
    picture = strip(way, beside=("x", images[0]), side=20, columns=4)
    upper, lower = panels(picture, 20, 15)
    assert [round(float(shown.mean()) * 20) for shown in upper] == [0, 6, 13, 19, 19]
    assert [round(float(shown.mean()) * 20) for shown in lower] == [20, 14, 7, 1, 0]
    fine = ((torch.arange(120) + 1) // 3 % 2).float().expand(3, 90, 120)
    shrunk = fitted(fine, least=20, most=20)[..., 2:-2]
    assert (shrunk - 0.5).abs().max() < 0.1  # antialiased: stripes of half a pixel become grey


# The plane


def gaussian(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_components_are_those_of_a_full_decomposition() -> None:
    images = gaussian(9, 3, 8, 10)
    plane, flat = Plane.through(images), images.flatten(1).double()
    _, s, v = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    shares = s.square() / s.square().sum()
    assert plane.shares == pytest.approx(shares[:2].tolist(), rel=1e-5)
    assert plane.shares[0] >= plane.shares[1]
    assert sum(plane.shares) < 1
    torch.testing.assert_close((plane.axes.double() @ v[:2].T).abs(), torch.eye(2).double())
    scores = plane.project(images)
    variance = np.square(scores / 255).sum() * flat.shape[1] / float(s.square().sum())
    assert variance == pytest.approx(sum(plane.shares), rel=1e-4)


def test_points_of_a_plane_keep_their_distances() -> None:
    places, (one, other) = gaussian(7, 2), torch.linalg.qr(gaussian(300, 2))[0].T
    images = 0.4 + (places[:, :1] * one + places[:, 1:] * other).reshape(7, 3, 10, 10)
    plane = Plane.through(images)
    assert sum(plane.shares) == pytest.approx(1, abs=1e-5)
    shown = torch.from_numpy(plane.project(images)) * (300**0.5 / 255)
    expected = torch.cdist(places.double(), places.double())
    torch.testing.assert_close(torch.cdist(shown, shown), expected, atol=1e-4, rtol=0)


def test_lengths_are_root_mean_squares_in_grey_levels() -> None:
    images = torch.stack([torch.zeros(3, 5, 5), torch.ones(3, 5, 5), torch.full((3, 5, 5), 0.5)])
    shown = Plane.through(images).project(images)
    assert shown[1] - shown[0] == pytest.approx([255, 0], abs=1e-3)


def test_a_straight_path_is_a_line_to_the_right() -> None:
    fractions = torch.tensor([0.0, 0.1, 0.5, 0.8, 1.0]).reshape(5, 1, 1, 1)
    start, end = gaussian(2, 3, 20, 20)
    plane = Plane.through(start + fractions * (end - start))
    assert plane.shares == pytest.approx([1, 0], abs=1e-6)
    shown = plane.project(start + fractions * (end - start))
    assert np.abs(shown[:, 1]).max() < 1e-3 * np.ptp(shown[:, 0])
    steps = (shown[:, 0] - shown[0, 0]) / (shown[-1, 0] - shown[0, 0])
    assert steps == pytest.approx(fractions.flatten().numpy(), abs=1e-5)
    assert shown[-1, 0] > shown[0, 0]


def test_the_long_tail_hangs_down() -> None:
    one, other = torch.linalg.qr(gaussian(300, 2))[0].T.reshape(2, 3, 10, 10)
    for sign in (1, -1):
        path = [0 * one, one + sign * other, 2 * one, 3 * one]
        shown = Plane.through(torch.stack(path)).project(torch.stack(path))
        assert shown[1, 1] == shown[:, 1].min()
        assert shown[0, 0] < shown[-1, 0]


def test_equal_images_are_one_point() -> None:
    images = torch.full((4, 3, 5, 5), 0.3)
    plane = Plane.through(images)
    assert plane.shares == [0, 0]
    assert np.abs(plane.project(images)).max() == 0


# The figure


def drawn(names: list[str], **options) -> tuple[Figure, Plane, dict[str, Trajectory]]:
    ways = {name: follow(name) for name in names}
    plane = Plane.through(torch.cat([way.path for way in ways.values()]))
    return pca_figure({n: way.path for n, way in ways.items()}, **options), plane, ways


def test_the_figure_has_every_path_the_reference_and_the_landmarks() -> None:
    fine, marks = follow("mr-ode-2", 12), {"degraded": photo(), "ground truth": 0.5 * photo()}
    names = ["mr-ode-2", "mr-sde-1", "euler-ode"]
    figure, plane, ways = drawn(names, reference=("fine", fine.path), landmarks=marks)
    (axes,) = figure.axes
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    for name, way in ways.items():
        assert same_line(lines[name], plane.project(way.path))
    assert same_line(lines["fine"], plane.project(fine.path))
    for name, image in marks.items():
        assert same_line(lines[name], plane.project(image[None]))
    start = plane.project(ways["mr-ode-2"].states[:1])
    assert same_line(lines["start of all, t = 1"], start)
    for name in names:
        assert lines[name].get_xydata()[0] == pytest.approx(start[0], abs=1e-3)
    assert len({lines[name].get_color() for name in names}) == 3
    assert len(axes.texts) == 3 * 4  # arrows
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*names, "fine", "start of all, t = 1", *marks]
    assert f"{plane.shares[0]:.0%}" in axes.get_xlabel()
    assert f"{plane.shares[1]:.0%}" in axes.get_ylabel()


def test_one_sampler_of_one_call_is_drawn() -> None:
    figure = pca_figure({"mr-ode-1": follow("mr-ode-1", 1).path})
    assert trajectory._pixels(figure).shape[0] == 3


# Which samplers


@pytest.mark.parametrize("temperature", [None, 0.5])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_own_sampler_comes_first_and_once(name: str, temperature: float | None) -> None:
    own = make_sampler(name, nfe=3, temperature=temperature)
    samplers = compared_samplers(own)
    first, *others = samplers
    assert samplers[first] is own
    assert make_sampler(first, nfe=3, temperature=temperature).options() == own.options()
    assert all(samplers[other].options() != own.options() for other in others)
    assert len(others) >= len(trajectory.COMPARED) - 1
    assert {(each.nfe, each.temperature) for each in samplers.values()} == {(3, own.temperature)}


def test_the_own_sampler_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVIDENCE, "fidelity", {1: {"order": 1, "temperature": 0.0}})
    alike = ["mr-ode-2", "mr-sde-1", "euler-ode", "posterior"]
    own = make_sampler("fidelity", nfe=3)
    assert list(compared_samplers(own)) == ["fidelity", *alike]
    own = make_sampler("mr-ode-1", nfe=3)
    assert list(compared_samplers(own)) == ["mr-ode-1", *alike]


def test_a_sampler_without_a_name_is_this_runs() -> None:
    own = MRSampler(nfe=3, order=4, grid=torch.tensor([1.0, 0.5, 0.2, 0.0]))
    assert list(compared_samplers(own)) == ["this run", *trajectory.COMPARED]


def test_times_as_tensors_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    times = torch.tensor([1.0, 0.5, 0.2, 0.0])
    for kept in ({3: times}, times, times.tolist()):
        monkeypatch.setitem(EVIDENCE, "fidelity", {1: {"order": 1, "grid": kept}})
        for own in ({3: times.clone()}, times.clone(), times.numpy(), times.tolist()):
            alike = isinstance(kept, dict) == isinstance(own, dict)
            samplers = compared_samplers(MRSampler(nfe=3, order=1, grid=own))
            assert next(iter(samplers)) == ("fidelity" if alike else "this run")


# The files


def test_two_pictures_are_written(restorer: Restorer, tmp_path: Path) -> None:
    lq = photo(40, 48)
    folder = tmp_path / "trajectory" / "sub" / "a.b.jpg"
    write_trajectory(restorer, lq, folder, name="a", truth=0.5 * lq)
    assert sorted(path.name for path in folder.iterdir()) == ["pca.png", "strip.png"]
    upper, lower = panels(read_rgb(folder / "strip.png"), 5 * 48, 5 * 40)
    assert len(upper) == 3
    shown = {"result": upper[-1], "truth": lower[-1]}
    restored = restorer.restore(lq[None], ["a"])[0]
    for name, image in {"result": restored, "truth": 0.5 * lq}.items():
        assert (shown[name][:, ::5, ::5] - image).abs().max() < 0.51 / 255, name


def test_a_large_photo_is_followed_in_its_middle_from_its_own_noise(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "CROP", 32)
    lq, kept = photo(80, 40), []
    monkeypatch.setattr(trajectory, "strip", lambda way, **_: kept.append(way) or photo())
    samplers = {"mine": make_sampler("mr-sde-1", nfe=2)}
    write_trajectory(restorer, lq, tmp_path / "a", name="a", samplers=samplers)
    noise = named_noise(0, ["a"])(0, (1, 3, 80, 40))[0]
    expected = MRProcess().prior(lq, noise)[:, 16:48, 0:32]
    torch.testing.assert_close(kept[0].states[0], expected, atol=1e-6, rtol=0)


def test_what_cannot_follow_the_path_of_a_model_is_left_out(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(trajectory, "pca_figure", lambda ways, **_: shown.extend(ways) or Figure())
    bridge = Denoiser(restorer.denoiser.network, BrownianBridge(), Parameterization.named("data"))
    write_trajectory(Restorer(bridge, nfe=2), photo(), tmp_path / "a.png", name="a")
    assert shown == ["mr-ode-2", "mr-ode-1", "mr-sde-1", "posterior"]  # no euler-ode


def test_what_is_kept_does_not_grow_with_the_calls(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Trajectory] = []

    def recording(*arguments, **options) -> Trajectory:
        kept.append(record(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr(trajectory, "record", recording)
    restorer.sampler = make_sampler("mr-ode-2", nfe=60)
    write_trajectory(restorer, photo(), tmp_path / "a.png", name="a")
    assert [len(way.states) for way in kept] == [50, 16, 16, 16, 16, 16]  # the first: the fine one
    assert [len(way.predictions) for way in kept] == [0, 16, 0, 0, 0, 0]


def test_nothing_half_written_on_failure(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "strip.png").write_bytes(b"before")
    monkeypatch.setattr("mrdiff.system.files.os.replace", full)
    with pytest.raises(PhotoError, match="No space left"):
        write_trajectory(restorer, photo(), tmp_path, name="a")
    assert [path.name for path in tmp_path.iterdir()] == ["strip.png"]
    assert (tmp_path / "strip.png").read_bytes() == b"before"
