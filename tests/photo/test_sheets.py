"""Labelled sheets: labels fit, pictures are enlarged by whole factors, nothing overlaps."""

import pytest
import torch

from mrdiff.photo.sheets import above, beside, fitted, heat_map, label


@pytest.mark.parametrize("place", ["left", "centre"])
def test_long_labels_are_cut_in_front_and_stay_inside(place: str) -> None:
    path = "a/long/folder/of/photos/" + 40 * "x" + "/0017.png"
    short, long = (label(text, 160, 24, place=place) for text in ("0017.png", path))
    assert short.shape == long.shape == (3, 24, 160)
    assert long[..., -1].min() == 1  # nothing runs over the edge
    assert (long < 0.5).sum() > (short < 0.5).sum()
    # Both end in the same letters.
    ends = [label(f"{text}/0017.png", 160, 24, place=place) for text in (40 * "x", 60 * "x")]
    assert torch.equal(*ends)


def test_an_empty_label_is_white() -> None:
    assert label("", 50, 24).eq(1).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((40, 64), (200, 320)),  # by five
        ((200, 240), (200, 240)),
        ((700, 350), (512, 256)),
        ((40, 400), (40, 400)),  # twice would be too long
        ((8, 8), (192, 192)),
    ],
)
def test_small_pictures_grow_by_whole_factors_and_large_ones_shrink(size, expected) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    shown = fitted(image, least=192, most=512)
    assert shown.shape[-2:] == expected
    factor = expected[0] // size[0]
    if factor >= 1:
        assert torch.equal(shown[:, ::factor, ::factor], image)


def test_panels_stand_beside_and_above_each_other_on_white() -> None:
    small, large = torch.zeros(3, 4, 5), torch.zeros(3, 7, 2)
    row, column = beside([small, large], gap=3), above([small, large], gap=3)
    assert row.shape == (3, 7, 5 + 3 + 2)
    assert column.shape == (3, 4 + 3 + 7, 5)
    for whole, first, second in (
        (row, row[:, :4, :5], row[:, :, 8:]),
        (column, column[:, :4], column[:, 7:, :2]),
    ):
        assert first.eq(0).all()
        assert second.eq(0).all()
        assert whole.eq(0).sum() == small.numel() + large.numel()


def test_heat_goes_from_black_to_bright() -> None:
    heat = heat_map(torch.tensor([[0.0, 0.05, 0.1, 9.0]]), brightest=0.1)
    assert heat.shape == (3, 1, 4)
    assert heat[:, 0, 0].max() < 0.02
    assert torch.equal(heat[..., 2], heat[..., 3])
    assert heat.sum(0)[0].diff()[:2].min() > 0


def test_any_name_can_be_drawn() -> None:
    for name in ("caf\udce9.png", "two\nlines \x1b[31m"):
        assert label(name, 300, 20).min() < 0.5
