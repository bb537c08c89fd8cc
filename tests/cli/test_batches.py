"""Photos of a folder in batches: gathered by size, restored together, told of in their order."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mrdiff.cli.common.jobs import Job, find_photos
from mrdiff.cli.common.targets import plan_targets
from mrdiff.cli.sample import photos as module
from mrdiff.cli.sample.batches import Failed, Loaded, batches
from mrdiff.photo import PhotoFile
from mrdiff.restoration.ensemble import Ensemble

SIZES = st.sampled_from([(4, 6), (6, 4), (5, 5), (1, 40)])


def loaded(number: int, size: tuple[int, int]) -> Loaded:
    job = Job(Path(f"{number}.png"), Path(f"{number}.png"), target=Path("out.png"))
    return Loaded(job, PhotoFile(torch.zeros(3, *size)), None)


@settings(max_examples=50, deadline=None)
@given(st.lists(SIZES | st.none()), st.integers(1, 4), st.integers(0, 200))
def test_equal_sizes_are_gathered_within_the_budget(
    sizes: list[tuple[int, int] | None], most: int, budget: int
) -> None:
    items = [
        Failed(Job(Path("x"), Path("x"), target=Path("o")), "") if size is None else loaded(i, size)
        for i, size in enumerate(sizes)
    ]
    found = list(batches(items, lambda height, width: most, budget=budget))
    groups = [one for one in found if not isinstance(one, Failed)]
    assert len(found) - len(groups) == sizes.count(None)
    assert sorted(int(one.job.source.stem) for group in groups for one in group) == [
        i for i, size in enumerate(sizes) if size is not None
    ]
    for group in groups:
        assert len({one.size for one in group}) == 1
        assert len(group) <= most
        places = [int(one.job.source.stem) for one in group]
        assert places == sorted(places)
    if budget >= sum(math.prod(size) for size in sizes if size):  # all of a size but the last
        for size in {*sizes} - {None}:
            counts = [len(group) for group in groups if group[0].size == size]
            assert counts[:-1] == [most] * (len(counts) - 1)


def test_alone_they_come_at_once() -> None:
    """On a CPU: nothing waits for what may come."""
    coming = iter([loaded(0, (4, 6)), loaded(1, (5, 5))])
    first = next(batches(coming, lambda *_: 1, budget=1000))
    assert [one.job.source.stem for one in first] == ["0"]
    assert next(coming).job.source.stem == "1"


class FakeGPU:
    """A restorer on a card, which holds four photos."""

    device = torch.device("cuda")
    sampler = SimpleNamespace(nfe=2, spec=None)

    def __init__(self) -> None:
        self.tiler = SimpleNamespace(photos=lambda *_: 4, side=lambda *_: None)
        self.batches: list[list[str]] = []

    def draw(
        self, lq: Tensor, names: list[str], *, callback: Callable | None, **_: Any
    ) -> Ensemble:
        assert callback is None  # or the calls of a run could not be one program
        self.batches.append(list(names))
        if "f" in names:
            raise MemoryError
        return Ensemble(lq, torch.zeros_like(lq))


def test_a_cards_photos_go_together_and_are_told_of_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "lq").mkdir()
    for i, name in enumerate("abcdefghij"):
        size, mode = (40, 30) if i % 2 else (30, 40), "RGBA" if name in "cg" else "RGB"
        Image.new(mode, size, (i, 0, 0, 90)[: len(mode)]).save(tmp_path / f"lq/{name}.png")
    (tmp_path / "lq" / "d.png").write_bytes(b"no photo")
    monkeypatch.setattr(module, "available_cores", lambda: 6)
    true = module.write_photo

    def slow(target: Path, *given: Any, **options: Any) -> None:  # the first ends last
        time.sleep(0.05 if target.stem == "a" else 0)
        true(target, *given, **options)

    monkeypatch.setattr(module, "write_photo", slow)
    jobs = plan_targets(find_photos(tmp_path / "lq"), tmp_path / "out", suffix=".jpg")
    gpu = FakeGPU()
    outcome = module.restore_all(gpu, jobs, log=tmp_path / "log.jsonl")  # type: ignore[arg-type]
    # Of each size at once those that the folder has, though their sizes take turns.
    first, second, *alone, last = gpu.batches
    assert (first, second, last) == (["a", "c", "e", "g"], ["b", "f", "h", "j"], ["i"])
    assert alone == [["b"], ["f"], ["h"], ["j"]]  # for want of memory
    assert [job.source.stem for job in outcome.failures] == ["d", "f"]
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["file"]).stem for line in lines] == list("abcdefghij")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [Path(line.split(": ")[1]).stem for line in told] == ["c", "g"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.jpg")) == list("abceghij")
    gpu = FakeGPU()
    module.restore_all(gpu, jobs[:1], batch_size=2)  # type: ignore[arg-type]
    assert gpu.batches == [["a"]]
