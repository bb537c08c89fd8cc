"""``mrdiff train`` = ``python train.py``: short help and config files, before torch is imported."""

from __future__ import annotations

import signal

from mrdiff.cli.common.errors import command
from mrdiff.cli.common.parser import allow_own_classes
from mrdiff.cli.train.arguments import config_folder, config_names, prepare
from mrdiff.system.cores import set_process_defaults

_HELP = """\
usage: {program} [fit|validate|test] --config NAME [--config NAME ...] [--KEY VALUE ...]

Train a mean-reverting diffusion model (`fit`, the default) or evaluate a checkpoint.

  --config NAME          a YAML file, or the bare name of a shipped recipe; later ones override
  --ckpt_path last|FILE  fit: resume with everything restored; validate, test: what to use
  --init_from FILE       fit: start a new run from the weights of a checkpoint
  --minutes M            fit: end after so long, with the learning rate at its end
  --print_config         print the whole configuration and stop
  --data.root DIR  --model.parameterization noise  --trainer.max_steps 100  ...
                         override any key of the configuration

Every key: {program} fit --help
Recipes in {folder}: {names}
"""


@command("mrdiff train")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    if not arguments or arguments[0] in ("--help", "-h"):
        names = ", ".join(config_names()) or "none found"
        print(_HELP.format(program=program, folder=config_folder(), names=names), end="")
        return 0
    prepared = prepare(arguments)
    set_process_defaults()
    allow_own_classes()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning's handler saves before it leaves
    from mrdiff.cli.train.run import run_lightning  # torch and Lightning: seconds

    return run_lightning(prepared)
