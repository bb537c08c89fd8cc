"""The page of a model: true, and plain whatever its description says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mrdiff.checkpoints.card import model_card
from mrdiff.checkpoints.places import find_model
from mrdiff.checkpoints.reading import read_checkpoint
from tests.tiny_model import write_tiny_checkpoint

EVIL = 'x`\n---\nlicense: evil\n```\n<script>alert(1)</script> [a](javascript:b) | $(rm) "\x1b'


def parts(card: str) -> tuple[dict[str, Any], str]:
    start, metadata, page = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(metadata), page


def test_a_card_says_what_the_model_is(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "tiny.ckpt", tasks=("rainy", "hazy"))
    stored = read_checkpoint(path)
    degradation = {"class_path": "datamodules.degradations.Rain", "init_args": {}}
    leaves = {"class_path": "datamodules.DeadLeaves", "init_args": {"degradation": degradation}}
    config = {**stored.config, "data": {"train": leaves}, "sampler": {"name": "fidelity", "nfe": 3}}
    place = "hf://org/tiny"
    metadata, page = parts(model_card(config, stored.weights, place=place, license="mit"))
    assert metadata == {
        "library_name": "mrdiff",
        "pipeline_tag": "image-to-image",
        "tags": ["image-to-image", "image-restoration", "diffusion"],
        "license": "mit",
    }
    for said in (
        f"`mrdiff.networks.UNet`, {sum(w.numel() for w in stored.weights.values()):,} parameters",
        "* path: `mrdiff.MRProcess`, `mrdiff.CosineTheta`\n* predicts: `data`",
        "* tasks: `rainy`, `hazy`",
        "* sampler: `fidelity`, 3 network calls a photo",
        "* trained on: `datamodules.DeadLeaves`, `datamodules.degradations.Rain`",
        'Restorer.from_pretrained("org/tiny")',
        "mrdiff sample photo.jpg --checkpoint hf://org/tiny",
    ):
        assert said in page
    assert "license" not in parts(model_card(config, stored.weights, place=place))[0]


def test_the_bundled_model_has_a_card() -> None:
    stored = read_checkpoint(find_model("universal"))
    _, page = parts(model_card(stored.config, stored.weights, place="universal"))
    assert "`snowy`" in page
    assert "datamodules.degradations.Haze" in page


@pytest.mark.parametrize("key", ["tasks", "class_path", "sampler", "data", "place", "license"])
def test_nothing_of_a_description_is_markup(key: str, tmp_path: Path) -> None:
    stored = read_checkpoint(write_tiny_checkpoint(tmp_path / "tiny.ckpt"))
    config: dict[str, Any] = stored.config
    network = config["model"]["network"]
    if key == "tasks":
        network["init_args"]["tasks"] = [EVIL, 3, {EVIL: EVIL}]
    elif key == "class_path":
        network["class_path"] = EVIL
    elif key == "sampler":
        config["sampler"] = {"name": EVIL, "nfe": EVIL}
    elif key == "data":
        config["data"] = {"train": [{"class_path": EVIL * 20, "init_args": EVIL}] * 100}
    place = EVIL if key == "place" else "hf://org/tiny"
    given = EVIL if key == "license" else None
    metadata, page = parts(model_card(config, {"w": torch.ones(3)}, place=place, license=given))
    assert metadata.get("license") == given
    assert metadata["library_name"] == "mrdiff"
    for sign in ("<", "](", "$(", "\x1b", "|"):
        assert sign not in page
    assert page.count("```") == 4
    assert all(line.replace("```", "").count("`") % 2 == 0 for line in page.splitlines())
    assert not re.search(r"(?m)^(---|license)", page)
    assert len(page) < 10_000
