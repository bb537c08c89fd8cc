"""Degradations of degradations: order, frequency, nesting, masks, and their YAML."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from datamodules.degradations import Chain, Degradation, OneOf, Rain, Repeat, Sometimes, Tasks
from datamodules.degradations.base import Degraded, to_8_bit
from datamodules.randomness import new_seed


class Plus(Degradation):
    """Adds some levels of 1/255."""

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return to_8_bit(image + self.levels / 255)


class Double(Degradation):
    """Doubles what is there, which does not commute with adding."""

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return to_8_bit(2 * image)


class Hole(Degradation):
    """Cuts one random column out."""

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return self.degrade_with_mask(image, generator).lq

    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        mask = torch.ones_like(image[:1])
        mask[..., int(torch.randint(image.shape[-1], (), generator=generator))] = 0
        return Degraded(image * mask, mask)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGE = torch.full((3, 8, 8), 10 / 255)


def levels(degradation: Degradation, seed: int) -> int:
    """The one level that a degradation makes of level 10 everywhere."""
    return round(float(degradation.degrade(IMAGE, generator(seed)).mean()) * 255)


def test_a_chain_is_its_stages_by_hand_with_one_generator() -> None:
    photo = to_8_bit(torch.rand(3, 40, 48, generator=generator()))
    stages = [Rain(), Plus(9), Rain(layers=(1, 2))]
    by_hand, random = photo, generator(3)
    for stage in stages:
        drawn = stage.draw(random, (3, 40, 48))
        by_hand = stage.apply(by_hand[None], stage.pack([drawn])).lq[0]
    assert torch.equal(Chain(stages).degrade(photo, generator(3)), by_hand)
    nested = Chain([Chain(stages[:1]), Chain(stages[1:])])
    assert torch.equal(nested.degrade(photo, generator(3)), by_hand)


def test_a_shuffled_chain_comes_in_every_order_equally_often() -> None:
    chain = Chain([Plus(1), Double(), Plus(50)], shuffle=True)
    # Level 10 through +1, x2, +50 in the six orders; two pairs of orders agree.
    counts = Counter(levels(chain, seed) for seed in range(600))
    assert set(counts) == {71, 72, 121, 122}
    assert counts[71] == pytest.approx(200, abs=50)
    assert counts[72] == pytest.approx(100, abs=40)
    assert counts[121] == pytest.approx(100, abs=40)
    assert counts[122] == pytest.approx(200, abs=50)
    assert {levels(Chain([Plus(1), Double(), Plus(50)]), seed) for seed in range(9)} == {72}


def test_one_of_chooses_by_its_weights() -> None:
    choices: list[Degradation] = [Plus(0), Plus(1), Plus(2), Plus(3)]
    weighted = Counter(
        levels(OneOf(choices, weights=[2.0, 1.0, 0.0, 1.0]), seed) - 10 for seed in range(800)
    )
    assert weighted[0] == pytest.approx(400, abs=60)
    assert weighted[1] == pytest.approx(200, abs=50)
    assert weighted[2] == 0
    plain = Counter(levels(OneOf(choices), seed) - 10 for seed in range(800))
    assert [plain[k] for k in range(4)] == pytest.approx([200] * 4, abs=50)


def test_sometimes_is_never_always_or_as_often_as_asked() -> None:
    made = {
        probability: sum(
            levels(Sometimes(Plus(5), probability=probability), seed) == 15 for seed in range(400)
        )
        for probability in (0.0, 0.25, 1.0)
    }
    assert made[0.0] == 0
    assert made[1.0] == 400
    assert made[0.25] == pytest.approx(100, abs=35)


def test_repeat_draws_how_often_and_each_time_anew() -> None:
    counts = Counter(levels(Repeat(Plus(1), times=(0, 3)), seed) - 10 for seed in range(400))
    assert set(counts) == {0, 1, 2, 3}
    assert all(count == pytest.approx(100, abs=40) for count in counts.values())
    degraded = Repeat(Hole(), times=(3, 3)).degrade_with_mask(torch.ones(3, 8, 64), generator(1))
    assert degraded.mask is not None
    assert int((degraded.mask[0, 0] == 0).sum()) == 3


def test_untouched_images_are_new_and_rounded() -> None:
    image = torch.rand(3, 8, 8, dtype=torch.float64, generator=generator())
    for spare in (Sometimes(Plus(1), probability=0.0), Repeat(Plus(1), times=(0, 0))):
        assert torch.equal(spare.degrade(image, generator()), to_8_bit(image))


def test_masks_of_the_parts_are_multiplied() -> None:
    image = torch.ones(1, 8, 32)
    random = generator(5)
    first = Hole().degrade_with_mask(image, generator(new_seed(random)))
    new_seed(random)  # of the part between them
    second = Hole().degrade_with_mask(first.lq, generator(new_seed(random)))
    degraded = Chain([Hole(), Plus(0), Hole()]).degrade_with_mask(image, generator(5))
    assert first.mask is not None
    assert second.mask is not None
    assert degraded.mask is not None
    assert not torch.equal(first.mask, second.mask)
    assert torch.equal(degraded.mask, first.mask * second.mask)
    assert torch.equal(degraded.lq, Chain([Hole(), Plus(0), Hole()]).degrade(image, generator(5)))


def test_every_picture_has_a_mask_or_none_has() -> None:
    some = OneOf([Sometimes(Hole(), probability=0.5), Plus(1)])
    assert some.cuts_holes
    masks = [some.degrade_with_mask(IMAGE, generator(seed)).mask for seed in range(40)]
    assert all(mask is not None and mask.shape == (1, 8, 8) for mask in masks)
    assert {int(mask.eq(0).sum()) for mask in masks if mask is not None} == {0, 8}
    dry = Chain([OneOf([Plus(1), Rain()]), Repeat(Plus(1), times=(1, 2))])
    assert not dry.cuts_holes
    assert dry.degrade_with_mask(IMAGE, generator()).mask is None


def test_what_cannot_be_meant_is_refused() -> None:
    for kind in (Chain, OneOf):
        with pytest.raises(ValueError, match="at least one degradation"):
            kind([])
    with pytest.raises(ValueError, match="degradation: Tasks names tasks: put it outermost"):
        Sometimes(Tasks({"rain": Rain()}), probability=0.5)
    with pytest.raises(ValueError, match="stages must be degradations, got <class"):
        Chain([Rain])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="weights must be one a choice: 1 for 2"):
        OneOf([Rain(), Rain()], weights=[1.0])
    for weights in ([-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(ValueError, match="weights must be at least 0 and not all 0"):
            OneOf([Rain(), Rain()], weights=weights)
    for probability in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="probability"):
            Sometimes(Rain(), probability=probability)
    for times in ((2, 1), (-1, 1), (0, 65)):
        with pytest.raises(ValueError, match="times"):
            Repeat(Rain(), times=times)


def test_a_batch_is_rounded_as_its_images_are() -> None:
    images = torch.rand(12, 3, 8, 8, generator=generator())
    for degradation in (
        OneOf([Plus(0), Rain(brightness=(0, 0))]),
        Chain([Sometimes(Plus(0), probability=0.5), Repeat(Rain(layers=(0, 0)), times=(0, 2))]),
    ):
        draws = [degradation.draw(generator(i), (3, 8, 8)) for i in range(12)]
        together = degradation.apply(images, degradation.pack(draws)).lq
        for i, drawn in enumerate(draws):
            one = degradation.apply(images[i : i + 1], degradation.pack([drawn])).lq
            assert torch.equal(together[i : i + 1], one)
