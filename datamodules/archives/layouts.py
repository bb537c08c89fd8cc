"""How the archives of the benchmarks are laid out: one entry each.

A rule is a pattern for the path of a member. The path is preceded by the archive's own name, so
that an archive whose members lie at its top is recognised too, and is without the suffix; the
pattern has to match its end, whatever folders come before and however the letters are cased.
Sources, and what of this was verified: docs/datasets.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["LQ", "GT", "mask"]


@dataclass(frozen=True)
class Rule:
    """Members whose path ends like the regular expression ``pattern`` go to ``SPLIT/ROLE/NAME``.

    ``split`` is ``train``, ``test``, or a further test set. ``name`` is a template of the
    pattern's groups, the same for both photos of a pair.
    """

    split: str
    role: Role
    pattern: str
    name: str = r"\1"

    def match(self, path: str) -> str | None:
        """The name that this rule gives to ``path`` (without suffix), or None."""
        found = re.fullmatch(f"(?:.*/)?{self.pattern}", path, re.IGNORECASE)
        return None if found is None else found.expand(self.name)


@dataclass(frozen=True)
class Benchmark:
    """What its archive looks like, in words and in rules, and the configuration to train with.

    Of two rules that lead to the same place the earlier counts.
    """

    layout: str
    recipe: str
    rules: tuple[Rule, ...] = field(repr=False)

    @property
    def paired(self) -> bool:
        """Whether it has degraded photos; otherwise they are made from the clean ones."""
        return any(rule.role == "LQ" for rule in self.rules)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has, in the order of the rules."""
        return tuple(dict.fromkeys(rule.split for rule in self.rules))


def _pair(split: str, lq: str, gt: str, *, name: str = r"\1") -> tuple[Rule, ...]:
    return Rule(split, "LQ", lq, name), Rule(split, "GT", gt, name)


def _both(lq: str, gt: str, *, name: str = r"\1") -> tuple[Rule, ...]:
    """Pairs to train and to test whose patterns differ in the word ``SPLIT``."""
    splits = ("train", "test")
    patterns = [(split, lq.replace("SPLIT", split), gt.replace("SPLIT", split)) for split in splits]
    return tuple(rule for pattern in patterns for rule in _pair(*pattern, name=name))


def _rain100(letter: str, word: str) -> Benchmark:
    """Rain100H or Rain100L: the first release, and the second with its doubled names."""
    folders = {
        "train": (f"RainTrain{letter}", f"rain_data_train_{word}"),
        "test": (f"Rain100{letter}", f"(?:rain_data_test_{word}|rain_{word}_test)"),
    }
    rules: list[Rule] = []
    for split, (old, new) in folders.items():
        rainy = rf"{new}/rain/(?:X2/)?norain-(\d+)(?:x2)?"
        rules += _pair(split, rf"{old}/rain-(\d+)", rf"{old}/norain-(\d+)")
        rules += _pair(split, rf"{old}/rainy?/rain-(\d+)", rf"{old}/norain/norain-(\d+)")
        rules += _pair(split, rainy, rf"{new}/norain/norain-(\d+)")
    return Benchmark(
        layout=f"RainTrain{letter}/(no)rain-N.png and Rain100{letter}/[rainy/](no)rain-N.png, or "
        f"rain_data_{{train,test}}_{word}/rain/[X2/]norain-Nx2.png and .../norain/norain-N.png",
        recipe="derain.yaml",
        rules=tuple(rules),
    )


_CELEBA = r"(?:CelebA-HQ-img|celeba_hq_256)"

