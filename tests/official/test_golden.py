"""Numbers that the official code returned, where they lie beside the project.

The network of the sampler's runs is the best prediction for pixels x0 ~ N(m0, s0²), of which the
official tables, linear between their entries, are all that it knows of alpha and sigma.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mrdiff import MRProcess, TabulatedTheta
from mrdiff.cli.convert.options import check_network
from mrdiff.official.architecture import NETWORKS, recognise
from mrdiff.official.mars import MarsSampler
from mrdiff.official.mars_tables import OfficialTables, Schedule
from mrdiff.official.weights import OfficialFile
from tests.places import SHARED

GOLDEN = SHARED / "golden"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the official numbers are not beside this checkout"
)
F64 = torch.float64
LEVELS = {"s10": 10 / 255, "s50": 50 / 255}
RUNS = [
    (solver, order, form)
    for solver, orders in (("ode", (1, 2, 3)), ("sde", (1, 2)))
    for order in orders
    for form in ("data", "noise")
]


@cache
def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def interpolated(table: Tensor, raw: float) -> float:
    left = min(max(int(raw), 0), len(table) - 2)
    return float(table[left] + (raw - left) * (table[left + 1] - table[left]))


def best(target: str, level: str) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The network ``(x, mu, raw time) -> target``."""
    tables, toy, top = golden("sampler/schedules"), golden("sampler/toy"), LEVELS[level]
    alpha, sigma = tables["f64.mrs.cosine.alpha"], tables[f"f64.mrs.cosine.{level}.sigma_bars"]
    m0, s0 = toy["m0"].double(), float(toy["s0"])

    def network(x: Tensor, mu: Tensor, raw: float) -> Tensor:
        a, s = interpolated(alpha, raw), interpolated(sigma, raw)
        off = (x - a * m0 - (1 - a) * mu) / (a**2 * s0**2 + s**2)
        x0, eps = m0 + a * s0**2 * off, s * off
        return {"data": x0, "noise": eps, "velocity": top * a * eps - s / top * (x0 - mu)}[target]

    return network


def bank(step: int, shape: Sequence[int]) -> Tensor:
    """The recorded noise: 0 is the prior, i that of the step i."""
    return golden("sampler/toy")["noise_bank"][step].double().reshape(tuple(shape))


def states_of(sampler: MarsSampler, target: Any, level: str) -> Tensor:
    """The state at each network call and the end, ``[calls + 1, 3, 8, 8]``."""
    network, seen = best(target, level), list[Tensor]()

    def keep(x: Tensor, mu: Tensor, raw: float) -> Tensor:
        seen.append(x)
        return network(x, mu, raw)

    mu = golden("sampler/toy")["mu"].double()
    end = sampler.sample_raw(keep, mu, bank, fit_target=target, sigma_max=LEVELS[level])
    return torch.cat([*seen, end])


@pytest.mark.parametrize(("solver", "order", "form"), RUNS)
def test_states_of_the_official_sampler(solver: Any, order: int, form: Any) -> None:
    name = f"{solver}{order}_{form}_f64"
    ends, states = golden(f"sampler/final_{name}"), golden(f"sampler/traj5_{name}")
    tolerance = 1e-10 if (solver, form) == ("sde", "noise") else 1e-12
    assert (len(ends), len(states)) == (108, 36)
    for key, end in ends.items():
        target, times, nfe, level = key.split(".")
        sampler = MarsSampler(
            nfe=int(nfe.removeprefix("nfe")),
            solver=solver,
            order=order,
            parameterization=form,
            time_schedule=times,
            dtype=F64,
            output_range=None,
        )
        ours = states_of(sampler, target, level)
        official = states[f"{key}.states"] if nfe == "nfe5" else end
        np.testing.assert_allclose(
            ours[-len(official) :],
            official,
            rtol=0,
            atol=tolerance * float(official.abs().max()),
            err_msg=key,
        )
        np.testing.assert_array_equal(official[-1], end[0])


def test_grids_of_the_official_sampler() -> None:
    stored = golden("sampler/grids_f64")
    for key in {key.rpartition(".")[0] for key in stored}:
        times, nfe, level = key.split(".")
        count = int(nfe.removeprefix("nfe"))
        grid = MarsSampler(nfe=count, time_schedule=times, dtype=F64).grid(LEVELS[level])
        columns = torch.tensor(grid, dtype=F64).T
        for ours, name in zip(columns, ("timesteps", "alphas", "sigmas", "lambdas"), strict=True):
            torch.testing.assert_close(ours, stored[f"{key}.{name}"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("level", LEVELS)
def test_tables_of_the_official_code(schedule: Schedule, level: str) -> None:
    """The sampler's keep theta[0] in the sum, those of the training do not."""
    stored, t = golden("sampler/schedules"), torch.arange(101, dtype=F64) / 100
    top = LEVELS[level]
    tables = OfficialTables.build(schedule, steps=100, eps=0.005, sigma_max=top, dtype=F64)
    sampling, training = (
        MRProcess(TabulatedTheta.irsde(schedule, keep_first=first), top) for first in (True, False)
    )
    close = torch.testing.assert_close
    for alpha, sigma, log_snr in (
        (tables.alpha, tables.sigma, tables.log_snr),
        (*sampling.shares(t), sampling.log_snr(t)),
    ):
        close(alpha, stored[f"f64.mrs.{schedule}.alpha"], rtol=1e-12, atol=0)
        close(sigma, stored[f"f64.mrs.{schedule}.{level}.sigma_bars"], rtol=1e-12, atol=0)
        close(log_snr, stored[f"f64.mrs.{schedule}.{level}.lambda"], rtol=0, atol=1e-12)
    start = f"f32.irsde.{schedule}"
    alpha, sigma = training.shares(t)
    close(alpha.float(), stored[f"{start}.alpha"], rtol=1e-5, atol=0)
    close(sigma.float(), stored[f"{start}.{level}.sigma_bars"], rtol=1e-5, atol=0)


SMALL = {
    "irsde_unet_nf8_d2": "irsde",
    "nafnet_w8": "refusion",
    "daclip_unet_nf32_m1112": "daclip",
    "daclip_unet_nf32_noctx": "daclip",
}


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_outputs_of_the_official_networks(name: str) -> None:
    weights = {k: v.float() for k, v in golden(f"networks/{name}.weights").items()}
    file = OfficialFile(Path(f"{name}.pth"), weights, ())
    found = recognise(file, SMALL[name])
    described = GOLDEN / "networks" / "small.json"
    config = json.loads(described.read_text(encoding="utf-8"))[name]["config"]
    check_network({"network_G": {"setting": config}}, found.arguments, described)
    network = NETWORKS[found.kind](**found.arguments)
    network.load_state_dict(weights)
    stored = golden(f"networks/{name}.io")
    for case in "abcd":
        x, mu, raw, out = (stored[f"{case}.{part}"] for part in ("x", "cond", "time", "out"))
        context = {
            feature: stored[f"{feature}_context"][: len(x)]
            for feature in ("text", "image")
            if f"{feature}_context" in stored and found.arguments.get(feature)
        }
        t = (raw.double() / 100).expand(len(x))
        close = partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * float(out.abs().max()))
        close(network(x, mu, t, context or None), out, err_msg=case)
        if f"{case}.out_notext" in stored:
            context.pop("text", None)
            close(network(x, mu, t, context or None), stored[f"{case}.out_notext"], err_msg=case)
