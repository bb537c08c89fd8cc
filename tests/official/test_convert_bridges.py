"""Official weights of GOUB and UniDB: IR-SDE's and Refusion's networks on bridges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrdiff import GOUB, MRSampler, TabulatedTheta, UniDB, load_model
from mrdiff.cli.sample import command as sample
from mrdiff.diffusion.path import GaussianPath
from mrdiff.diffusion.schedule import MRSchedule
from tests.networks.test_official import images, small
from tests.official.test_convert import YML as IRSDE_YML
from tests.official.test_convert import refused, run, weights_of, write
from tests.tiny_model import write_pairs

# As the option files of GOUB have it.
YML = IRSDE_YML.replace("max_sigma: 10", "lambda_square: 30")
FLAGS = ("--max_sigma", "30", "--steps", "100", "--schedule", "cosine", "--eps", "0.005")
SCHEDULE = TabulatedTheta.irsde("cosine", steps=100, eps=0.005)
START = 0.99  # the official networks have not seen T = 100
GIVEN = ("--path", "unidb", *FLAGS, "--gamma", "1e6")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("goub.yml").write_text(YML, encoding="utf-8")
    Path("unidb.yml").write_text(YML.replace("  T: 100", "  T: 100\n  gamma: 1e6"))


@pytest.mark.parametrize("kind", ["irsde", "refusion"])
@pytest.mark.parametrize(
    ("flags", "process"),
    [
        (("--path", "goub", *FLAGS), GOUB(SCHEDULE, 30 / 255, START)),
        (GIVEN, UniDB(SCHEDULE, 30 / 255, START, gamma=1e6)),
    ],
)
@torch.no_grad()
def test_a_converted_bridge_restores(
    kind: str, flags: tuple[str, ...], process: GaussianPath
) -> None:
    source = small(kind)
    write({f"module.{key}": value for key, value in source.state_dict().items()})
    assert run(kind, *flags) == 0
    loaded = load_model("out", "cpu")
    assert loaded.process == process
    x, mu = images(24, 37, 2)
    t = torch.tensor([0.03, 0.99])
    assert torch.equal(
        loaded.network(x, mu, t), source.to(memory_format=torch.channels_last)(x, mu, t)
    )
    for nfe in (2, 3):
        restored = MRSampler(nfe=nfe)(loaded, mu, torch.Generator().manual_seed(0))
        assert restored.shape == mu.shape
        assert restored.isfinite().all()
    write_pairs(Path(), ["photo.png"])
    given = ["--checkpoint", "out", "--input", "lq/photo.png", "--output", "restored"]
    given += ["--nfe", "2", "--device", "cpu"]
    assert sample.main(given, program="sample.py") == 0
    assert Path("restored/photo.png").stat().st_size > 0


def test_the_files_of_goub_call_the_noise_lambda_square(capsys) -> None:
    write(weights_of("irsde"))
    assert run("irsde", "--path", "goub", "--yml", "goub.yml") == 0
    assert load_model("out", "cpu").process == GOUB(SCHEDULE, 30 / 255, START)
    lines = capsys.readouterr().out.splitlines()
    assert "path       goub (--path)" in lines
    assert "max_sigma  0.117647, 30 grey levels of 255 (goub.yml)" in lines
    assert not any(line.startswith("gamma") for line in lines)


def test_gamma_is_in_the_file_or_a_flag(capsys) -> None:
    write(weights_of("irsde"))
    assert run("irsde", "--path", "unidb", "--yml", "unidb.yml") == 0
    assert load_model("out", "cpu").process == UniDB(SCHEDULE, 30 / 255, START, gamma=1e6)
    assert "gamma      1e+06 (unidb.yml)" in capsys.readouterr().out.splitlines()
    flags = ("--path", "unidb", "--yml", "unidb.yml", "--gamma", "1e8")
    assert run("irsde", *flags, out="other") == 0
    assert load_model("other", "cpu").process == UniDB(SCHEDULE, 30 / 255, START, gamma=1e8)
    assert "gamma      1e+08 (--gamma)" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("flags", "said", "status"),
    [
        (("--path", "unidb", "--yml", "goub.yml"), "give --gamma (goub.yml does not say it)", 2),
        (("--path", "goub", "--yml", "other.yml"), "give --max_sigma (other.yml does not", 2),
        (("--path", "goub", *FLAGS, "--gamma", "1"), "--gamma goes with --path unidb alone", 2),
        ((*FLAGS, "--gamma", "1"), "--gamma goes with --path unidb alone", 2),
        ((*GIVEN, "--gamma", "0"), "--gamma: must be above 0, at most 1e12, got 0", 2),
        (("--path", "gaub", *FLAGS), "unknown path gaub (did you mean goub?)", 2),
        (("--yml", "goub.yml"), "so it is of another path than mr: give --path goub or", 1),
        (("--yml", "unidb.yml", *FLAGS), "sde.gamma, so it is of another path than mr", 1),
        (("--path", "goub", "--yml", "unidb.yml"), "than goub: give --path unidb", 1),
    ],
)
def test_nothing_is_guessed(capsys, flags: tuple[str, ...], said: str, status: int) -> None:
    Path("other.yml").write_text(YML.replace("lambda_square", "max_sigma"))
    write(weights_of("irsde"))
    assert said in refused(capsys, "irsde", *flags, status=status)


def official_tables(kind: str, steps: int, eps: float, level: float) -> tuple[Any, Any, Any]:
    """m, n and f_sigma of GOUB's code at its times 0 to T, float64.

    x_t = m x0 + n mu + f_sigma eps, n being written as there: not as 1 - m.
    """
    match kind:
        case "constant":
            theta = np.ones(steps + 1)
        case "linear":
            theta = np.linspace(0.1, 20, steps + 1) / (steps + 1)
        case _:
            angle = (np.arange(steps + 3) / (steps + 2) + 0.008) / 1.008 * math.pi / 2
            theta = 1 - (np.cos(angle) ** 2 / math.cos(angle[0]) ** 2)[1:-1]
    summed = np.cumsum(theta) - theta[0]
    passed = summed * (-math.log(eps) / summed[-1])
    left = passed[-1] - passed
    before, after = (level**2 * (1 - np.exp(-2 * part)) for part in (passed, left))
    m = np.exp(-passed) * after / before[-1]
    n = ((1 - np.exp(-passed)) * after + np.exp(-2 * left) * before) / before[-1]
    return m, n, np.sqrt(before * after / before[-1])


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("steps", "eps"), [(100, 0.005), (20, 0.01)])
def test_the_path_is_the_official_one_at_its_times(kind: Any, steps: int, eps: float) -> None:
    schedule: MRSchedule = TabulatedTheta.irsde(kind, steps=steps, eps=eps, keep_first=False)
    path = GOUB(schedule, 30 / 255)
    m, n, f_sigma = map(torch.from_numpy, official_tables(kind, steps, eps, 30 / 255))
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha, sigma = path.shares(t)
    torch.testing.assert_close(alpha, m, rtol=0, atol=1e-10)
    # The shares are never quite 0 at the end, where nothing may be divided by them.
    torch.testing.assert_close(sigma[:-1], f_sigma[:-1], rtol=0, atol=1e-10)
    assert 0 < sigma[-1] < 1e-6
    # An image of ones that degrades to ones stays one: the centre is mu, and m + n is 1.
    one, none = torch.ones(steps + 1, 1, 1, 1, dtype=torch.float64), torch.zeros(1)
    clean, wrong = path.marginal(one, 0 * one, t, none), path.marginal(0 * one, one, t, none)
    torch.testing.assert_close(clean.flatten(), m, rtol=0, atol=1e-10)
    torch.testing.assert_close(wrong.flatten(), n, rtol=0, atol=1e-10)


def test_the_price_of_unidb_makes_less_and_less_of_a_difference() -> None:
    """From GOUB, whose sigma the official code of UniDB has, by about 1 / (gamma sigma_max²)."""
    goub, t = GOUB(SCHEDULE, 30 / 255), torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    for gamma in (1e5, 1e7):
        ours = UniDB(SCHEDULE, 30 / 255, gamma=gamma)
        gap = float((ours.sigma(t) / goub.sigma(t) - 1).abs().max())
        assert 0.1 < gap * gamma * goub.sigma_max**2 < 10
