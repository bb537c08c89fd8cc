"""Patches degraded where they are trained on are the samples that workers make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from datamodules import CleanFolder, DataError, DeadLeaves, PairedFolder, RestorationData
from datamodules.batches import Collate
from datamodules.datasets.degraded import Patch
from datamodules.degradations import (
    JPEG,
    BatchDegradation,
    Chain,
    Degradation,
    Degraded,
    Haze,
    Inpainting,
    LowLight,
    MotionBlur,
    Noise,
    OneOf,
    Rain,
    Raindrop,
    Resize,
    Shadow,
    Snow,
    Sometimes,
    Tasks,
)
from datamodules.degradations.packing import packed
from datamodules.on_device import Pack, completed
from datamodules.randomness import SampleKey
from mrdiff.photo import write_image
from tests.tiny_training import tiny_module, tiny_trainer


class Fade(Degradation):
    """A user's: it only knows images."""

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return torch.lerp(image, image.mean(), torch.rand((), generator=generator))


RECIPES: dict[str, Any] = {
    "rain": Rain,
    "holes": Inpainting,
    "fade": Fade,
    "wild": lambda: Chain(
        [OneOf([Noise(), MotionBlur()]), Sometimes(Resize(inside=JPEG()), probability=0.5)]
    ),
    "tasks": lambda: Tasks(
        {
            "blurred": MotionBlur(),
            "jpeg": JPEG(),
            "fade": Fade(),
            "holes": Inpainting(),
            "dark": LowLight(),
            "several": OneOf([Haze(), Shadow(), Snow(), Raindrop(), Resize(inside=Noise())]),
        }
    ),
}


def _leaves(degradation: Degradation) -> DeadLeaves:
    dataset = DeadLeaves(degradation, patch_size=24, length=32, images=2, image_size=96)
    dataset.bank.ensure(workers=0)
    return dataset


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "leaves of on_device"
    monkeypatch.setenv("MRDIFF_CACHE", str(folder))


def _epoch(dataset: Any, **options: Any) -> dict[str, dict[str, Any]]:
    """What an epoch trains on, by name."""
    data = RestorationData(dataset, **options)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    found = {}
    for loaded in loader:
        batch = data.on_after_batch_transfer(loaded, 0)
        for i, name in enumerate(batch["name"]):
            found[name] = {key: values[i] for key, values in batch.items() if key != "name"}
    return found


