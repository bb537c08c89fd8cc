"""Runs as jobs of SLURM: put into the queue again, and resumed when they run again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.environments import SLURMEnvironment

from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.system.saved import SavedFileError, load_saved

JOB_KEY = "slurm"  # of a checkpoint: the job that has written it


def job_id() -> str | None:
    """SLURM's name for this job, the same whenever it is run; None outside of SLURM."""
    if not SLURMEnvironment.detect():
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def requeue() -> str:
    """Let SLURM run this job again; what came of it."""
    command = ["scontrol", "requeue", str(job_id())]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        return f"the job could not be requeued ({one_line(said)}); resume with --ckpt_path last"
    return f"job {job_id()} is requeued and will resume"


def _written_by(path: Path) -> dict[str, Any]:
    try:
        content = load_saved(path)
    except (OSError, SavedFileError):  # a broken file is no checkpoint of this job
        return {}
    found = content.get(JOB_KEY) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def checkpoint_of_job(newest_first: Iterable[Path]) -> Path | None:
    """What this job goes on from when SLURM runs it again; None if it runs for the first time."""
    job, again = job_id(), int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    for path in newest_first if job is not None else ():
        found = _written_by(path)
        if found.get("id") == job and (again or found.get("requeued")):
            return path
    return None


def refuse_strangers(folder: Path) -> None:
    """Raise CommandError for what Lightning would resume unasked, whosever it is."""
    if not SLURMEnvironment.detect() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if "hpc_ckpt_" in path.name:
            cure = "move it, or resume it with --ckpt_path"
            raise CommandError(f"{path}: Lightning would take it for this run's: {cure}", status=2)
