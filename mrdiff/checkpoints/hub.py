"""Models on the Hugging Face Hub: fetched into its cache, and published.

Only the files of a model's folder are fetched, and all of them are data: what else lies there, such
as a pickle, stays there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mrdiff.checkpoints.folder import CARD, FILES, WEIGHTS, description_file

__all__ = ["HUB", "PlaceError", "check_installed", "download", "upload"]

HUB = "hf://"
_LOGIN = "log in with hf auth login, or set HF_TOKEN"
_REASONS = {  # of errors of huggingface_hub, the special before the general
    "HFValidationError": "no model of the Hub has such a name",
    "GatedRepoError": f"its owner has to let you in: ask on its page, then {_LOGIN}",
    "RepositoryNotFoundError": f"there is no such model, or it is private: {_LOGIN}",
    "RevisionNotFoundError": "it has no such revision",
    "LocalEntryNotFoundError": "the Hub cannot be reached, and its cache has not all of the model",
}


class PlaceError(ValueError):
    """A model that cannot be had, or put, where it was said to be: one line that says why."""


def check_installed() -> None:
    """Raise PlaceError unless huggingface_hub is there."""
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError as error:
        what = "models of the Hub need huggingface_hub"
        raise PlaceError(f"{what}: pip install 'mrdiff[hub]'") from error


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """What the Hub's library raises becomes a PlaceError about the model of this name."""
    check_installed()
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:  # of its transport, too, which changes with its version
        known = (why for kind, why in _REASONS.items() if isinstance(error, getattr(errors, kind)))
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PlaceError(f"{name}: {next(known, lines[0])}") from error


def download(repo: str, revision: str | None) -> Path:
    """The folder in the Hub's cache with the model ``ORG/NAME``, which is fetched if it is not new.

    Without a connection it is that of the last time.

    Raises:
        PlaceError: it cannot be had, or is no model of ours; names it.
    """
    name = f"{HUB}{repo}" + (f"@{revision}" if revision else "")
    with _explained(name):
        from huggingface_hub import snapshot_download

        given: dict[str, Any] = {"revision": revision, "allow_patterns": list(FILES)}
        folder = Path(snapshot_download(repo, library_name="mrdiff", **given))
    for file in (description_file(folder), folder / WEIGHTS):
        if not file.is_file():
            what = "a model of mrdiff has config.json or config.yaml, and nothing is read but them"
            raise PlaceError(f"{name} has no {file.name}: {what} and .safetensors")
    return folder


def upload(
    folder: Path, repo: str, *, private: bool | None, commit_message: str, token: str | None
) -> str:
    """Make the model ``ORG/NAME``, if it is not there, of the files in a folder; returns its page.

    Files of an older model go; a card that is there stays, for its owner may have written it.

    Raises:
        PlaceError: the Hub refuses, or cannot be reached.
    """
    with _explained(f"{HUB}{repo}"):
        from huggingface_hub import HfApi

        api = HfApi(token=token, library_name="mrdiff")
        page = api.create_repo(repo, private=private, exist_ok=True)
        kept = [CARD] if api.file_exists(page.repo_id, CARD) else []
        api.upload_folder(
            folder_path=folder,
            repo_id=page.repo_id,
            commit_message=commit_message,
            ignore_patterns=kept,
            delete_patterns=[file for file in FILES if file != CARD],
        )
    return str(page)
