"""mrdiff app: the page of the command itself, in a browser, against what sample.py writes."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from mrdiff.cli.app import command as app
from mrdiff.cli.sample import command as sample
from mrdiff.photo import read_photo

CHROMIUM = shutil.which("chromium")
MODEL = "universal"
ODD = "ro ck#e't {1} & 日.jpg"  # not all of which a web server keeps


def photo(*, quality: int = 70) -> bytes:
    """A real photo with a camera's name in it."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations
    place = Path(spec.submodule_search_locations[0], "data", "rocket.jpg")
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Make] = "Camera"
    small = Image.open(place).resize((120, 80))
    small.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def restored(folder: Path, name: str, content: bytes, *flags: str) -> bytes:
    """What sample.py writes for a file."""
    source = folder / name
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    fixed = ["--checkpoint", MODEL, "--input", str(source), "--output", str(folder / "out")]
    assert sample.main([*fixed, "--device", "cpu", *flags], program="sample.py") == 0
    return (folder / "out" / name).read_bytes()


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    """The command's own page; ended as a terminal ends it, it leaves nothing."""
    pytest.importorskip("gradio", reason="needs gradio, of mrdiff[app]")
    pytest.importorskip("playwright", reason="needs playwright, of mrdiff[test]")
    if CHROMIUM is None:
        pytest.skip("needs the browser chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mrdiff", "app", "--checkpoint", MODEL, "--device", "cpu"]
    # A proxy that is not there: nothing may want one.
    proxies = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    environment = {**os.environ, **proxies, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--port", str(port), "--max_upload", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job of a shell is deaf to Ctrl-C, and so would be what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert f"http://127.0.0.1:{port}/" in line, line
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.send_signal(signal.SIGINT)
            killer = threading.Timer(30, process.kill)
            killer.start()
            said = process.communicate()[0]
            killer.cancel()
    faults = [line for line in said.splitlines() if "Error: " in line]
    assert len(faults) <= 1  # what gradio says of a visitor's choice that is none
    assert all("list of choices" in line for line in faults), said
    assert process.returncode == 0
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page in a window of its own; all that it asks for comes from the command."""
    page, asked = browser.new_page(viewport={"width": 1280, "height": 1400}), list[str]()
    page.set_default_timeout(60_000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    yield page
    page.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def drop(page: Any, name: str, content: bytes) -> None:
    files = [{"name": name, "mimeType": "", "buffer": content}]
    page.set_input_files("#photo input[type=file]", files)


def said(page: Any, words: str, place: str = "#said") -> str:
    """What the page says once these words are in it."""
    page.wait_for_selector(f"{place} >> text={words}")
    return str(page.inner_text(place))


def taken(page: Any, button: str = "Download") -> tuple[str, bytes]:
    """The file that a button hands out."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def fill(page: Any, label: str, value: str) -> None:
    field = page.get_by_label(label, exact=True).first
    field.fill(value)
    field.press("Tab")


def test_a_photo_comes_back_as_from_the_command(page: Any, tmp_path: Path) -> None:
    drop(page, ODD, photo())
    assert "% sure) · fidelity, 5 calls · " in said(page, "fidelity, 5 calls")
    name, content = taken(page)
    assert Path(name).suffix == ".jpg"
    assert Path(name).stem.endswith("_restored")
    assert content == restored(tmp_path, ODD, photo())
    exif = read_photo(content).metadata.exif
    assert exif is not None
    assert b"Camera" in exif
    assert page.locator("#sides img").count() >= 2
    assert not page.locator("#spread").is_visible()


def test_settings_are_the_commands_flags(page: Any, tmp_path: Path) -> None:
    choose(page, "Task", "rainy")
    page.get_by_text("Settings", exact=True).first.click()
    fill(page, "Network calls", "7")
    page.get_by_label("Sampler", exact=True).first.focus()  # a visit changes nothing
    page.keyboard.press("Tab")
    drop(page, "a.jpg", photo())
    said(page, "rainy · fidelity, 7 calls · ")
    choose(page, "Sampler", "perceptual")  # its own number takes the place, as does its temperature
    for label, value in {"Network calls": "5", "Temperature": "1"}.items():
        field = f"document.querySelector('[aria-label=\"{label}\"]')"
        page.wait_for_function(f"{field}?.value == '{value}'")
    for label, value in {"Network calls": "2", "Seed": "3", "Samples": "2"}.items():
        fill(page, label, value)
    page.get_by_role("button", name="Restore", exact=True).click()
    assert said(page, "2 samples").startswith("rainy · perceptual, 2 calls · ")
    flags = ["--task", "rainy", "--sampler", "perceptual", "--nfe", "2", "--seed", "3"]
    flags += ["--samples", "2"]
    assert taken(page)[1] == restored(tmp_path, "a.jpg", photo(), *flags)
    assert page.locator("#spread img").is_visible()


def test_what_is_painted_is_a_hole(page: Any, tmp_path: Path) -> None:
    drop(page, "a.jpg", photo())
    said(page, "fidelity, 5 calls")
    page.get_by_text("Holes to fill", exact=True).click()
    # The canvas is ready when it has enlarged the small photo, by so many per cent.
    page.wait_for_function("parseInt(document.querySelector('#canvas')?.innerText) > 100")
    canvas = page.locator("#canvas canvas").first.bounding_box()
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 5, steps=5)
    page.mouse.up()
    choose(page, "Task", "inpainting")
    with page.expect_request("**/queue/join*") as join:
        page.get_by_role("button", name="Restore", exact=True).click()
    said(page, "inpainting ·")
    layer = json.loads(join.value.post_data)["data"][1]["layers"][0]["path"]
    holes = np.asarray(Image.open(layer))[..., 3] > 0
    assert 0 < holes.mean() < 0.5
    (tmp_path / "masks").mkdir()
    Image.fromarray(~holes).save(tmp_path / "masks" / "a.png")
    flags = ["--task", "inpainting", "--mask", str(tmp_path / "masks")]
    assert taken(page)[1] == restored(tmp_path, "a.jpg", photo(), *flags)


