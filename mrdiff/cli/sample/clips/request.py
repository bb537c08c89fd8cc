"""What is asked for a clip, known before torch and PyAV are imported: its flags, what it writes."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.paths import PIPE, check_output, name_beside
from mrdiff.system.names import CLIPS

__all__ = ["KINDS", "check_clip", "clip_target", "is_clip"]

# FFmpeg's name of each container that is written; clips of others become Matroska, which holds all.
KINDS = {
    **dict.fromkeys((".mp4", ".m4v"), "mp4"),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), "mpegts"),
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".flv": "flv",
    ".3gp": "3gp",
}
_ONE = ("samples", "batch_size", "devices", "num_nodes")
_PHOTOS = ("format", "mask", "reference", "lpips_weights", "report", "compare", "trajectory", "log")


def is_clip(options: argparse.Namespace) -> bool:
    """Whether ``--input`` is one clip, by its name."""
    first = options.input[0]
    return len(options.input) == 1 and first.suffix.lower() in CLIPS and first.is_file()


def clip_target(options: argparse.Namespace) -> Path:
    """The file to write: ``--output`` if it has the suffix of a clip, else a file in that folder.

    Without it ``clip_restored.mp4`` beside ``clip.mp4``, as :func:`plan_beside` names photos.

    Raises:
        CommandError: no such file can be written, or it is the clip itself.
    """
    (source,), output = options.input, options.output
    if output is None:
        suffix = source.suffix if source.suffix.lower() in KINDS else ".mkv"
        folder, stem = name_beside(source, again=options.skip_existing)
        return folder / f"{stem}{suffix}"
    named = output.suffix.lower() in CLIPS and not output.is_dir()
    target = output if named else output / source.name
    if target.suffix.lower() not in KINDS:
        if named:
            message = f"--output {output}: this container cannot be written: choose .mkv or .mp4"
            raise CommandError(message, status=2)
        plain = target.with_suffix(".mkv")
        taken = source.with_suffix(".mkv").exists()  # it is restored to the same name
        target = target.with_name(target.name + ".mkv") if taken else plain
    if target.resolve() == source.resolve():
        raise CommandError(f"--output would overwrite {target}: choose another", status=2)
    return target


def check_clip(options: argparse.Namespace) -> None:
    """Refuse the flags that are for photos, and an output that cannot be written."""
    if importlib.util.find_spec("av") is None:
        raise CommandError(f"{options.input[0]}: a clip needs PyAV: pip install 'mrdiff[video]'")
    if options.output == PIPE:
        raise CommandError("--output -: a clip is written to a file or a folder", status=2)
    wrong = [name for name in _PHOTOS if getattr(options, name)]
    wrong += [name for name in _ONE if (getattr(options, name) or 1) > 1]
    wrong += ["protocol"] if options.protocol != "standard" else []
    if wrong:
        raise CommandError(f"--{wrong[0]} is for photos, not for a clip: leave it out", status=2)
    target = clip_target(options)
    if target.is_dir():
        raise CommandError(f"--output {options.output}: {target} is a folder", status=2)
    check_output(options.output or target, target.parent)
