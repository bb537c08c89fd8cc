"""The samplers of an evaluation, each at each NFE."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.trials import samplers_at
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler
from mrdiff.tuning.checkpoint_sampler import describe_sampler

__all__ = ["Run", "plan_runs"]


class Run(NamedTuple):
    """A sampler at an NFE, and its name."""

    label: str
    sampler: Sampler

    @property
    def nfe(self) -> int:
        return self.sampler.nfe

    @property
    def key(self) -> str:
        """What is kept of it is found by: another for every change of its options."""
        options = json.dumps(describe_sampler(self.sampler), sort_keys=True)
        name = self.label.partition(" ")[0]
        return f"{name}-{self.nfe}-{hashlib.sha256(options.encode()).hexdigest()[:8]}"


def plan_runs(options: argparse.Namespace, restorer: Restorer) -> tuple[list[Run], list[str]]:
    """The samplers that were named, or the restorer's own, at each NFE; what is left out, and why.

    Raises:
        CommandError: nothing is left.
    """
    left_out, runs = dict[str, None](), list[Run]()
    own = describe_sampler(restorer.sampler)
    specs: dict[str, str | Mapping[str, Any]] = {name: name for name in options.sampler}
    for label, spec in (specs or {_label(own): own}).items():
        for nfe in sorted(set(options.nfe)):
            try:
                found = samplers_at([nfe], restorer.denoiser.process, spec, left_out=left_out)
                runs += [Run(label, sampler) for sampler in found]
            except ValueError as error:  # a grid without times for it
                left_out[f"{label} at NFE {nfe}: {one_line(error)}"] = None
    if not runs:
        raise CommandError(f"nothing can be evaluated: {'; '.join(left_out)}", status=2)
    return runs, list(left_out)


def _label(own: Mapping[str, Any]) -> str:
    """The name of a checkpoint's sampler, if it is no more than that."""
    name = own.get("name")
    if name is None:
        return "own (the checkpoint's)"
    plain = describe_sampler(make_sampler(name))
    return name if {**own, "nfe": plain["nfe"]} == plain else f"{name} (the checkpoint's)"
