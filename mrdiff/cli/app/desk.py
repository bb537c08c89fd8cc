"""What happens on the page: files come in, photos are restored one at a time, results go out."""

from __future__ import annotations

import contextlib
import html
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from mrdiff.cli.app.studio import Restored, Settings, Studio, Upload, plan, read_upload, restore
from mrdiff.cli.common.errors import CommandError, is_expected, one_line
from mrdiff.cli.sample.pictures import uncertainty_paths, write_uncertainty
from mrdiff.photo import Metadata, PhotoFile, like_original, to_pil, write_photo
from mrdiff.photo.sheets import fitted
from mrdiff.restoration.restorer import Preview

__all__ = ["Desk"]

_SHOWN, _PAINTED = 1600, 1024  # pixels of the longer side, of what is looked at and painted on
_PAUSE = 1.0  # seconds at least between two pictures of the way

Sent = dict[str, Any]  # a file as gradio describes it
Update = tuple[Any, ...]  # a value for each output


class _Call(NamedTuple):
    step: int
    nfe: int
    x0: Tensor  # [1, 3, H, W]


def _reason(error: Exception) -> str:
    """What to say of a photo that failed; a fault of ours is shown where the command runs."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if not is_expected(error):
        traceback.print_exception(error)
        return "a fault of mrdiff, which has shown it where it runs"
    return one_line(error)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for what is handed out, of which gradio makes copies; failures are told there."""
    try:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    except Exception as error:
        raise gr.Error(html.escape(_reason(error)), print_exception=False) from error


def _upload(sent: Sent) -> Upload:
    return Upload(Path(sent["path"]), sent.get("orig_name") or Path(sent["path"]).name)


def _show(path: Path, image: Tensor, like: PhotoFile) -> str:
    """Write ``[C, H, W]`` to look at, in the colours of its original."""
    small = fitted(image.cpu(), least=480, most=_SHOWN)
    write_photo(path, small, PhotoFile(small, metadata=Metadata(icc=like.metadata.icc)))
    return str(path)


def _file(path: Path | None) -> gr.DownloadButton:
    return gr.DownloadButton(value=path, interactive=path is not None)


def _shown(
    sides: tuple[str, str] | None,
    file: Path | None = None,
    spread: Path | None = None,
    said: str = "",
) -> Update:
    """The parts of the page that show what became of a photo."""
    slider = gr.ImageSlider(value=sides, visible=sides is not None)
    return (
        slider,
        _file(file),
        gr.Image(value=str(spread) if spread else None, visible=spread is not None),
        said,
    )


def _holes(drawn: dict[str, Any] | None) -> Tensor | None:
    """Where something is painted, ``[h, w]``; None for nowhere."""
    layers = [layer[..., 3] > 0 for layer in (drawn or {}).get("layers", [])]
    painted = np.any(layers, axis=0) if layers else np.zeros(1, bool)
    return torch.from_numpy(painted) if painted.any() else None


def _settings(given: tuple[Any, ...]) -> Settings:
    if None in given:
        raise CommandError("Fill in all the settings.")
    task, sampler, nfe, temperature, seed, samples = given
    return Settings(task, sampler, int(nfe), float(temperature), int(seed), int(samples))


class Desk:
    """The functions behind the page; the settings they take are those of :class:`Settings`."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._network = ThreadPoolExecutor(1)
        self._closed = threading.Event()

    def close(self) -> None:
        """Stop what is being restored, at its next call of the network."""
        self._closed.set()
        self._network.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def _watched(
        self, work: Callable[[Preview], Restored]
    ) -> Iterator[tuple[Iterator[_Call], Future[Restored]]]:
        """Work in the thread of the network, and its calls; it stops when the context is left."""
        calls, left = SimpleQueue[_Call | None](), threading.Event()

        def on_call(*call: Any) -> None:
            if left.is_set() or self._closed.is_set():
                raise CommandError("stopped")
            calls.put(_Call(*call))

        future = self._network.submit(work, on_call)
        future.add_done_callback(lambda _: calls.put(None))
        try:
            yield iter(calls.get, None), future
        finally:
            left.set()
            future.cancel()

    def choose(self, sent: Sent) -> Iterator[Update]:
        """A file that was dropped: itself, its picture on both sides, and one to paint on."""
        with _folder() as folder:
            upload = _upload(sent)
            photo = read_upload(upload)
            before = _show(folder / "photo.jpg", photo.image, photo)
            canvas = to_pil(fitted(photo.image, least=1, most=_PAINTED))
            yield upload, canvas, *_shown((before, before))

    def clear(self) -> Update:
        """Nothing, in the same places."""
        return None, None, *_shown(None)

    def restore(
        self,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (gradio wants one of its own there)
        upload: Upload | None = None,
        drawn: dict[str, Any] | None = None,
        *given: Any,
    ) -> Iterator[Update]:
        """Both sides of the photo, then the file, its uncertainty and what is said, too."""
        with _folder() as folder:
            if upload is None:
                raise CommandError("Choose a photo first.")
            settings, photo = _settings(given), read_upload(upload)
            (job,) = plan([upload], folder / "restored")
            job = replace(job, target=job.target.with_stem(f"{job.target.stem}_restored"))
            before, drawn_at = _show(folder / "before.jpg", photo.image, photo), 0.0
            restorer = self.studio.prepare(settings)
            work = partial(restore, restorer, job, photo, settings.samples, _holes(drawn))
            with self._watched(work) as (calls, future):
                for done, (_, nfe, x0) in enumerate(calls, start=1):
                    progress((done, nfe * settings.samples), unit="calls")
                    if time.perf_counter() > drawn_at + _PAUSE:
                        x0 = like_original(x0[0].float().clamp(0, 1), photo.image)
                        way = _show(folder / f"{done}.jpg", x0, photo)
                        yield _shown((before, way))
                        drawn_at = time.perf_counter()
                restored = future.result()
            after, map_ = _show(folder / "after.jpg", restored.image, photo), None
            if settings.samples > 1:
                write_uncertainty(restored.std, job.target, folder / "restored")
                map_ = uncertainty_paths(job.target, folder / "restored")[1]
            said = html.escape(" · ".join(restored.said))
            yield _shown((before, after), job.target, map_, said)

    def restore_all(
        self,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        sent: list[Sent] | None = None,
        *given: Any,
    ) -> Iterator[Update]:
        """A zip of the photos, and a line for each that failed."""
        with _folder() as folder:
            if not sent:
                raise CommandError("Choose photos first.")
            settings, uploads, said = _settings(given), [_upload(one) for one in sent], list[str]()
            restorer = self.studio.prepare(settings)
            each = zip(uploads, plan(uploads, folder / "restored"), strict=True)
            for index, (upload, job) in enumerate(each):
                try:
                    photo = read_upload(upload)
                    work = partial(restore, restorer, job, photo, settings.samples, None)
                    with self._watched(work) as (calls, future):
                        for done, (_, nfe, _) in enumerate(calls, start=1):
                            share = done / (nfe * settings.samples)
                            progress((index + share) / len(uploads), desc=upload.name)
                        future.result()
                except Exception as error:
                    said.append(f"failed: {_reason(error)}")
            whole = len(uploads) - len(said)
            said = [f"restored {whole}, failed {len(said)}", *said]
            zipped = folder / "restored.zip" if whole else None
            if zipped:
                shutil.make_archive(str(zipped.with_suffix("")), "zip", folder / "restored")
            yield _file(zipped), "<br>".join(html.escape(line) for line in said)
