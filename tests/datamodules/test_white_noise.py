"""White noise from a seed and a place."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from datamodules.degradations.white_noise import _PATCH, _words, normal_field

_MASK = (1 << 64) - 1


def _split_mix(seed: int, count: int) -> list[int]:
    """SplitMix64 word by word, in Python's integers."""
    found = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & _MASK
        word = seed
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
        found.append(word ^ (word >> 31))
    return found


@given(seeds=st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=4), count=st.integers(1, 40))
@settings(deadline=None)
def test_the_words_are_those_of_splitmix64(seeds: list[int], count: int) -> None:
    words = _words(torch.tensor(seeds), count)
    assert [[word & _MASK for word in row] for row in words.tolist()] == [
        _split_mix(seed, count) for seed in seeds
    ]


def test_the_first_words_are_the_published_ones() -> None:
    # Of the reference implementation for the seed 1234567 (prng.di.unimi.it).
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert _split_mix(1234567, 3) == known


def test_a_field_is_a_function_of_its_own_seed() -> None:
    seeds = torch.tensor([5, 2**61, 77])
    together = normal_field(seeds, (3, 7, 9))
    assert together.shape == (3, 3, 7, 9)
    assert together.dtype == torch.float32
    for seed, one in zip(seeds, together, strict=True):
        assert torch.equal(normal_field(seed[None], (3, 7, 9))[0], one)
    assert normal_field(seeds.to("meta"), (3, 5, 5)).shape == (3, 3, 5, 5)


def test_the_distribution_is_normal_and_finite() -> None:
    normal = normal_field(torch.arange(20), (100, 101)).flatten().double()
    assert bool(normal.isfinite().all())
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3
    assert float(normal.abs().max()) > 4


def test_a_large_field_begins_as_a_small_one() -> None:
    seeds = torch.tensor([9])
    large = normal_field(seeds, (2 * _PATCH + 50,))
    assert torch.equal(large[:, :1000], normal_field(seeds, (1000,)))


def test_neighbours_halves_and_seeds_are_independent() -> None:
    noise = normal_field(torch.arange(40), (64, 64)).double()
    count = noise.numel()
    flat = noise.flatten(1)
    pairs = {
        "across": (noise[..., 1:], noise[..., :-1]),
        "down": (noise[:, 1:], noise[:, :-1]),
        "the halves of a word": (flat[:, ::2], flat[:, 1::2]),
        "seeds in a row": (noise[1:], noise[:-1]),
    }
    for name, (a, b) in pairs.items():
        for power in (1, 2):  # uncorrelated, and so are the squares
            one, other = (x**power - (x**power).mean() for x in (a, b))
            likeness = float((one * other).mean() / (one.std() * other.std()))
            assert abs(likeness) < 5 / math.sqrt(count / 2), (name, power)