BENCHMARKS: Mapping[str, Benchmark] = {
    "gopro": Benchmark(
        layout="{train,test}/SCENE/{blur,sharp}/N.png",
        recipe="deblur.yaml",
        rules=_both(r"SPLIT/([^/]+)/blur/(\d+)", r"SPLIT/([^/]+)/sharp/(\d+)", name=r"\1/\2"),
    ),
    "reside-6k": Benchmark(
        layout="{train,test}/{hazy,GT}/NAME.jpg",
        recipe="dehaze.yaml",
        rules=_both(r"SPLIT/hazy/([^/]+)", r"SPLIT/GT/([^/]+)"),
    ),
    "div2k": Benchmark(
        layout="DIV2K_train_HR/N.png and DIV2K_valid_HR/N.png",
        recipe="dejpeg.yaml",
        rules=(
            Rule("train", "GT", r"DIV2K_train_HR/(\d+)"),
            Rule("test", "GT", r"DIV2K_valid_HR/(\d+)"),
        ),
    ),
    "flickr2k": Benchmark(
        layout="Flickr2K_HR/N.png",
        recipe="dejpeg.yaml",
        rules=(Rule("train", "GT", r"Flickr2K(?:_HR)?/(\d+)"),),
    ),
    "lol": Benchmark(
        layout="our485/{low,high}/N.png and eval15/{low,high}/N.png",
        recipe="lowlight.yaml",
        rules=_pair("train", r"our485/low/(\d+)", r"our485/high/(\d+)")
        + _pair("test", r"eval15/low/(\d+)", r"eval15/high/(\d+)"),
    ),
    "cbsd68": Benchmark(
        layout="CBSD68/original_png/N.png or CBSD68/N.png",
        recipe="denoise.yaml",
        rules=(
            Rule("test", "GT", r"CBSD68/original_png/(\d+)"),
            Rule("test", "GT", r"CBSD68/(\d+)"),
        ),
    ),
    "raindrop": Benchmark(
        layout="{train,test_a,test_b}/data/N_rain.png and .../gt/N_clean.png",
        recipe="deraindrop.yaml",
        rules=_pair("train", r"train/data/(\d+)_rain", r"train/gt/(\d+)_clean")
        + _pair("test", r"test_a/data/(\d+)_rain", r"test_a/gt/(\d+)_clean")
        + _pair("test_b", r"test_b/data/(\d+)_rain", r"test_b/gt/(\d+)_clean"),
    ),
    "rain100h": _rain100("H", "Heavy"),
    "rain100l": _rain100("L", "Light"),
    "srd": Benchmark(
        layout="Train/shadow/X.jpg and Train/shadow_free/X_no_shadow.jpg; "
        "Test/shadow/X.jpg and Test/shadow_free/X_free.jpg",
        recipe="deshadow.yaml",
        rules=_both(
            r"SPLIT[^/]*/shadow/([^/]+)",
            r"SPLIT[^/]*/shadow_free/([^/]+?)(?:_no_shadow|_free)?",
        ),
    ),
    "istd": Benchmark(
        layout="{train/train,test/test}_{A,C}/NAME.png",
        recipe="deshadow.yaml",
        rules=_both(r"SPLIT_A/([^/]+)", r"SPLIT_C/([^/]+)"),
    ),
    "snow100k": Benchmark(
        layout="all/{synthetic,gt}/NAME.jpg and Snow100K-{L,M,S}/{synthetic,gt}/NAME.jpg",
        recipe="desnow.yaml",
        rules=_pair(
            "train",
            r"(?:all|Snow100K-training)/synthetic/([^/]+)",
            r"(?:all|Snow100K-training)/gt/([^/]+)",
        )
        + _pair(
            "test",
            r"(Snow100K-[LMS])/synthetic/([^/]+)",
            r"(Snow100K-[LMS])/gt/([^/]+)",
            name=r"\1/\2",
        ),
    ),
    "celeba-hq": Benchmark(
        layout="CelebA-HQ-img/N.jpg or celeba_hq_256/N.jpg, with gt_keep_masks/KIND/NAME.png",
        recipe="inpaint.yaml",
        rules=(
            Rule("train", "GT", rf"{_CELEBA}/(0*[1-9]\d\d+)"),
            Rule("test", "GT", rf"{_CELEBA}/(0*\d\d?)"),  # the first hundred: our choice
            Rule("test", "mask", r"gt_keep_masks/([^/]+)/([^/]+)", r"\1/\2"),
        ),
    ),
}
