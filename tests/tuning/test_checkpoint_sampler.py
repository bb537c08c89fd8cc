"""The sampler in a checkpoint, and which one is used when several are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mrdiff import MRDiffusion, MRProcess, MRSampler, Restorer, load_model, make_sampler
from mrdiff.checkpoints.export import export_model
from mrdiff.checkpoints.reading import open_checkpoint
from mrdiff.networks import UNet
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.gridfile import write_grid
from mrdiff.solvers.timegrid import uniform_t
from mrdiff.tuning.checkpoint_sampler import (
    describe_sampler,
    read_sampler,
    save_sampler,
)
from tests.tiny_model import write_tiny_checkpoint

OPTIONS = {"nfe": 3, "order": 1, "eta": 1.0, "grid": [1.0, 0.5, 0.25, 0.0], "temperature": 0.5}


@pytest.fixture(params=["ckpt", "export"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    if request.param == "ckpt":
        return file
    export_model(file, tmp_path / "exported")
    return tmp_path / "exported"


def test_a_saved_sampler_is_the_default_and_all_else_stays(checkpoint: Path) -> None:
    before = load_model(checkpoint, "cpu").state_dict()
    assert read_sampler(checkpoint) is None
    assert Restorer.from_checkpoint(checkpoint, device="cpu").sampler.nfe == 5
    save_sampler(checkpoint, OPTIONS)
    assert read_sampler(checkpoint) == OPTIONS
    sampler = Restorer.from_checkpoint(checkpoint, device="cpu").sampler
    assert isinstance(sampler, MRSampler)
    assert {key: sampler.options()[key] for key in OPTIONS} == OPTIONS
    after = load_model(checkpoint, "cpu").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    if checkpoint.is_file():
        assert torch.load(checkpoint, weights_only=True)["global_step"] == 7
    assert list(checkpoint.parent.rglob("*.tmp")) == []


def test_the_command_line_comes_before_the_checkpoint(checkpoint: Path) -> None:
    save_sampler(checkpoint, {"name": "posterior", "nfe": 4})
    load = lambda **given: Restorer.from_checkpoint(checkpoint, device="cpu", **given).sampler  # noqa: E731
    stored = load(temperature=0.5)
    assert isinstance(stored, BaselineSampler)
    assert (stored.nfe, stored.temperature) == (4, 0.5)
    assert load(nfe=2).nfe == 2
    named = load(sampler="mr-sde-2", grid="power(2)")
    assert isinstance(named, MRSampler)
    assert (named.nfe, named.order, named.eta, named.grid) == (5, 2, 1.0, "power(2)")
    with pytest.raises(ValueError, match="grid is for the mr samplers"):
        load(grid="power(2)")


def test_a_preset_in_a_checkpoint_goes_by_the_nfe_that_is_asked_for(checkpoint: Path) -> None:
    save_sampler(checkpoint, {"name": "perceptual", "nfe": 5})
    for nfe, grid in {None: "power(1.25)", 10: "uniform_t"}.items():
        sampler = Restorer.from_checkpoint(checkpoint, device="cpu", nfe=nfe).sampler
        assert sampler.options()["grid"] == grid


def test_a_training_writes_the_name_of_its_sampler() -> None:
    for sampler, written in (
        (make_sampler("fidelity", nfe=5), {"name": "fidelity", "nfe": 5}),
        (make_sampler("posterior", nfe=9), {"name": "posterior", "nfe": 9}),
        (MRSampler(nfe=2, grid={2: [1.0, 0.5, 0.0]}), {"nfe": 2, "grid": {2: [1.0, 0.5, 0.0]}}),
    ):
        content: dict = {}
        MRDiffusion(UNet(), sampler=sampler).on_save_checkpoint(content)
        assert content["mrdiff"]["sampler"] == describe_sampler(sampler)
        assert written.items() <= content["mrdiff"]["sampler"].items()


def test_an_opened_checkpoint_is_not_opened_again(checkpoint: Path) -> None:
    save_sampler(checkpoint, OPTIONS)
    opened = open_checkpoint(checkpoint)
    save_sampler(checkpoint, {"name": "posterior", "nfe": 4})
    assert read_sampler(opened) == OPTIONS


def test_an_export_takes_the_sampler_along(tmp_path: Path, checkpoint: Path) -> None:
    save_sampler(checkpoint, OPTIONS)
    export_model(checkpoint, tmp_path / "again")
    assert read_sampler(tmp_path / "again") == OPTIONS


def test_saved_times_do_not_serve_another_nfe(checkpoint: Path) -> None:
    save_sampler(checkpoint, OPTIONS)
    with pytest.raises(ValueError, match=r"the sampler in it does not fit .*nfe=5 has 6 times"):
        Restorer.from_checkpoint(checkpoint, device="cpu", nfe=5)


@pytest.mark.parametrize(
    "options", [{"nfe": 0}, {"order": 9}, {"name": "nothing", "nfe": 5}, {"steps": 5}]
)
def test_options_that_make_no_sampler_are_not_saved(checkpoint: Path, options: dict) -> None:
    with pytest.raises(ValueError, match=r"nfe|order|unknown sampler|steps"):
        save_sampler(checkpoint, options)
    assert read_sampler(checkpoint) is None


def damage(checkpoint: Path, sampler: object) -> None:
    if checkpoint.is_dir():
        config = yaml.safe_load((checkpoint / "config.yaml").read_text())
        config["mrdiff"]["sampler"] = sampler
        (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    else:
        content = torch.load(checkpoint, weights_only=True)
        content["mrdiff"]["sampler"] = sampler
        torch.save(content, checkpoint)


@pytest.mark.parametrize(
    "sampler",
    [{"order": 9}, {"name": "future-1", "nfe": 2}, {"nfe": 3, "grid": [1.0, "a", 0.2, 0.0]}],
)
def test_a_checkpoint_with_a_damaged_sampler_says_so(checkpoint: Path, sampler: object) -> None:
    damage(checkpoint, sampler)
    name = checkpoint.name.replace(".", r"\.")
    with pytest.raises(ValueError, match=f"{name}: the sampler in it"):
        Restorer.from_checkpoint(checkpoint, device="cpu")
    named = Restorer.from_checkpoint(checkpoint, device="cpu", sampler="mr-ode-1", nfe=2)
    assert named.sampler.nfe == 2


@pytest.mark.parametrize("value", [np.float64(0.5), torch.tensor(0.5), (1.0, 0.5)])
def test_only_plain_values_are_saved(checkpoint: Path, value: object) -> None:
    with pytest.raises(ValueError, match="plain values"):
        save_sampler(checkpoint, {"name": "mr-ode-2", "nfe": 5, "temperature": value})
    assert read_sampler(checkpoint) is None


def test_permissions_and_links_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    file = checkpoint / "config.yaml" if checkpoint.is_dir() else checkpoint
    file.chmod(0o640)
    link = tmp_path / "link.ckpt"
    link.symlink_to(checkpoint)
    save_sampler(link, OPTIONS)
    assert link.is_symlink()
    assert read_sampler(checkpoint) == OPTIONS
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_read_only_checkpoint_is_left_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anything
    with pytest.raises(ValueError, match="read-only"):
        save_sampler(checkpoint, OPTIONS)
    assert read_sampler(checkpoint) is None


def test_a_foreign_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"other\.ckpt"):
        save_sampler(path, OPTIONS)
    assert path.read_bytes() == content


def test_every_sampler_that_can_be_written_comes_back() -> None:
    for grid in ("power(3)", [1.0, 0.5, 0.0], torch.tensor([1.0, 0.5, 0.0]), {2: [1, 0.5, 0]}):
        sampler = MRSampler(nfe=2, order=3, prediction="noise", grid=grid, threshold=0.9)
        again = make_sampler(yaml.safe_load(yaml.safe_dump(describe_sampler(sampler))))
        assert isinstance(again, MRSampler)
        assert again.times(MRProcess()).equal(sampler.times(MRProcess()))
        assert describe_sampler(again) == describe_sampler(sampler)
    with pytest.raises(TypeError, match="function"):
        describe_sampler(MRSampler(nfe=2, grid=uniform_t))


def test_nothing_said_is_mr_ode_2_at_5() -> None:
    sampler = make_sampler()
    assert isinstance(sampler, MRSampler)
    assert (sampler.nfe, sampler.order, sampler.eta) == (5, 2, 0.0)


def test_a_checkpoint_names_no_other_file(checkpoint: Path, tmp_path: Path) -> None:
    path, times = tmp_path / "grid.yaml", {2: [1.0, 0.5, 0.0]}
    write_grid(path, times, MRProcess(), made={})
    described = describe_sampler(MRSampler(nfe=2, grid=path))
    path.unlink()
    assert described["grid"] == times
    save_sampler(checkpoint, described)
    assert Restorer.from_checkpoint(checkpoint, device="cpu").sampler.options()["grid"] == times
    damage(checkpoint, {"nfe": 2, "grid": "grid.yaml"})
    with pytest.raises(ValueError, match=r"names another file, grid\.yaml"):
        read_sampler(checkpoint)
