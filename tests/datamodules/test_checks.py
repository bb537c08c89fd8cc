"""Classes of a user's own that do not keep to the rules: one line names them, nothing is spoilt."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules import CleanFolder, DataError, PairedFolder, RestorationData
from datamodules.datasets.base import RestorationDataset
from datamodules.datasets.degraded import FixedSamples, random_patch
from datamodules.degradations import (
    Chain,
    Degradation,
    Degraded,
    MaskedDegradation,
    Rain,
    Resize,
    Sometimes,
    Tasks,
)
from datamodules.randomness import SampleKey
from tests.places import ROOT

KEY = SampleKey(0, 0, 0)


class Given(Degradation):
    """Returns what it was made with a function for."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        made: Tensor = self.make(image)
        return made


class Masked(MaskedDegradation):
    def __init__(self, make: Any) -> None:
        self.make = make

    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        made: Degraded = self.make(image)
        return made


class Darker(Degradation):
    """Halves its input in place, by torch and behind its back."""

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        image.mul_(0.5)
        image.numpy()[:] *= 0.5
        return image


WRONG = {
    "times 255": (lambda x: x * 255, r"returned values from \S+ to 25\d of an image"),
    "from -1": (lambda x: x * 2 - 1.4, r"returned values from -1\.[34]\S* to"),
    "bytes": (lambda x: (x * 255).byte(), r"returned uint8 \[3, 24, 24\] of an image that is"),
    "double": (lambda x: x.double(), r"returned float64 \[3, 24, 24\]"),
    "half": (lambda x: x.half(), "returned float16"),
    "hwc": (lambda x: x.permute(1, 2, 0), r"returned float32 \[24, 24, 3\]"),
    "grey": (lambda x: x.mean(0, keepdim=True), r"returned float32 \[1, 24, 24\]"),
    "batch": (lambda x: x[None], r"returned float32 \[1, 3, 24, 24\]"),
    "smaller": (lambda x: x[:, ::2, ::2], r"returned float32 \[3, 12, 12\]"),
    "nan": (lambda x: x * float("nan"), "returned values that are not finite"),
    "one inf": (lambda x: x.index_fill(1, torch.tensor(2), torch.inf), "values that are not fin"),
    "none": (lambda x: None, "returned None of an image"),
    "tuple": (lambda x: (x, x), "returned tuple"),
    "numpy": (lambda x: x.numpy(), r"returned ndarray float32 \[3, 24, 24\]"),
    "a bug": (lambda x: x.no_such, r"AttributeError: 'Tensor' .*no_such.* \(.*test_checks\.py:\d"),
}


def _many(clean: Tensor, degradation: Degradation) -> None:
    """Samples until each task has been drawn."""
    for item in range(20):
        random_patch(clean, degradation, 24, KEY._replace(item=item), "photo").sample()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_degradation_that_breaks_the_rules_is_named(wrong: str) -> None:
    make, expected = WRONG[wrong]
    clean = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    given = Given(make)
    for degradation in (given, Chain([Rain(), given]), Tasks({"rain": Rain(), "it": given})):
        with pytest.raises(DataError, match=expected) as caught:
            _many(clean, degradation)
        assert str(caught.value).startswith(f"{__name__}.Given")
        assert "\n" not in str(caught.value)
    for degradation in (given, Sometimes(given, probability=1.0), Tasks({"it": given})):
        with pytest.raises(DataError, match=rf"{__name__}\.Given"):
            FixedSamples(degradation, seed=0).sample(clean, 0, "photo")
    with pytest.raises(DataError, match=rf"{__name__}\.Given"):
        random_patch(clean, Resize(inside=given), 24, KEY, "photo").sample()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda x: x, "returned Tensor in place of Degraded|returned float32 .* in place of Deg"),
        (lambda x: (x, x[:1]), "returned tuple in place of Degraded"),
        (lambda x: Degraded(x), "returned no mask: images have masks always or never"),
        (lambda x: Degraded(x, x), r"a mask of float32 \[3, 24, 24\]"),
        (lambda x: Degraded(x, x[:1] > 0.5), r"a mask of bool \[1, 24, 24\]"),
        (lambda x: Degraded(x, x[:1] * 255), "a mask of values from"),
    ],
)
def test_masks_that_break_the_rules(make: Any, expected: str) -> None:
    for degradation in (Masked(make), Chain([Masked(make)])):
        with pytest.raises(DataError, match=rf"{__name__}\.Masked .*({expected})"):
            random_patch(torch.rand(3, 24, 24), degradation, 24, KEY, "photo").sample()


