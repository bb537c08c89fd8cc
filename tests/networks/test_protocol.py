"""The written protocol is what the code asks for, and our networks follow it."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from torch import nn

from mrdiff.networks import DACLIPUNet, IRSDEUNet, RefusionNAFNet, UNet
from mrdiff.networks.protocol import (
    Network,
    classifier_parameters,
    image_channels,
    known_features,
    known_tasks,
    prepare_network,
    takes_mask,
)
from tests.places import ROOT

OPTIONAL = {*Network.__annotations__, "classify", "prepare"}


class Bare(nn.Module):
    """Only what is needed."""

    def forward(self, x, mu, t, context=None):
        return x - mu


def test_without_the_optional_parts_their_defaults_count() -> None:
    network = Bare()
    assert not any(hasattr(network, name) for name in OPTIONAL)
    assert image_channels(network) == 3
    assert (known_tasks(network), known_features(network)) == ((), {})
    assert not takes_mask(network)
    assert not [*classifier_parameters(network)]
    with torch.no_grad():
        assert prepare_network(network, None, torch.ones(1), None) is None


@pytest.mark.parametrize("kind", [UNet, IRSDEUNet, RefusionNAFNet, DACLIPUNet])
def test_our_networks_have_the_signatures(kind: type[nn.Module]) -> None:
    for name in ("forward", "prepare"):
        wanted = inspect.signature(getattr(Network, name)).parameters
        ours = inspect.signature(getattr(kind, name)).parameters
        assert [*ours] == [*wanted]
        assert ours["context"].default is None
    with torch.device("meta"):
        network = kind()
    assert image_channels(network) == 3
    assert network.size_multiple > 1


def test_the_docs_list_every_optional_part() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)", text, flags=re.M)
    assert {*table} >= OPTIONAL


def test_the_lookups_stand_in_the_protocol_alone() -> None:
    names = "|".join(OPTIONAL)
    for path in (ROOT / "mrdiff").rglob("*.py"):
        if path.name != "protocol.py":
            found = re.findall(rf"getattr\(\S*network, \"({names})\"", path.read_text("utf-8"))
            assert not found, f"{path} asks for {found}"
