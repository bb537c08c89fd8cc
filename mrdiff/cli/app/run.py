"""``mrdiff app`` with torch and gradio: a model is loaded and its page served."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from mrdiff.checkpoints.places import name_of_model
from mrdiff.cli.app.studio import Studio
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.models import check_device
from mrdiff.networks.protocol import known_features
from mrdiff.photo import limit_megapixels
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.files import clear_leftovers, temporary_in
from mrdiff.system.text import shown

__all__ = ["run_app"]


def _open_studio(options: argparse.Namespace) -> Studio:
    check_device(options.device)
    try:
        loaded = Restorer.from_checkpoint(
            options.checkpoint, device=options.device, allow=options.allow_package
        )
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    if taken := known_features(loaded.denoiser.network):
        what = f"takes features of each photo, {' and '.join(taken)}: use mrdiff sample"
        raise CommandError(f"{options.checkpoint}: this model {what}", status=2)
    return Studio(loaded)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Where all files lie that gradio or a decoder makes, until the command ends."""
    place = Path(tempfile.gettempdir())
    clear_leftovers(place)  # of one that was killed
    folder = temporary_in(place)
    folder.mkdir(mode=0o700)
    tempfile.tempdir = str(folder)
    # Read when gradio is imported; it asks its own page whether it is there, through no proxy.
    os.environ |= {"GRADIO_TEMP_DIR": str(folder / "page"), "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ["no_proxy"] = f"{os.environ.get('no_proxy', '')},localhost,127.0.0.1"
    try:
        yield folder
    finally:
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)


def run_app(options: argparse.Namespace) -> int:
    """Serve the page with the flags of :mod:`mrdiff.cli.app.command`; returns when interrupted.

    Raises:
        CommandError: the model or the address cannot be used.
    """
    limit_megapixels(options.max_megapixels)
    studio, name = _open_studio(options), name_of_model(options.checkpoint)
    with _own_folder():
        from mrdiff.cli.app.desk import Desk  # gradio: seconds
        from mrdiff.cli.app.page import make_page, serve

        desk = Desk(studio)
        page = make_page(desk, title=Path(name).name)
        try:
            address = serve(page, options.host, options.port, max_upload=options.max_upload)
            print(f"{shown(name)} is at {address} (Ctrl-C ends it)", flush=True)
            if options.open:
                webbrowser.open(address)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        finally:
            page.close(verbose=False)
            desk.close()
    return 0