def test_a_broken_file_is_told_and_the_page_lives(page: Any) -> None:
    for name, content, reason in (
        ("<i>cut</i>.jpg", photo()[:1500], "<i>cut</i>.jpg: image file is truncated"),
        ("large.png", bytes(1_100_000), "size"),
    ):
        drop(page, name, content)
        page.wait_for_selector(f".toast-body >> text={reason}")
        page.reload()
    drop(page, "a.jpg", photo())
    said(page, "fidelity, 5 calls")


def test_several_photos_come_back_in_a_zip(page: Any, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Several photos").click()
    files = {ODD: photo(), "b.jpg": photo(quality=30), "bad.png": b"text"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    page.set_input_files("#photos input[type=file]", [tmp_path / name for name in files])
    page.wait_for_selector("#photos >> text=bad")
    page.get_by_role("button", name="Restore all").click()
    told = said(page, "restored 2, failed 1", "#said-all")
    assert "failed: bad.png: not an image" in told
    name, content = taken(page, "Download zip")
    assert name == "restored.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert sorted(zipped.namelist()) == sorted([ODD, "b.jpg"])
        for each in (ODD, "b.jpg"):
            expected = restored(tmp_path / "again", each, files[each])
            assert zipped.read(each) == expected


def test_settings_that_do_not_fit_are_told(page: Any) -> None:
    drop(page, "a.jpg", photo())
    said(page, "fidelity, 5 calls")
    page.get_by_text("Settings", exact=True).first.click()
    fill(page, "Samples", "2")
    page.get_by_role("button", name="Restore", exact=True).click()
    page.wait_for_selector(".toast-body >> text=the sampler draws no noise")


def test_a_visitor_chooses_from_what_there_is(page: Any, address: str, tmp_path: Path) -> None:
    """A grid file is a file of this machine: no page may name one."""
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: [hunter2")
    page.get_by_role("tab", name="Several photos").click()
    with page.expect_request("**/queue/join*") as join:
        page.get_by_role("button", name="Restore all").click()
    asked = json.loads(join.value.post_data)
    asked["data"][2] = {"grid": str(secret)}
    asked["session_hash"] = "another"
    queue = address + "gradio_api/queue/"
    assert page.request.post(queue + "join", data=asked).ok
    answer = page.request.get(queue + "data?session_hash=another").text()
    assert "process_completed" in answer
    assert "list of choices" in answer
    assert "hunter2" not in answer


def test_a_foreign_page_is_not_answered(page: Any, address: str) -> None:
    """One whose name was made to mean this machine."""
    assert page.request.get(address + "config").ok
    assert page.request.get(address + "config", headers={"Host": "evil.com"}).status == 400


def test_what_cannot_be_served_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(*flags: str) -> str:
        assert app.main([*flags], program="mrdiff app") in (1, 2)
        return capsys.readouterr().err

    assert "no checkpoint at nowhere.ckpt" in refusal("--checkpoint", "nowhere.ckpt")
    assert "a port lies in 1 to 65535" in refusal("--port", "70000")
    pytest.importorskip("gradio", reason="needs gradio, of mrdiff[app]")
    with socket.socket() as taken_one:
        taken_one.bind(("127.0.0.1", 0))
        taken_one.listen()
        port = str(taken_one.getsockname()[1])
        assert f"--port {port}: cannot serve there: Address already" in refusal("--port", port)
    assert "--host 192.0.2.1" in refusal("--host", "192.0.2.1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "pip install 'mrdiff[app]'" in refusal()
