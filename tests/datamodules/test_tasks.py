"""Data of several tasks: named degradations, trees of pairs, masks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datamodules import (
    CleanFolder,
    DataError,
    DeadLeaves,
    DemoPhotos,
    LQFolder,
    PairedFolder,
    RestorationData,
    TaskFolders,
)
from datamodules.datasets.degraded import random_patch
from datamodules.degradations import (
    Chain,
    GaussianNoise,
    Inpainting,
    MotionBlur,
    Rain,
    Tasks,
)
from datamodules.randomness import SampleKey
from mrdiff.photo import read_rgb, write_image


def picture(seed: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(channels, 40, 48, generator=generator)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def three() -> Tasks:
    return Tasks({"rainy": Rain(), "noisy": GaussianNoise(), "holes": Inpainting()})


def test_a_sample_says_which_kind_it_is_and_has_a_mask_if_any_kind_has() -> None:
    tasks, image = three(), picture(0)
    seen: Counter[str] = Counter()
    for item in range(90):
        sample = random_patch(image, tasks, 24, SampleKey(0, 0, item), "photo").sample()
        kind = tasks.tasks[sample["degradation"]]
        seen[kind] += 1
        assert (float((1 - sample["mask"]).sum()) > 0) == (kind == "holes")
    assert set(seen) == {"rainy", "noisy", "holes"}
    assert min(seen.values()) > 15
    assert tasks.tasks == ("rainy", "noisy", "holes")
    assert not Tasks({"rainy": Rain()}).cuts_holes
    with pytest.raises(ValueError, match="kinds"):
        Tasks({})


def test_a_named_kind_is_that_degradation() -> None:
    kinds = three()
    for task, (name, kind) in enumerate(kinds.kinds.items()):
        assert kinds.of_task(task) is kind
        assert kinds.tasks[task] == name
    assert kinds.of_task(None) is kinds


def test_outside_training_every_photo_comes_under_every_kind(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", picture(ord(name)))
    for dataset, photos in ((CleanFolder(str(tmp_path), three()), 2), (DemoPhotos(three()), 6)):
        samples = [dataset[i] for i in range(len(dataset))]
        assert len(samples) == 3 * photos
        assert [s["degradation"] for s in samples] == [0, 1, 2] * photos
        assert len({s["name"] for s in samples}) == len(samples)
        assert samples[1]["name"].startswith("noisy/")
        assert torch.equal(dataset[1]["lq"], samples[1]["lq"])
        assert dataset.tasks == ("rainy", "noisy", "holes")
    random = CleanFolder(str(tmp_path), three(), patch_size=16)[SampleKey(0, 3, 5)]
    assert random["lq"].shape == (3, 16, 16)
    assert random["mask"].shape == (1, 16, 16)
    assert random["degradation"] in (0, 1, 2)


def test_one_kind_alone_has_neither_number_nor_mask() -> None:
    sample = DemoPhotos(Rain(), size=64)[0]
    assert set(sample) == {"lq", "gt", "name"}
    assert DemoPhotos(Rain()).tasks == ()


def tree(root: Path, *, counts: dict[str, int]) -> None:
    for task, count in counts.items():
        for i in range(count):
            for part in ("LQ", "GT"):
                write_image(root / task / part / f"{i}.png", picture(10 * i + (part == "GT")))
            if task == "holes":
                hole = torch.ones(1, 40, 48)
                hole[:, :10] = 0
                write_image(root / task / "mask" / f"{i}.png", hole)


def test_a_tree_of_pairs_by_task(tmp_path: Path) -> None:
    tree(tmp_path, counts={"rainy": 3, "holes": 1})
    folders = TaskFolders(str(tmp_path), masks=True)
    folders.check()
    assert folders.tasks == ("holes", "rainy")
    samples = [folders[i] for i in range(len(folders))]
    names = [sample["name"] for sample in samples]
    assert names == ["holes/0", "rainy/0", "rainy/1", "rainy/2"]
    assert [sample["degradation"] for sample in samples] == [0, 1, 1, 1]
    assert float((1 - samples[0]["mask"]).mean()) == pytest.approx(0.25)
    assert bool((samples[1]["mask"] == 1).all())
    assert torch.equal(samples[2]["lq"], read_rgb(tmp_path / "rainy" / "LQ" / "1.png"))
    assert TaskFolders(str(tmp_path), tasks=["rainy"])[0]["degradation"] == 0
    assert "mask" not in TaskFolders(str(tmp_path))[0]
    with pytest.raises(IndexError):
        folders[4]


def test_in_training_tasks_are_drawn_equally_often_and_pairs_are_cut_anew(tmp_path: Path) -> None:
    tree(tmp_path, counts={"rainy": 3, "holes": 1})
    folders = TaskFolders(str(tmp_path), masks=True, patch_size=16)
    samples = [folders[SampleKey(0, epoch, item)] for epoch in range(30) for item in range(4)]
    counts = Counter(sample["degradation"] for sample in samples)
    assert 40 < counts[0] < 80
    one = [s for s in samples if s["name"] == "holes/0"]
    assert len({s["lq"].numpy().tobytes() for s in one}) > 0.9 * len(one)
    again = folders[SampleKey(0, 7, 2)]
    assert torch.equal(again["lq"], samples[7 * 4 + 2]["lq"])


def test_what_is_missing_in_a_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        _ = TaskFolders(str(tmp_path / "none")).tasks
    with pytest.raises(DataError, match="no folders <task>/LQ"):
        _ = TaskFolders(str(tmp_path)).tasks
    tree(tmp_path, counts={"rainy": 1})
    with pytest.raises(DataError, match=r"no folder of any task; they are hazy, snowy"):
        TaskFolders(str(tmp_path), tasks=["hazy", "snowy"]).check()
    tree(tmp_path, counts={"hazzy": 1})
    with pytest.raises(DataError, match=r"hazzy: not a task; without a folder are hazy, snowy"):
        TaskFolders(str(tmp_path), tasks=["hazy", "rainy", "snowy"]).check()
    (tmp_path / "snowy").mkdir()
    with pytest.raises(DataError, match=r"snowy/LQ: no such folder"):
        TaskFolders(str(tmp_path), tasks=["rainy", "snowy"]).check()


def test_a_task_without_a_folder_keeps_its_number_and_is_not_drawn(tmp_path: Path) -> None:
    tree(tmp_path, counts={"rainy": 2})
    folders = TaskFolders(str(tmp_path), tasks=["hazy", "rainy", "snowy"], patch_size=16)
    folders.check()
    assert folders.tasks == ("hazy", "rainy", "snowy")
    assert len(folders) == 2
    assert len(folders.sources()) == 1
    drawn = [folders[SampleKey(0, 0, item)] for item in range(2)] + [folders[0], folders[1]]
    assert {sample["degradation"] for sample in drawn} == {1}


def test_masks_of_pairs_are_checked(tmp_path: Path) -> None:
    tree(tmp_path, counts={"holes": 2})
    root = tmp_path / "holes"
    pairs = PairedFolder(*(str(root / part) for part in ("LQ", "GT")), mask=str(root / "mask"))
    pairs.check()
    assert set(pairs[0]) == {"lq", "gt", "name", "mask"}
    write_image(root / "mask" / "0.png", torch.ones(1, 8, 8))
    with pytest.raises(DataError, match=r"mask/0\.png is not of the size"):
        pairs.check()
    (root / "mask" / "1.png").unlink()
    fresh = PairedFolder(*(str(root / part) for part in ("LQ", "GT")), mask=str(root / "mask"))
    with pytest.raises(DataError, match=r"1\.png has no mask"):
        fresh.check()


def test_the_sets_of_a_run_agree_on_their_tasks(tmp_path: Path) -> None:
    data = RestorationData(
        train=DeadLeaves(three(), images=2, image_size=64), val=DemoPhotos(Rain())
    )
    assert data.tasks == ("rainy", "noisy", "holes")
    with pytest.raises(DataError, match="differ in their tasks"):
        data.setup("fit")
    tree(tmp_path, counts={"rainy": 1})
    predict = RestorationData(predict=LQFolder(str(tmp_path)))
    predict.setup("predict")
    assert predict.tasks == ()


def test_training_patches_are_cut_after_what_reaches_beyond_them(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(1))
    chain = Chain([MotionBlur(extent=(9.0, 9.0)), Inpainting()])
    assert chain.reach == MotionBlur(extent=(9.0, 9.0)).reach == 6
    assert three().reach == 0
    photos = CleanFolder(str(tmp_path), chain, patch_size=16)
    sample = photos[SampleKey(0, 0, 0)]
    assert sample["lq"].shape == sample["gt"].shape == (3, 16, 16)
    assert sample["mask"].shape == (1, 16, 16)
    whole = CleanFolder(str(tmp_path), Tasks({"blur": chain}), patch_size=28)[SampleKey(0, 0, 0)]
    assert whole["lq"].shape == (3, 28, 28)
    # The clean patch is the very one that is cut for a degradation without reach.
    plain = CleanFolder(str(tmp_path), Rain(), patch_size=16)[SampleKey(0, 0, 0)]
    assert torch.equal(plain["gt"], sample["gt"])


def test_a_photo_of_the_size_of_a_patch_is_the_patch(tmp_path: Path) -> None:
    photo = picture(1)[:, :32, :32]
    write_image(tmp_path / "a.png", photo)
    turns = [t.rot90(k, (-2, -1)) for t in (photo, photo.flip(-1)) for k in range(4)]
    files = {(t * 255).round().byte().numpy().tobytes() for t in turns}
    photos = CleanFolder(str(tmp_path), MotionBlur(), patch_size=32)
    for epoch in range(10):
        clean = photos[SampleKey(0, epoch, 0)]["gt"]
        assert (clean * 255).round().byte().contiguous().numpy().tobytes() in files


def test_each_task_is_cut_with_its_own_reach(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(1))
    tasks = Tasks({"blur": MotionBlur(), "holes": Inpainting(share=(0.05, 0.1), half=0)})
    photos = CleanFolder(str(tmp_path), tasks, patch_size=16)
    samples = [photos[SampleKey(0, epoch, 0)] for epoch in range(80)]
    holes = [s for s in samples if s["degradation"] == 1]
    assert 20 < len(holes) < 60
    assert all(bool((s["mask"] == 0).any()) for s in holes)
