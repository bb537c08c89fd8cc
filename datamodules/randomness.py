"""Where every random number of the data comes from: (seed, epoch, index), or (seed, name).

No generator is kept between samples and none belongs to a worker, so the number of workers, of
processes and the batch size change nothing, and a run can be continued in the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch


class SampleKey(NamedTuple):
    """What a training sampler asks a dataset for: which item, in which epoch, of which seed."""

    seed: int
    epoch: int
    item: int


def _mixed(*words: int) -> int:
    """63 well-mixed bits of some non-negative integers (numpy's SeedSequence hash)."""
    high, low = np.random.SeedSequence(words).generate_state(2, dtype=np.uint32).tolist()
    return int((high << 31) ^ low)


def generator_of(key: SampleKey) -> torch.Generator:
    """The CPU generator of one training sample: a function of (seed, epoch, index) alone."""
    return torch.Generator().manual_seed(_mixed(key.seed, key.epoch, key.item))


def generator_of_name(seed: int, name: str) -> torch.Generator:
    """The CPU generator of one named image: a function of (seed, name) alone."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return torch.Generator().manual_seed(_mixed(seed, int.from_bytes(digest, "big")))


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number from [low, high); ``low`` itself when the two are equal."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def log_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number from [low, high), ``low`` above 0, drawn uniformly in its logarithm."""
    return math.exp(uniform(math.log(low), math.log(high), generator))


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """One integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def new_seed(generator: torch.Generator) -> int:
    """A seed in [0, 2^62) for what is made elsewhere, such as a field of noise."""
    return int(torch.randint(2**62, (), generator=generator))
