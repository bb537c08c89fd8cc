"""What is loaded is a function of (seed, epoch, index): any workers, any processes, any resume."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from datamodules import DataError, DeadLeaves, DemoPhotos, RestorationData
from datamodules.datasets.base import RestorationDataset, Sample
from datamodules.degradations import Rain
from datamodules.loading import EpochSampler, InOrder, Position, automatic_workers
from datamodules.randomness import SampleKey, generator_of, generator_of_name


class Stamped(RestorationDataset):
    """Samples that show their key: one pixel of (epoch, item, random number)."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int | SampleKey) -> Sample:
        if not isinstance(key, SampleKey):
            key = SampleKey(0, 0, key)
        number = float(torch.rand((), generator=generator_of(key)))
        pixel = torch.tensor([key.epoch, key.item, number]).view(3, 1, 1) / 64
        return {"lq": pixel, "gt": pixel, "name": str(key.item)}


@pytest.fixture
def leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeadLeaves:
    monkeypatch.setenv("MRDIFF_CACHE", str(tmp_path))
    dataset = DeadLeaves(Rain(), patch_size=16, length=24, images=2, image_size=48)
    dataset.bank.ensure(workers=0)
    return dataset


def _epoch(dataset: RestorationDataset, epoch: int, **options: Any) -> dict[str, Tensor]:
    loader = RestorationData(dataset, **options).train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    batches: list[Any] = list(loader)
    return {name: lq for b in batches for name, lq in zip(b["name"], b["lq"], strict=True)}


def test_samples_do_not_depend_on_workers_or_batch_size(leaves: DeadLeaves) -> None:
    alone = _epoch(leaves, 3, batch_size=4, num_workers=0)
    assert len(alone) == 24
    for options in ({"batch_size": 8, "num_workers": 1}, {"batch_size": 3, "num_workers": 2}):
        other = _epoch(leaves, 3, **options)
        assert other.keys() == alone.keys()
        assert all(torch.equal(other[name], alone[name]) for name in alone)


def test_seed_and_epoch_change_samples_and_order(leaves: DeadLeaves) -> None:
    first = _epoch(leaves, 0, batch_size=4, num_workers=0)
    again = _epoch(leaves, 0, batch_size=4, num_workers=0)
    assert list(first) == list(again)
    seeded = _epoch(leaves, 0, batch_size=4, num_workers=0, seed=1)
    later = _epoch(leaves, 1, batch_size=4, num_workers=0)
    assert list(seeded) != list(first)
    assert not torch.equal(seeded["0-0"], first["0-0"])
    assert [n.split("-")[1] for n in later] != [n.split("-")[1] for n in first]
    assert not torch.equal(later["1-0"], first["0-0"])


def _keys(dataset: RestorationDataset, *, processes: int, rank: int) -> list[SampleKey]:
    sampler = EpochSampler(dataset, seed=5, processes=processes, rank=rank)
    sampler.set_epoch(2)
    return list(sampler)


def test_processes_share_the_epoch_of_a_single_one() -> None:
    dataset = Stamped(24)
    alone = _keys(dataset, processes=1, rank=0)
    shared = [_keys(dataset, processes=3, rank=rank) for rank in range(3)]
    assert sorted(alone) == sorted(key for keys in shared for key in keys)
    assert {key.epoch for key in alone} == {2}
    assert sorted(key.item for key in alone) == list(range(24))


@given(length=st.integers(1, 40), processes=st.integers(1, 9))
def test_processes_share_validation_without_counting_twice(length: int, processes: int) -> None:
    samplers = [InOrder(Stamped(length), processes=processes, rank=r) for r in range(processes)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    if length < processes:  # a process without images would be waited for
        assert all(share == list(range(length)) for share in shares)
    else:
        assert sorted(i for share in shares for i in share) == list(range(length))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_streams_are_far_apart() -> None:
    keys = [SampleKey(s, e, i) for s in range(3) for e in range(3) for i in range(300)]
    numbers = torch.stack([torch.rand(2, generator=generator_of(key)) for key in keys])
    assert len(numbers.unique(dim=0)) == len(keys)
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.02)
    assert abs(float(torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1])) < 0.06
    names = {int(generator_of_name(0, name).initial_seed()) for name in ("a", "b", "ab", "ba")}
    assert len(names) == 4