@pytest.mark.parametrize("reach", [-3, None, 1.5, lambda: 3])
def test_a_reach_that_is_no_number_of_pixels(reach: Any) -> None:
    given = type("Given", (Given,), {"reach": reach, "__module__": __name__})(lambda x: x)
    with pytest.raises(DataError, match=rf"{__name__}\.Given\.reach is .*number of pixels"):
        random_patch(torch.rand(3, 24, 24), given, 8, KEY, "photo").sample()


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Chain([d, d]), lambda d: Tasks({"a": d})])
def test_a_degradation_may_change_its_input(wrap: Any) -> None:
    degradation = wrap(Darker())
    share = 0.0625 if isinstance(degradation, Chain) else 0.25
    clean = torch.rand(3, 24, 24)
    before = clean.clone()
    for sample in (
        random_patch(clean, degradation, None, KEY, "photo").sample(),
        FixedSamples(degradation, seed=0).sample(clean, 0, "photo"),
    ):
        assert torch.equal(sample["gt"], before)
        assert torch.allclose(sample["lq"], share * before)


def test_noise_may_leave_the_range() -> None:
    noisy = Given(lambda x: x + 75 / 255 * torch.randn(x.shape))
    for clean in (torch.zeros(3, 24, 24), torch.ones(3, 24, 24)):
        sample = random_patch(clean, noisy, 24, KEY, "photo").sample()
        assert not 0 <= float(sample["lq"].min()) <= float(sample["lq"].max()) <= 1


class Own(RestorationDataset):
    """A dataset of samples that are wrong from the second one on."""

    def __init__(self, change: Any, *, first: Any = None) -> None:
        self.change, self.first = change, first or (lambda sample: sample)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: int | SampleKey) -> Any:
        index = key.item if isinstance(key, SampleKey) else key
        sample = {"lq": torch.rand(3, 8, 8), "gt": torch.rand(3, 8, 8), "name": f"n{index}"}
        return self.change(sample) if index else self.first(sample)


def _without(key: str) -> Any:
    return lambda sample: {k: v for k, v in sample.items() if k != key}


SAMPLES = {
    "no gt": (_without("gt"), "the sample has no gt"),
    "no name": (_without("name"), "the sample has no name"),
    "tuple": (lambda s: (s["lq"], s["gt"]), "a sample is a dict of lq, gt and name, not tuple"),
    "bytes": (lambda s: s | {"lq": s["lq"].byte()}, r"lq is uint8 \[3, 8, 8\]; it must be float32"),
    "255": (lambda s: s | {"gt": s["gt"] * 255}, r"gt is values from .* in \[0, 1\]"),
    "hwc": (lambda s: s | {"lq": s["lq"].permute(1, 2, 0)}, r"must be float32 \[3, H, W\]"),
    "sizes": (lambda s: s | {"gt": s["gt"][:, :6]}, r"gt is float32 \[3, 6, 8\].*\[3, 8, 8\]"),
    "mask": (lambda s: s | {"mask": torch.ones(8, 8)}, r"mask is float32 \[8, 8\]"),
    "nan": (lambda s: s | {"lq": s["lq"] / 0}, r"\(n\d\): lq is values that are not finite"),
    "name": (lambda s: s | {"name": 3}, "name must be a str, not int"),
    "a bug": (lambda s: s["image"], r"\[\d\]: KeyError: 'image' \(.*test_checks\.py:\d+\)"),
    "odd key": (lambda s: s | {"mask": torch.ones(1, 8, 8)}, "only one sample has mask"),
    "no stack": (lambda s: s | {"path": None}, "path|NoneType"),
    "unequal": (
        lambda s: {**s, "lq": torch.rand(3, 9, 8), "gt": torch.rand(3, 9, 8)},
        r"n\d is 8x[89] and n\d is 8x[89], but a batch takes one size: give data\.train\.patch_size"
        r", or data\.batch_size 1",
    ),
}


@pytest.mark.parametrize("wrong", SAMPLES)
def test_a_sample_that_breaks_the_rules_is_named(wrong: str) -> None:
    change, expected = SAMPLES[wrong]
    data = RestorationData(Own(change), val=Own(change), batch_size=4, num_workers=0)
    data.setup("fit")  # where the first sample alone is looked at
    loader: Any = data.train_dataloader()
    with pytest.raises(DataError, match=expected) as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_the_first_sample_of_every_set_is_looked_at_before_training() -> None:
    wrong = SAMPLES["bytes"][0]
    for role in ("train", "val"):
        sets = {"train": Own(dict), "val": Own(dict)} | {role: Own(dict, first=wrong)}
        with pytest.raises(DataError, match=rf"{__name__}\.Own\[0\] \(n0\): lq is uint8"):
            RestorationData(**sets).setup("fit")  # type: ignore[arg-type]

    class Empty(Own):
        def __len__(self) -> int:
            return 0

    with pytest.raises(DataError, match=r"data\.train: .*Empty has no samples"):
        RestorationData(Empty(dict)).setup("fit")


