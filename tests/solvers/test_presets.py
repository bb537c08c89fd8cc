"""From names and plain options to samplers."""

from __future__ import annotations

from typing import Any

import pytest

import mrdiff
from mrdiff import MRSampler, make_sampler
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.system.names import BASELINES, SAMPLERS


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_name_is_an_option_among_others(name: str) -> None:
    by_name = make_sampler(name, nfe=8, temperature=0.5)
    by_options = make_sampler({"name": name, "nfe": 8, "temperature": 0.5})
    assert isinstance(by_name, BaselineSampler if name in BASELINES else MRSampler)
    assert by_name.options() == by_options.options()
    assert by_name.spec == by_options.spec == {"name": name, "nfe": 8, "temperature": 0.5}


def test_a_preset_goes_by_the_nfe_that_is_asked_for_last() -> None:
    spec = make_sampler("perceptual", nfe=5).spec
    assert spec == {"name": "perceptual", "nfe": 5}
    grids = {nfe: make_sampler(spec, nfe=nfe).options()["grid"] for nfe in (4, 5, 10)}
    assert grids == {4: "uniform_angle", 5: "power(1.25)", 10: "uniform_t"}


def test_options_change_a_preset_and_arguments_change_both() -> None:
    sampler = make_sampler({"name": "fidelity", "order": 3, "grid": "karras"}, nfe=7, grid="power")
    own = {"nfe": 7, "order": 3, "grid": "power", "temperature": 0.0, "average": True}
    assert sampler.options() == MRSampler(**own).options()
    plain = make_sampler({"order": 3, "nfe": 2}, temperature=0.5)
    assert plain.options() == MRSampler(nfe=2, order=3, temperature=0.5).options()
    assert plain.spec is None


def test_nothing_given_is_mr_ode_2_at_5() -> None:
    assert mrdiff.make_sampler().options() == MRSampler(nfe=5, order=2).options()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dpm", "unknown sampler 'dpm'"),
        ({"name": "dpm"}, "unknown sampler 'dpm'"),
        ({"steps": 5}, "steps"),
        ({"name": "posterior", "order": 2}, "order"),
        (
            {"name": "posterior", "grid": "karras"},
            "a grid is for the mr samplers, not for posterior",
        ),
        ({"name": "fidelity", "nfe": "many"}, "sampler options"),
        ({"nfe": 0}, "nfe must be at least 1"),
        ({"nfe": True}, "nfe must be a whole number"),
        ({"nfe": float("nan")}, "nfe must be a whole number"),
    ],
)
def test_what_makes_no_sampler_is_a_value_error(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sampler(spec)