class Net(pl.LightningModule):
    """The smallest module; remembers the pixels it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[float, ...]] = []

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        self.seen += [tuple(pixel.flatten().tolist()) for pixel in 64 * batch["lq"]]
        return self.weight * batch["lq"].mean()

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _run(
    folder: Path,
    *,
    steps: int,
    workers: int = 0,
    resume: str | None = None,
    val: bool = False,
    **options: Any,
) -> list[tuple[float, ...]]:
    """Train on 5 batches an epoch; returns the samples in the order they were seen."""
    net = Net()
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    callbacks: list[Callback] = [saver]
    if val:
        callbacks.append(
            ModelCheckpoint(folder, monitor=None, save_top_k=-1, filename="val-{step}")
        )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **options,
    )
    data = RestorationData(
        Stamped(21), Stamped(2) if val else None, batch_size=4, num_workers=workers, seed=7
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about intervals and folders
        warnings.filterwarnings("error", message=".*dataloader is not resumable.*")
        trainer.fit(net, data, ckpt_path=resume, weights_only=True)
    return net.seen


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, _run(folder, steps=13)


def test_an_uninterrupted_run_sees_every_epoch_once(uninterrupted: tuple[Path, list[Any]]) -> None:
    _, seen = uninterrupted
    assert len(seen) == 13 * 4
    assert [epoch for epoch, _, _ in seen] == [0.0] * 20 + [1.0] * 20 + [2.0] * 12
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("step", [1, 4, 5, 6, 8, 10, 12])
def test_a_resumed_run_goes_on_with_the_next_sample(
    uninterrupted: tuple[Path, list[Any]], tmp_path: Path, step: int
) -> None:
    folder, seen = uninterrupted
    resumed = _run(tmp_path, steps=13, resume=str(folder / f"step={step}.ckpt"))
    assert resumed == seen[step * 4 :]


@pytest.mark.parametrize("step", [3, 5, 7])
def test_workers_resume_at_the_same_sample(
    uninterrupted: tuple[Path, list[Any]], tmp_path: Path, step: int
) -> None:
    folder, seen = uninterrupted
    resumed = _run(tmp_path, steps=11, workers=2, resume=str(folder / f"step={step}.ckpt"))
    assert resumed == seen[step * 4 : 11 * 4]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "options",
    [{"val_check_interval": 2}, {"check_val_every_n_epoch": 1}, {"limit_train_batches": 3}],
    ids=["validation in the epoch", "validation after the epoch", "limited epochs"],
)
def test_checkpoints_around_validation_and_limits_resume_too(
    tmp_path: Path, options: dict[str, Any], workers: int
) -> None:
    seen = _run(tmp_path / "whole", steps=12, val=True, **options)
    for path in sorted((tmp_path / "whole").glob("*.ckpt")):
        step = int(path.stem.split("step=")[1].split("-")[0])
        if step < 12 and (workers == 0 or step in (3, 5, 6)):
            on = tmp_path / "on"
            resumed = _run(on, steps=12, val=True, workers=workers, resume=str(path), **options)
            assert resumed == seen[step * 4 :], path.name


def test_a_resumed_run_can_be_resumed(
    uninterrupted: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    folder, seen = uninterrupted
    first = _run(tmp_path, steps=8, resume=str(folder / "step=6.ckpt"))
    second = _run(tmp_path / "b", steps=13, resume=str(tmp_path / "step=8.ckpt"))
    assert first + second == seen[24:]


def test_skipped_batches_are_not_loaded() -> None:
    sampler = EpochSampler(Stamped(20), seed=0, place=lambda: Position(1, 12))
    order = list(sampler)
    assert len(order) == 8
    assert len(sampler) == 20, "the length of an epoch is that of a whole one"
    whole = EpochSampler(Stamped(20), seed=0)
    whole.set_epoch(1)
    assert list(whole)[12:] == order


def test_stages_need_only_their_own_set() -> None:
    data = RestorationData(predict=Stamped(2))
    data.setup("predict")
    with pytest.raises(DataError, match=r"no train set; give data\.train"):
        data.setup("fit")
    RestorationData(Stamped(2)).setup("fit")
    assert RestorationData(Stamped(2)).val_dataloader() == []


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    loader = RestorationData(Stamped(3), batch_size=8, num_workers=0).train_dataloader()
    assert [len(batch["name"]) for batch in loader] == [3]


def test_validation_is_in_order_and_fixed() -> None:
    data = RestorationData(val=DemoPhotos(Rain(), size=32), num_workers=0)
    first: list[Any] = list(data.val_dataloader())
    second: list[Any] = list(data.val_dataloader())
    assert [b["name"][0] for b in first] == sorted(b["name"][0] for b in first)
    assert all(torch.equal(a["lq"], b["lq"]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"val_batch_size": 0}, {"num_workers": -1}, {"seed": -1}]
)
def test_impossible_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RestorationData(**wrong)  # type: ignore[arg-type]


def test_automatic_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, on_cpu, on_gpu in ((1, 0, 1), (2, 0, 1), (8, 1, 7), (64, 1, 63)):
        monkeypatch.setattr("datamodules.loading.available_cores", lambda cores=cores: cores)
        assert automatic_workers(accelerated=False) == on_cpu
        assert automatic_workers(accelerated=True) == on_gpu
    assert automatic_workers(accelerated=True, processes_here=8) == 7


def test_no_more_automatic_workers_than_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.restoration_data.automatic_workers", lambda **_: 63)
    data = RestorationData(Stamped(640), Stamped(5), batch_size=8, val_batch_size=2)
    assert data.train_dataloader().num_workers == 63
    assert data._in_order("val").num_workers == 3
    assert RestorationData(Stamped(640), num_workers=90).train_dataloader().num_workers == 90
