"""The pictures of docs/ that show what programs draw: a report, a trajectory, TensorBoard, the app.

    python -m benchmarks.pictures docs [--keep FOLDER]

Trains derain.yaml as it is for the trajectory and for TensorBoard, unless FOLDER has that run; the
rest is of the bundled model. Chromium, wherever the program ``chromium`` is, shoots the pages.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.evaluation import run_training, trained_before
from benchmarks.gallery import demo_sheet
from mrdiff.photo import to_pil

_WIDTH = 1120  # px of a page of TensorBoard


def call(*words: str | Path) -> None:
    """Run a module of this project."""
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def serving(*words: str, folder: Path | None = None) -> Iterator[str]:
    """The address of a module that serves pages from a folder, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, silent = [sys.executable, "-m", *words, "--port", str(port)], subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, stdout=silent, stderr=silent) as server:
        try:
            yield _answering(f"http://127.0.0.1:{port}/")
        finally:
            server.terminate()


def _answering(address: str) -> str:
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(address):
            return address
        time.sleep(0.2)
    raise SystemExit(f"nothing answers at {address}")


def shoot(browser: Browser, size: tuple[int, int], file: Path, use: Callable[[Page], Any]) -> None:
    """The picture of a page of ``size`` px after ``use`` of it."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    use(page)
    page.screenshot(path=str(file))
    page.close()


def save_jpeg(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        image.convert("RGB").save(target, quality=85, optimize=True)


def report(browser: Browser, scratch: Path, docs: Path) -> None:
    """What `make demo` makes: the sheet of its six photos, and its report."""
    photos, page = scratch / "photos", scratch / "report.html"
    call("datamodules.demo", photos, "--mixed")
    flags = ("--output", scratch / "restored", "--reference", photos / "GT", "--report", page)
    call("mrdiff", "sample", photos / "LQ", *flags)
    to_pil(demo_sheet(scratch)).save(docs / "demo.jpg", quality=85, optimize=True)
    shoot(browser, (1320, 1400), scratch / "report.png", lambda shot: shot.goto(page.as_uri()))
    save_jpeg(scratch / "report.png", docs / "report.jpg")


def trained(folder: Path) -> Path:
    """The last checkpoint of derain.yaml, validated at its end and six times before."""
    if (before := trained_before(folder)) is None:
        run = run_training(["--config", "derain.yaml"], folder, steps=7000, every=1000)
        return run / "checkpoints" / "last.ckpt"
    return before.checkpoint


def trajectory(checkpoint: Path, scratch: Path, docs: Path) -> None:
    """The way to a rainy photo."""
    call("datamodules.demo", scratch / "rainy")
    photo = min((scratch / "rainy" / "LQ").iterdir())
    flags = ("--checkpoint", checkpoint, "--output", scratch / "way", "--trajectory")
    call("mrdiff", "sample", photo, *flags)
    (folder,) = (scratch / "way" / "trajectory").iterdir()
    save_jpeg(folder / "strip.png", docs / "trajectory.jpg")
    shutil.copy(folder / "pca.png", docs / "trajectory_pca.png")


def tensorboard(browser: Browser, run: Path, scratch: Path, docs: Path) -> None:
    """The charts by NFE over the images of a run."""
    shots, logs = [], scratch / "runs"  # the page shows the name
    shutil.copytree(run, logs / "derain", ignore=shutil.ignore_patterns("checkpoints"))
    with serving("tensorboard.main", "--logdir", "runs", folder=scratch) as address:
        for tab, height in (("custom_scalars", 740), ("images", 560)):

            def use(page: Page, tab: str = tab) -> None:
                page.goto(f"{address}?darkMode=false#{tab}")
                page.wait_for_timeout(8000)  # it has no sign that all is drawn

            shots.append(scratch / f"{tab}.png")
            shoot(browser, (_WIDTH, height), shots[-1], use)
    images = [Image.open(shot) for shot in shots]
    sheet = Image.new("RGB", (_WIDTH, sum(image.height for image in images)))
    for image, top in zip(images, (0, images[0].height), strict=True):
        sheet.paste(image, (0, top))
    sheet.quantize(256).save(docs / "tensorboard.png", optimize=True)


def app(browser: Browser, photo: Path, docs: Path) -> None:
    """The page of `mrdiff app` with a photo restored."""

    def use(page: Page) -> None:
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(photo)
        page.get_by_text("sure)").wait_for(timeout=120_000)
        page.wait_for_timeout(3000)  # the picture comes before the words

    with serving("mrdiff", "app") as address:
        shoot(browser, (940, 860), docs / "app.png", use)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("docs", type=Path, help="where the pictures are written")
    parser.add_argument("--keep", type=Path, help="folder for the run")
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        scratch = Path(folder)
        checkpoint = trained(options.keep or scratch / "trained")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        report(browser, scratch, options.docs)
        trajectory(checkpoint, scratch, options.docs)
        tensorboard(browser, checkpoint.parents[1], scratch, options.docs)
        app(browser, min((scratch / "photos" / "LQ").glob("rainy*")), options.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
