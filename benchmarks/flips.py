"""Photos and clips with flipped bytes, restored as ``sample.py`` does; see ``faults``."""

from __future__ import annotations

import fractions
import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import av
import imagecodecs
import numpy as np
import tifffile
import torch
from einops import rearrange
from PIL import Image

from datamodules.datasets.demo import write_demo
from mrdiff import MRProcess, Restorer
from mrdiff.cli.common.jobs import find_photos
from mrdiff.cli.common.targets import plan_targets
from mrdiff.cli.sample.clips.restore import restore_clip
from mrdiff.cli.sample.photos import restore_all
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.networks import UNet
from mrdiff.photo import PhotoError, read_rgb

CLIPS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mjpeg", ".webm": "libvpx-vp9"}
PHOTOS = (".jpg", ".png", ".tif", ".webp", ".gif", ".bmp", ".ppm", ".avif", ".jp2")
_HANG = 60.0  # seconds for a file that takes a tenth of one


def _write_clip(path: Path, codec: str, pixels: np.ndarray) -> None:
    """Six frames that move, with a sound track where the container has one."""
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=25)
        video.height, video.width = pixels.shape[:2]
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(6):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, 4 * index, axis=1), format="rgb24")
            frame.pts, frame.time_base = index, fractions.Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(video.encode())


def originals(folder: Path) -> list[Path]:
    """One photo in each format, in 8 and, where there are, in 16 bits, and one clip in each."""
    write_demo(folder / "demo", size=64)
    clean = read_rgb(sorted((folder / "demo/GT").iterdir())[0])
    pixels = rearrange((clean * 255).round().byte(), "c h w -> h w c").contiguous().numpy()
    for suffix in PHOTOS:
        Image.fromarray(pixels).save(folder / f"photo{suffix}")
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(pixels.astype(np.uint16) * 257))
    tifffile.imwrite(folder / "deep.tif", pixels.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(folder / "float.tif", pixels.astype(np.float32) / 255, photometric="rgb")
    for suffix, codec in CLIPS.items():
        _write_clip(folder / f"clip{suffix}", codec, pixels)
    return sorted(path for path in folder.iterdir() if path.is_file())


def damaged(content: bytes, index: int) -> bytes:
    """A function of the index: 1 to 16 bytes are other ones, and every tenth file is cut off."""
    random = np.random.default_rng(index)
    data = np.frombuffer(content, np.uint8).copy()
    places = random.integers(0, len(data), random.integers(1, 17))
    data[places] = random.integers(0, 256, len(places))
    return data[: random.integers(0, len(data))].tobytes() if index % 10 == 0 else data.tobytes()


def _restorer() -> Restorer:
    network = UNet(widths=(4, 8), encoder=(1,), middle=1, decoder=(1,), time_width=8)
    denoiser = Denoiser(network, MRProcess(), Parameterization.named("data"))
    return Restorer(denoiser, nfe=1)


def _work(tasks: Connection, sources: Sequence[Path], scratch: Path) -> None:
    """In a process of its own: restore the damaged files whose numbers come; send how it was."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what would be printed of each file
    restorer = _restorer()
    tasks.send("ready")
    while (index := tasks.recv()) is not None:
        source = sources[index % len(sources)]
        path = scratch / f"{index}{source.suffix}"
        path.write_bytes(damaged(source.read_bytes(), index))
        try:
            if source.suffix in CLIPS:
                restore_clip(path, scratch / "out" / path.name, lambda x: x, max_pixels=10**7)
                outcome = "restored"
            else:
                jobs = plan_targets(find_photos(path), scratch / "out")
                failures = restore_all(restorer, jobs, batch_size=1).failures
                outcome = "refused" if failures else "restored"
        except PhotoError:
            outcome = "refused"
        except Exception as error:
            outcome = f"uncaught {type(error).__name__}: {error}"
        path.unlink()
        tasks.send(outcome)


class _Worker:
    """A process that is started again when it crashed or hung."""

    def __init__(self, sources: Sequence[Path], scratch: Path) -> None:
        self.sources, self.scratch = sources, scratch
        self._start()

    def _start(self) -> None:
        self.tasks, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        arguments = (theirs, self.sources, self.scratch)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.tasks.recv()

    def __call__(self, index: int) -> str:
        """What became of the damaged file of this number."""
        self.tasks.send(index)
        try:
            outcome = str(self.tasks.recv()) if self.tasks.poll(_HANG) else "hung"
        except EOFError:
            outcome = "crashed"
        if outcome in ("hung", "crashed"):
            self.process.kill()
            self._start()
        return outcome

    def close(self) -> None:
        self.tasks.send(None)
        self.process.join()


def flip_and_restore(
    folder: Path, *, flips: int, deadline: float = math.inf, processes: int = 2
) -> dict[str, Counter[str]]:
    """How often photos, and clips, were restored, refused with one line, or something worse.

    It ends at the ``deadline`` of ``time.monotonic()``, with fewer files.
    """
    folder.mkdir()
    sources = originals(folder)

    def share(first: int) -> list[tuple[str, str]]:
        scratch = folder / f"scratch{first}"
        scratch.mkdir()
        worker = _Worker(sources, scratch)
        found = []
        for index in range(first, flips, processes):
            if time.monotonic() > deadline:
                break
            kind = "clips" if sources[index % len(sources)].suffix in CLIPS else "photos"
            found.append((kind, worker(index)))
        worker.close()
        return found

    counts: dict[str, Counter[str]] = {"photos": Counter(), "clips": Counter()}
    with ThreadPoolExecutor(processes) as pool:
        for found in pool.map(share, range(processes)):
            for kind, outcome in found:
                counts[kind][outcome] += 1
    return counts