def test_the_dataset_of_the_docs_keeps_the_rules() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = text.split("## A dataset")[1].split("## A solver")[0]
    scope: dict[str, Any] = {"__name__": "mine"}
    exec(re.findall(r"```python\n(.*?)```", section, re.S)[0], scope)
    stripes = scope["Stripes"]
    data = RestorationData(stripes(), stripes(length=3), batch_size=4, num_workers=0)
    data.setup("fit")
    loaders: Any = (data.train_dataloader(), data.val_dataloader())
    assert [len([*loader]) for loader in loaders] == [100, 3]


def _photo(path: Path, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 200, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def test_what_a_worker_raises_is_one_line_too(tmp_path: Path) -> None:
    """A wrong class, and files that are gone or changed since the run began."""
    for name in "ab":
        _photo(tmp_path / f"{name}.png")
    data = RestorationData(CleanFolder(str(tmp_path), Given(_nothing), patch_size=8), num_workers=1)
    with pytest.raises(DataError, match=r"Given returned None of an image") as caught:
        list(data.train_dataloader())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "Original Traceback" in caught.value.__notes__[0]

    data = RestorationData(val=CleanFolder(str(tmp_path), Rain()), num_workers=1)
    loader: Any = data.val_dataloader()
    assert len(list(loader)) == 2
    (tmp_path / "b.png").write_bytes(b"not a photo")
    with pytest.raises(DataError, match=rf"^{tmp_path}/b\.png: ") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def _nothing(image: Tensor) -> None:
    return None


def test_the_error_of_data_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DataError("a.png: too  small\nby far")))
    assert str(error) == "a.png: too small by far"


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (
            {"train": {}},
            r"a\.png is 20x16 and .*b\.png is 18x16.*data\.train\.patch_size, or data\.",
        ),
        (
            {"val": {}},
            r"a\.png is 20x16 and .*b\.png is 18x16.*crop_size, or data\.val_batch_size 1",
        ),
        ({"val": {"crop_size": 19}}, r"a\.png is 19x16 and .*b\.png is 18x16"),
        ({"train": {"patch_size": 32}, "val": {"crop_size": 16}}, None),
    ],
)
def test_sizes_that_no_batch_can_hold_are_known_before_training(
    tmp_path: Path, sets: dict[str, dict[str, int]], expected: str | None
) -> None:
    for folder in ("LQ", "GT"):
        for name, width in (("a", 20), ("b", 18), ("c", 20)):
            _photo(tmp_path / folder / f"{name}.png", (width, 16))
    lq, gt = str(tmp_path / "LQ"), str(tmp_path / "GT")
    for make in (
        lambda cut: PairedFolder(lq, gt, **cut),
        lambda cut: CleanFolder(gt, Rain(), **cut),
    ):
        made = {"train": make({"patch_size": 8}), "val": make({"crop_size": 8})}
        made |= {role: make(cut) for role, cut in sets.items()}
        data = RestorationData(**made, batch_size=2, val_batch_size=2)
        if expected is None:
            data.setup("fit")
            continue
        with pytest.raises(DataError, match=expected):
            data.setup("fit")
        data.batch_size = data.val_batch_size = 1
        data.setup("fit")


class Seen(pl.LightningModule):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shapes: set[tuple[int, ...]] = set()
        self.epochs: list[Tensor] = []

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        self.shapes.add(tuple(batch["lq"].shape))
        self.epochs.append(batch["lq"])
        return self.weight * batch["lq"].mean()

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_overfitting_sees_the_patches_of_the_first_epoch_again_and_again(tmp_path: Path) -> None:
    for i in range(6):
        _photo(tmp_path / f"{i}.png", (20 - i, 16))
    dataset = CleanFolder(str(tmp_path), Rain(), patch_size=8)
    data = RestorationData(dataset, CleanFolder(str(tmp_path), Rain()), batch_size=2, num_workers=0)
    first = [batch["lq"] for batch in data.train_dataloader()][:2]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        overfit_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    seen = Seen()
    trainer.fit(seen, data)
    assert seen.shapes == {(2, 3, 8, 8)}
    assert len(seen.epochs) == 6
    assert all(torch.equal(seen.epochs[i], first[i % 2]) for i in range(6))
