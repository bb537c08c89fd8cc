"""``mrdiff export``: the averaged weights and the configuration as safe, plain files."""

from __future__ import annotations

from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser


@command("mrdiff export")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    description = "Write model.safetensors and config.yaml of a checkpoint."
    parser = LineParser(prog=program, description=description)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse(arguments)
    if not options.checkpoint.exists():
        raise CommandError(f"no checkpoint at {options.checkpoint}", status=2)
    from mrdiff.checkpoints.export import export_model  # torch: seconds

    export_model(options.checkpoint, options.output)
    print(f"exported {options.checkpoint} -> {options.output}")
    return 0