def _same(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> None:
    assert one.keys() == other.keys()
    for name, sample in one.items():
        assert sample.keys() == other[name].keys()
        for key, value in sample.items():
            assert value.dtype == other[name][key].dtype
            assert torch.equal(value, other[name][key]), (name, key)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_sample_is_the_same_bit_for_bit_on_either_road(recipe: str) -> None:
    dataset = _leaves(RECIPES[recipe]())
    workers = _epoch(dataset, degrade_on="workers", batch_size=4, num_workers=0)
    assert len(workers) == 32
    for options in ({"batch_size": 8, "num_workers": 0}, {"batch_size": 4, "num_workers": 2}):
        _same(_epoch(dataset, degrade_on="device", **options), workers)
    _same(_epoch(dataset, batch_size=4, num_workers=0), workers)  # auto, without a GPU


@pytest.mark.parametrize("recipe", RECIPES)
def test_together_it_is_the_same_to_a_grey_level(recipe: str) -> None:
    degradation = RECIPES[recipe]()
    dataset = _leaves(degradation)
    keys = [SampleKey(0, 2, item) for item in range(16)]
    plain = Collate("train")([dataset[key] for key in keys])
    patches = [dataset.patch(key) for key in keys]
    loaded = [p if p.degradation.on_device else p.sample() for p in patches]
    batch = completed(Pack("train", together=True)(loaded), degradation)
    assert batch.keys() == plain.keys()
    assert batch["name"] == plain["name"]
    assert torch.equal(batch["gt"], plain["gt"])
    levels = (255 * (batch["lq"] - plain["lq"])).abs()
    assert float(levels.max()) < 1.001
    assert float((levels > 0.5).float().mean()) < 1e-4
    for key in {"mask", "degradation"} & plain.keys():
        assert torch.equal(batch[key], plain[key])


def test_patches_travel_as_bytes_and_alike_ones_together(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _leaves(Tasks({"blurred": MotionBlur(), "rain": Rain(), "holes": Inpainting()}))
    patches = [dataset.patch(SampleKey(0, 0, item)) for item in range(12)]
    batch = Pack("train", together=True)(patches)
    groups = batch["slots"]["groups"]
    sides = {group["task"]: group["clean"].shape[-1] for group in groups}
    assert sides == {0: 24 + 2 * MotionBlur().reach, 1: 24, 2: 24}
    assert {group["clean"].dtype for group in groups} == {torch.uint8}
    # All bytes in one tensor, however many were drawn; a GPU's host can pin it.
    assert batch["bytes"].dtype == torch.uint8
    assert len(Pack("train", together=False)(patches)["slots"]["groups"]) == 12
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor, device=None: tensor)
    pinned = move_data_to_device(pin_memory(batch), torch.device("cpu"))
    one, other = (completed(each, dataset.degradation) for each in (batch, pinned))
    assert all(torch.equal(one[key], other[key]) for key in ("lq", "gt", "mask", "degradation"))


def test_photos_of_more_than_8_bits_stay_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 2**16, (40, 48), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    write_image(tmp_path / "flat.png", torch.rand(3, 40, 48))
    dataset = CleanFolder(str(tmp_path), Rain(), patch_size=24)
    options: dict[str, Any] = {"batch_size": 2, "num_workers": 0}
    workers = _epoch(dataset, degrade_on="workers", **options)
    _same(_epoch(dataset, degrade_on="device", **options), workers)
    levels = 255 * workers["deep"]["gt"]
    assert float((levels - levels.round()).abs().max()) > 0.1


def test_the_device_cannot_degrade_what_is_read_degraded(tmp_path: Path) -> None:
    for folder in ("LQ", "GT"):
        write_image(tmp_path / folder / "a.png", torch.rand(3, 40, 48))
    pairs = PairedFolder(str(tmp_path / "LQ"), str(tmp_path / "GT"), patch_size=24)
    with pytest.raises(DataError, match=r"degrade_on device, but .*PairedFolder makes whole"):
        RestorationData(pairs, degrade_on="device").setup("fit")
    RestorationData(pairs).setup("fit")


def test_whole_photos_of_unequal_size_are_refused_as_ever(tmp_path: Path) -> None:
    patches = [
        Patch(name, torch.rand(3, 24, side), None, Rain(), None, False, {})
        for name, side in {"a": 24, "b": 32}.items()
    ]
    with pytest.raises(DataError, match="a is 24x24 and b is 32x24, but a batch takes one size"):
        Pack("train", together=False)(patches)


class Seen(Callback):
    """Keeps what a run was trained on."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.batches.append(batch)


def _trained(
    folder: Path, road: Any, *, steps: int, resume: Path | None = None, **options: Any
) -> Seen:
    seen = Seen()
    data = RestorationData(
        _leaves(RECIPES["tasks"]()), batch_size=4, num_workers=0, degrade_on=road
    )
    trainer = tiny_trainer(folder, seen, max_steps=steps, max_epochs=-1, **options)
    trainer.fit(tiny_module(), data, ckpt_path=resume)
    trainer.save_checkpoint(folder / "run.ckpt")
    return seen


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_resumed_run_goes_on_with_the_same_samples_on_the_other_road(tmp_path: Path) -> None:
    whole = _trained(tmp_path / "whole", "workers", steps=10)
    first = _trained(tmp_path / "cut", "device", steps=6)
    rest = _trained(tmp_path / "rest", "device", steps=10, resume=tmp_path / "cut" / "run.ckpt")
    assert len(whole.batches) == 10
    for one, other in zip(whole.batches, [*first.batches, *rest.batches], strict=True):
        assert one["name"] == other["name"]
        for key in ("lq", "gt", "mask", "degradation"):
            assert torch.equal(one[key], other[key])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_a_precision_that_converts_batches_takes_either_road(
    tmp_path: Path, precision: str
) -> None:
    one, other = (
        _trained(tmp_path / road, road, steps=2, precision=precision).batches
        for road in ("workers", "device")
    )
    for first, second in zip(one, other, strict=True):
        assert first["lq"].dtype == second["lq"].dtype
        assert torch.equal(first["lq"], second["lq"])
        assert torch.equal(first["mask"], second["mask"])
        assert torch.equal(first["degradation"], second["degradation"])


class Wrong(BatchDegradation):
    """A user's, with a mistake."""

    def __init__(self, make: Any, number: Any = 1.0, *, holes: bool = False) -> None:
        self.make, self.number, self.holes = make, number, holes

    @property
    def cuts_holes(self) -> bool:
        return self.holes

    def draw(self, generator: torch.Generator, shape: Any) -> Any:
        return {"number": self.number() if callable(self.number) else self.number}

    def apply(self, images: Tensor, draws: Any) -> Any:
        return self.make(images, draws["number"])


MISTAKES: dict[str, tuple[Any, str]] = {
    "none": (Wrong(lambda x, n: None), "returned None in place of Degraded"),
    "tensor": (Wrong(lambda x, n: x), "returned float32 .* in place of Degraded"),
    "in place": (Wrong(lambda x, n: Degraded(x.mul_(0.3))), "changed the images that it was"),
    "double": (Wrong(lambda x, n: Degraded(x.double())), "returned images of float64"),
    "fewer": (Wrong(lambda x, n: Degraded(x[1:])), r"returned images of float32 \[\d, 3, "),
    "a list of three": (
        Wrong(lambda x, n: Degraded(x * n[:, None, None, None]), lambda: torch.rand(3)),
        r"returned images of float32 \[\d+, 3, .* for|must match the size",
    ),
    "no dimension": (Wrong(lambda x, n: Degraded(x), torch.tensor(1.0)), r"number as a number or"),
    "no mask": (Wrong(lambda x, n: Degraded(x), holes=True), "no mask, and its cuts_holes is T"),
    "a mask": (Wrong(lambda x, n: Degraded(x, x[:, :1])), "a mask, and its cuts_holes is False"),
    "a bug": (Wrong(lambda x, n: x.no_such), "AttributeError: .*no_such"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: Chain([Rain(), d]), lambda d: Resize(inside=d)]
)
def test_a_users_mistake_is_named_on_either_road(mistake: str, wrap: Any) -> None:
    wrong, expected = MISTAKES[mistake]
    degradation = wrap(wrong)
    dataset = _leaves(degradation)
    patch = dataset.patch(SampleKey(0, 0, 0))
    with pytest.raises(DataError, match=expected) as caught:
        patch.sample()
    assert "Wrong" in str(caught.value) or mistake == "no dimension"
    for together in (False, True):
        with pytest.raises(DataError, match=expected):
            completed(Pack("train", together=together)([patch, patch]), degradation)


def test_numbers_are_whole_or_not_in_all_images() -> None:
    assert packed([{"a": 0}, {"a": 0.5}])["a"].tolist() == [0, 0.5]
    assert packed([{"a": 2**40}, {"a": True}])["a"].tolist() == [2**40, 1]
    with pytest.raises(ValueError, match="same names, not only some b"):
        packed([{"a": 0}, {"a": 0, "b": 1}])


def test_methods_that_would_never_be_called_are_refused() -> None:
    with pytest.raises(TypeError, match="Own defines degrade: give it draw and apply instead"):
        type("Own", (Rain,), {"degrade": lambda self, image, generator: image})
    with pytest.raises(TypeError, match="Own defines apply, draw: derive it from BatchDegradation"):
        type("Own", (Degradation,), {"draw": None, "apply": None})
