"""Where a step of a recipe's training goes, and how it compares to another checkout.

    python -m benchmarks.training_step [--config derain.yaml] [--steps 40] [--other DIR] [--cpu]

The real run without validation. ``--other`` trains by the packages of DIR too, by turns of a few
steps each, so that a busy machine disturbs both alike; there ``--cpu`` with ``OMP_NUM_THREADS=1``
counts CPU time instead, that of loading workers aside. A phase within another counts alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.turns import answer, by_turns

_TURN, _WARMUP = 5, 10  # steps


class Phases:
    """Seconds by phase; a phase within another interrupts it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.clock, self.mark, self._open = clock, clock(), ["Lightning's loop"]

    def lap(self) -> None:
        now = self.clock()
        self.seconds[self._open[-1]] += now - self.mark
        self.mark = now

    def watch(self, owner: Any, method: str, phase: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*given: Any, **options: Any) -> Any:
            self.lap()
            self._open.append(phase)
            try:
                return inner(*given, **options)
            finally:
                self.lap()
                self._open.pop()

        setattr(owner, method, timed)


def _watch(phases: Phases, run: Any) -> None:
    """Before a step, when the loop has everything."""
    trainer = run.trainer
    phases.watch(run.model, "training_step", "forward")
    phases.watch(trainer.strategy, "backward", "backward")
    phases.watch(trainer.precision_plugin, "clip_gradients", "clipping")
    phases.watch(trainer.optimizers[0], "step", "optimizer")
    fetcher = trainer.fit_loop._data_fetcher
    # Python looks a special method up in the class.
    fetcher.__class__ = type("Watched", (type(fetcher),), {})
    phases.watch(fetcher.__class__, "__next__", "data")
    for callback in trainer.callbacks[:-1]:
        name = type(callback).__name__
        for method in ("on_train_batch_start", "on_train_batch_end"):
            phases.watch(callback, method, name if name == "EMA" else "other callbacks")


def train(config: str, turns: int, clock: Callable[[], float]) -> None:
    """By turns, after each of which it waits."""
    from mrdiff.system.cores import set_process_defaults  # of whichever checkout is tested

    set_process_defaults()
    from lightning.pytorch import Callback

    from mrdiff.cli.train.arguments import prepare
    from mrdiff.cli.train.run import build_run

    class Turns(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            step = trainer.global_step
            if step == _WARMUP:
                _watch(phases, run)
            if step >= _WARMUP and step % _TURN == 0:
                phases.lap()
                answer(phases.seconds)
                phases.seconds.clear()
                phases.mark = clock()

    phases = Phases(clock)
    with tempfile.TemporaryDirectory() as scratch:
        given = ["--config", config, f"--trainer.max_steps={_WARMUP + turns * _TURN}"]
        given += ["--trainer.val_check_interval=1000000000", "--trainer.num_sanity_val_steps=0"]
        given += ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={scratch}"]
        run = build_run(prepare([*given, f"--trainer.logger.init_args.save_dir={scratch}"]))
        trainer: Any = run.trainer
        trainer.callbacks.append(Turns())
        trainer.fit(run.model, run.datamodule)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="derain.yaml")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    turns = options.steps // _TURN
    if options.worker:
        train(options.config, turns, time.process_time if options.cpu else time.perf_counter)
        return 0
    arguments = ["--config", options.config, "--steps", str(options.steps)]
    arguments += ["--cpu"] if options.cpu else []
    found = [
        {phase: statistics.median(a.get(phase, 0) for a in answers) / _TURN for phase in answers[0]}
        for answers in by_turns("benchmarks.training_step", arguments, options.other, turns)
    ]
    names, totals = ("here", "other")[: len(found)], [sum(each.values()) for each in found]
    print(f"| phase | {' | '.join(names)} |\n|---|{'---|' * len(found)}")
    for phase in sorted(found[0]):
        cells = [(each.get(phase, 0), total) for each, total in zip(found, totals, strict=True)]
        row = (f"{1e3 * spent:.1f} ms, {spent / total:.0%}" for spent, total in cells)
        print(f"| {phase} | {' | '.join(row)} |")
    print(f"| a step | {' | '.join(f'{1e3 * total:.0f} ms' for total in totals)} |")
    if options.other:
        print(f"\nhere / other: {totals[1] / totals[0]:.2f} of the images/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
