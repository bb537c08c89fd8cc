"""What is measured: the metrics that were named, or all that can be measured here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from mrdiff.cli.common.errors import CommandError
from mrdiff.metrics import Features, Meter
from mrdiff.system.names import IMAGE_METRICS, METRIC_TITLES, SET_METRICS

__all__ = ["Measures", "find_measures"]

# Of crops alone: it takes 70 times the memory of an image.
_DEFAULT = tuple(name for name in (*IMAGE_METRICS, *SET_METRICS) if name != "sw")


@dataclass(frozen=True)
class Measures:
    """Measures single images, and gives the features of sets; what is ``missing``, and why."""

    meter: Meter
    features: Features | None
    names: list[str]
    missing: Mapping[str, str]

    @property
    def backbone(self) -> str | None:
        """Whose features FID and KID compare."""
        return None if self.features is None else self.features.name

    @property
    def words(self) -> str:
        """What is not measured, and why."""
        return "; ".join(f"{METRIC_TITLES[n]} ({reason})" for n, reason in self.missing.items())


def find_measures(options: argparse.Namespace) -> Measures:
    """What the flags want.

    Raises:
        CommandError: a metric that was named cannot be measured here.
        ValueError: of our own kinds, for weights that cannot be used.
    """
    wanted = options.metrics or _DEFAULT
    meter = Meter(
        [name for name in wanted if name in IMAGE_METRICS],
        protocol=options.protocol,
        lpips_weights=options.lpips_weights,
        vgg_weights=options.vgg_weights,
    )
    missing, sets = dict(meter.missing), [name for name in wanted if name in SET_METRICS]
    features = Features.find(options.backbone, options.backbone_weights) if sets else None
    if features is None:
        reason = "no weights of a backbone: give --backbone NAME --backbone_weights FILE"
        missing |= dict.fromkeys(sets, reason)
    if options.metrics and missing:
        name, reason = next(iter(missing.items()))
        raise CommandError(f"--metrics {name}: {reason}", status=2)
    names = [name for name in dict.fromkeys(wanted) if name not in missing]
    return Measures(meter, features, names, missing)
