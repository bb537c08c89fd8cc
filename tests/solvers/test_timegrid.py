"""Grids of times: what each spaces evenly, and files that hold them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mrdiff import ConstantTheta, GaussianPath, MRProcess, MRSampler
from mrdiff.solvers.gridfile import read_grid, write_grid
from mrdiff.solvers.timegrid import make_times
from mrdiff.system.names import GRIDS
from tests.oracles import PATHS, SCHEDULES

F64 = torch.float64


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("nfe", [1, 2, 5, 100])
def test_every_grid_falls_from_1_to_0(grid: str, name: str, nfe: int) -> None:
    times = make_times(grid, MRProcess(SCHEDULES[name]), nfe)
    assert times.dtype == F64
    assert times.shape == (nfe + 1,)
    assert times[0] == 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()


def test_each_grid_spaces_what_it_says() -> None:
    process = MRProcess()
    inner = {name: make_times(name, process, 6)[:-1] for name in GRIDS}
    steps = {
        "uniform_t": inner["uniform_t"],
        "uniform_log_snr": process.log_snr(inner["uniform_log_snr"]),
        "uniform_angle": torch.arccos(process.alpha(inner["uniform_angle"])),
        "karras": torch.exp(-process.log_snr(inner["karras"]) / 7),
        "power": inner["power"] ** 0.5,
        "leading": inner["leading"][1:],
        "trailing": inner["trailing"],
    }
    for name, values in steps.items():
        gaps = values.diff()
        assert torch.allclose(gaps, gaps[:1].expand_as(gaps), rtol=1e-6), name


def test_power_and_karras_take_rho() -> None:
    process = MRProcess()
    linear = make_times("uniform_t", process, 5)
    assert torch.allclose(make_times("power(1)", process, 5), linear)
    assert torch.allclose(make_times("power(2)", process, 5), linear**2)
    assert torch.equal(make_times("karras(7)", process, 5), make_times("karras", process, 5))
    # A large rho is equal steps of the logarithm.
    near = make_times("karras(1e5)", process, 5)
    assert torch.allclose(near, make_times("uniform_log_snr", process, 5), atol=1e-4)


@pytest.mark.parametrize("scale", [0.03, 0.1, 0.5])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_an_angle_has_the_scale_that_it_is_given(path: GaussianPath, scale: float) -> None:
    times = make_times(f"uniform_angle({scale})", path, 7)
    alpha, sigma = path.shares(times)
    angles = torch.atan2(sigma, scale * alpha)
    gaps = angles.diff()
    torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=1e-6, atol=0)
    # The second of two calls: half-way from where nothing is left to nothing, if the path ends so.
    middle = make_times(f"uniform_angle({scale})", path, 2)[1]
    alpha, sigma = path.shares(middle)
    half = torch.tan(0.5 * (angles[0] + angles[-1]))
    assert float(sigma / alpha) == pytest.approx(float(scale * half), rel=1e-6)
    if float(path.sigma(0.0)) < 1e-3 * scale:
        near = 3 * scale / math.exp(-float(path.log_snr(times[0])))  # of how little is left
        assert float(sigma / alpha) == pytest.approx(scale, rel=near)
        assert near < 0.1 or scale > 0.1


def test_an_angle_of_the_paths_own_scale_has_no_number() -> None:
    process = MRProcess()
    named = make_times(f"uniform_angle({process.scale!r})", process, 5)
    torch.testing.assert_close(named, make_times("uniform_angle", process, 5), rtol=1e-12, atol=0)


def test_leading_and_trailing_differ_from_the_repository_at_one_end_each() -> None:
    """There `leading` starts at nfe/(nfe+1) and `trailing` stops at 1/(nfe+1)."""
    assert make_times("leading", MRProcess(), 3).tolist() == [1.0, 0.5, 0.25, 0.0]
    assert make_times("trailing", MRProcess(), 3).tolist() == [1.0, 0.75, 0.5, 0.0]


@pytest.mark.parametrize(
    "grid",
    [
        "power(0)",
        "power(-1)",
        "power(x)",
        "power(inf)",
        "power(nan)",
        "uniform_angle(0)",
        "uniform_angle(0.1, 2)",
        "uniform_t(2)",
        "leading(2)",
        "karras(",
        "karras()",
        "linear",
        "linear(2)",
    ],
)
def test_bad_names_are_refused_when_the_sampler_is_made(grid: str) -> None:
    with pytest.raises(ValueError, match="grid"):
        MRSampler(nfe=2, grid=grid)


def test_times_by_nfe() -> None:
    grid = {2: [1.0, 0.4, 0.0], 3: [1.0, 0.5, 0.2, 0.0]}
    assert MRSampler(nfe=2, grid=grid).times(MRProcess()).tolist() == grid[2]
    assert MRSampler(nfe=3, grid=grid).times(MRProcess()).tolist() == grid[3]
    with pytest.raises(ValueError, match="no times for nfe=5, only for 2, 3"):
        MRSampler(nfe=5, grid=grid).times(MRProcess())


def test_a_grid_file_comes_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "grid.yaml"
    times = {3: [1.0, 1 / 3, 0.1, 0.0], 2: [1.0, 2 / 7, 0.0]}
    write_grid(path, times, MRProcess(), made={"images": 8})
    assert MRSampler(nfe=3, grid=str(path)).times(MRProcess()).tolist() == times[3]
    assert dict(read_grid(path).made) == {"images": 8}
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_grid_file_is_read_once_when_the_sampler_is_made(tmp_path: Path) -> None:
    path, process = tmp_path / "grid.yaml", MRProcess()
    write_grid(path, {2: [1.0, 0.5, 0.0]}, process, made={})
    sampler = MRSampler(nfe=2, grid=path)
    write_grid(path, {2: [1.0, 0.25, 0.0]}, process, made={})
    assert MRSampler(nfe=2, grid=path).times(process).tolist() == [1.0, 0.25, 0.0]
    path.unlink()
    assert sampler.times(process).tolist() == [1.0, 0.5, 0.0]
    assert sampler.options()["grid"] == str(path)


def test_a_grid_file_of_another_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    write_grid(path, {2: [1.0, 0.5, 0.0]}, MRProcess(), made={})
    other = MRProcess(ConstantTheta())
    with pytest.raises(ValueError, match=r"grid\.yaml: .*CosineTheta.*ConstantTheta"):
        MRSampler(nfe=2, grid=str(path)).times(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("process: {}\ntimes: {2: [1, 0.5]}", "nfe \\+ 1 times"),
        ("process: {}\ntimes: {}", "nfe \\+ 1 times"),
        ("process: {}\ntimes: {2: [1, a, 0]}", "are numbers"),
        ("process: {}\ntimes: {2: [1, 1.2, 0]}", "nfe=2 must fall from 1 to 0"),
        ("times: {2: [1, 0.5, 0]}", "not a grid file: its keys must be times, process"),
        ("made: 2001-99-99", "not readable YAML"),
        ("other: 1", "not a grid file"),
        ("- 1", "not a grid file"),
        ("{", "not readable YAML"),
    ],
)
def test_bad_grid_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bad.yaml.*{message}"):
        MRSampler(nfe=2, grid=str(path)).times(MRProcess())


def test_a_grid_file_without_this_nfe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    write_grid(path, {2: [1.0, 0.5, 0.0]}, MRProcess(), made={})
    with pytest.raises(ValueError, match=r"grid\.yaml has no times for nfe=5, only for 2"):
        MRSampler(nfe=5, grid=path).times(MRProcess())
    assert MRSampler(nfe=2, grid=path).times(MRProcess()).tolist() == [1.0, 0.5, 0.0]


def test_a_small_rho_does_not_overflow() -> None:
    times = make_times("karras(0.01)", MRProcess(), 4)
    assert torch.isfinite(times).all()


def test_a_missing_grid_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: No such file"):
        MRSampler(nfe=2, grid=str(tmp_path / "none.yaml")).times(MRProcess())
