"""``mrdiff train`` = ``python train.py``: the light half, which answers before torch is imported.

It prints the short help, finds the config files and inserts ``fit``; then
:mod:`mrdiff.cli.train.run` does the work.
"""

from __future__ import annotations

from mrdiff.cli.common.errors import run_command
from mrdiff.cli.train.arguments import allow_own_classes, prepare
from mrdiff.cli.train.recipes import config_folder, config_names
from mrdiff.system.cores import set_process_defaults

__all__ = ["main"]

_HELP = """\
usage: {program} [fit|validate|test] --config NAME [--config NAME ...] [--KEY VALUE ...]

Train a mean-reverting diffusion model (`fit`, the default) or evaluate a checkpoint.

  --config NAME          a YAML file, or the bare name of a shipped recipe; later ones override
  --ckpt_path last|FILE  fit: resume with everything restored; validate, test: what to use
  --init_from FILE       fit: start a new run from the weights of a checkpoint
  --print_config         print the whole configuration and stop
  --data.root DIR  --model.parameterization noise  --trainer.max_steps 100  ...
                         override any key of the configuration

Every key: {program} fit --help
Recipes in {folder}: {names}
"""


def _help(program: str) -> str:
    names = ", ".join(config_names()) or "none found"
    return _HELP.format(program=program, folder=config_folder(), names=names)


def _train(arguments: list[str], program: str) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        print(_help(program), end="")
        return 0
    prepared = prepare(arguments)
    set_process_defaults()
    allow_own_classes()
    from mrdiff.cli.train.run import run_lightning  # torch and Lightning: seconds

    return run_lightning(prepared)


def main(arguments: list[str], *, program: str = "mrdiff train") -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _train(arguments, program), program=program)
