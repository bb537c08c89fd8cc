"""Noise of an image depends on (seed, name, step) alone; on the CPU its bits are for ever."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mrdiff.solvers.noise import named_noise


def reference(seed: int, name: str, step: int, shape: tuple[int, ...]) -> Tensor:
    """One image's, drawn plainly."""
    named = f"{seed}\0{name}\0{step}".encode(errors="surrogatepass")
    number = int.from_bytes(hashlib.sha256(named).digest()[:8], "little") >> 1
    return torch.randn(*shape, generator=torch.Generator().manual_seed(number))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**40),
    st.lists(st.text(st.characters()), min_size=1, max_size=4),
    st.integers(0, 100),
    st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
)
def test_each_image_has_its_own_whatever_the_batch(
    seed: int, names: list[str], step: int, shape: tuple[int, int, int]
) -> None:
    source = named_noise(seed, names)
    source(step + 1, (len(names), *shape))  # another step before it does not matter
    out = torch.empty(len(names), *shape)
    assert source(step, out.shape, out) is out
    assert out.equal(torch.stack([reference(seed, name, step, shape) for name in names]))
    assert out.equal(source(step, out.shape))


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_on_a_card_it_is_drawn_there_and_nothing_is_uploaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The CPU stands in for the card."""
    true, asked = (torch.Generator, torch.empty), list[torch.device]()

    class Generator:
        def __init__(self, device: torch.device) -> None:
            asked.append(device)
            self.device, self._true = device, true[0]()

        def manual_seed(self, seed: int) -> torch.Generator:
            return self._true.manual_seed(seed)

    def empty(shape: tuple[int, ...], *, device: torch.device) -> Tensor:
        asked.append(device)
        return true[1](shape)

    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "empty", empty)
    cuda = torch.device("cuda", 1)
    with _Calls() as calls:
        drawn = named_noise(3, ["a", "b"], device=cuda)(2, (2, 3, 8, 8))
    assert asked == [cuda, cuda]
    assert calls.names.count("aten::normal_") == 2
    assert {*calls.names} == {"aten::empty", "aten::unbind", "aten::normal_"}
    assert not drawn[0].equal(drawn[1])
    named_noise(3, ["a"], device=torch.device("mps"))
    assert asked[-1] == torch.device("cpu")
