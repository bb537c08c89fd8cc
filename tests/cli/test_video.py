"""Videos: every frame, its time and the sound come through; the noise is that of one frame."""

from __future__ import annotations

import importlib.util
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrdiff.cli.sample import command as sample
from tests.tiny_model import write_pairs, write_tiny_checkpoint

needs_av = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="needs PyAV: pip install 'mrdiff[video]'"
)


def write_clip(path: Path, *, size: tuple[int, int] = (64, 48), sound: bool = True) -> list[int]:
    """Seven still frames at uneven times, and a tone; returns the frames' times."""
    import av

    times = [0, 1, 2, 4, 5, 7, 8]
    picture = np.kron(np.random.default_rng(0).integers(40, 216, (6, 8, 3)), np.ones((8, 8, 1)))
    picture = picture.astype(np.uint8)[: size[1], : size[0]]
    with av.open(str(path), "w") as file:
        codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
        video = file.add_stream(codec, rate=10, options={"crf": "4"})
        video.width, video.height = size
        video.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
        video.codec_context.time_base = Fraction(1, 10)
        tone = file.add_stream("aac", rate=8000) if sound else None
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if tone is not None:
            wave = (8000 * np.sin(np.arange(8000) * 0.3)).astype(np.int16)[None]
            audio = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            audio.sample_rate = 8000
            file.mux(tone.encode(audio))
            file.mux(tone.encode())
    return times


def read_clip(path: Path) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    """Frames, their times in seconds, and the packets of sound."""
    import av

    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    with av.open(str(path)) as file:
        sound = [bytes(packet) for packet in file.demux(audio=0)] if file.streams.audio else []
    return [frame.to_ndarray(format="rgb24") for frame in frames], [f.time for f in frames], sound


def run(checkpoint: Path, *flags: str) -> int:
    fixed = ["--checkpoint", str(checkpoint), "--device", "cpu", "--nfe", "2"]
    return sample.main([*fixed, *flags], program="sample.py")


@needs_av
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.mov"])
def test_frames_times_and_sound_come_through(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    same = write_tiny_checkpoint(tmp_path / "same.ckpt", identity=True)
    times = write_clip(tmp_path / name)
    assert run(same, "--input", str(tmp_path / name), "--output", str(tmp_path / "out")) == 0
    before, after = read_clip(tmp_path / name), read_clip(tmp_path / "out" / name)
    assert "restored 7 frames" in capsys.readouterr().out
    np.testing.assert_allclose(after[1], np.array(times) / 10, atol=0.002)
    assert after[2] == before[2]
    assert len(after[2]) > 5
    for old, new in zip(before[0], after[0], strict=True):
        assert np.abs(old.astype(int) - new).mean() < 6  # compressed once more
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]


@needs_av
def test_odd_sizes_and_no_sound(tmp_path: Path) -> None:
    same = write_tiny_checkpoint(tmp_path / "same.ckpt", identity=True)
    write_clip(tmp_path / "odd.mp4", size=(63, 45), sound=False)
    assert run(same, "--input", str(tmp_path / "odd.mp4"), "--output", str(tmp_path / "out")) == 0
    frames, _, sound = read_clip(tmp_path / "out" / "odd.mp4")
    assert len(frames) == 7
    assert frames[0].shape == (45, 63, 3)
    assert sound == []


@needs_av
def test_still_frames_stay_still(tmp_path: Path) -> None:
    """The noise is that of one frame: equal frames have equal restorations."""
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    write_clip(tmp_path / "clip.mp4", sound=False)
    assert run(checkpoint, "--input", str(tmp_path / "clip.mp4"), "--output", str(tmp_path)) == 2
    out = tmp_path / "out"
    assert run(checkpoint, "--input", str(tmp_path / "clip.mp4"), "--output", str(out)) == 0
    frames, _, _ = read_clip(out / "clip.mp4")
    change = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(frames)]
    assert max(change) < 3


@needs_av
def test_what_is_no_video_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    (tmp_path / "text.mp4").write_bytes(b"not a video" * 100)
    flags = ("--input", str(tmp_path / "text.mp4"), "--output", str(tmp_path / "out"))
    assert run(checkpoint, *flags) == 1
    assert "text.mp4: Invalid data" in capsys.readouterr().err
    assert not (tmp_path / "out" / "text.mp4").exists()


def test_without_pyav_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    flags = ("--input", str(tmp_path / "clip.mp4"), "--output", str(tmp_path / "out"))
    assert run(checkpoint, *flags) == 1
    assert "pip install 'mrdiff[video]'" in capsys.readouterr().err


def test_a_folder_of_frames_has_one_noise(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    write_pairs(tmp_path, ["0001.png"])
    (tmp_path / "lq" / "0002.png").write_bytes((tmp_path / "lq" / "0001.png").read_bytes())
    flags = ("--input", str(tmp_path / "lq"), "--sampler", "mr-sde-1")
    assert run(checkpoint, *flags, "--output", str(tmp_path / "own")) == 0
    assert run(checkpoint, *flags, "--output", str(tmp_path / "same"), "--same_noise") == 0

    def pixels(folder: str, name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / folder / name))

    assert not np.array_equal(pixels("own", "0001.png"), pixels("own", "0002.png"))
    assert np.array_equal(pixels("same", "0001.png"), pixels("same", "0002.png"))
