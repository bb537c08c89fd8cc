"""Clips come back as they went in but for their pictures, or a note says what was lost."""

from __future__ import annotations

import importlib.util
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.sample import command as sample
from mrdiff.cli.sample.clips.request import clip_target
from mrdiff.photo import PhotoError
from tests.tiny_model import write_pairs, write_tiny_checkpoint

needs_av = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="needs PyAV: pip install 'mrdiff[video]'"
)
COLOURS = ((200, 30, 30), (30, 180, 40), (40, 60, 210))


def write_clip(path: Path, *, size: tuple[int, int] = (64, 48), sound: bool = True) -> list[int]:
    """Seven still frames at uneven times, and a tone; returns the frames' times."""
    times = [0, 1, 2, 4, 5, 7, 8]
    picture = np.kron(np.random.default_rng(0).integers(40, 216, (6, 8, 3)), np.ones((8, 8, 1)))
    picture = picture.astype(np.uint8)[: size[1], : size[0]]
    webm = path.suffix == ".webm"
    make_clip(
        path,
        codec="libvpx-vp9" if webm else "libx264",
        form="yuv420p" if webm else "yuv444p",
        pictures=[picture] * len(times),
        times=times,
        unit=Fraction(1, 10),
        options={"crf": "4"},
        languages=("",) if sound else (),
    )
    return times


def bars(count: int = 5, *, height: int = 48, width: int = 96) -> list[np.ndarray]:
    """Three coloured bars, the same in all pictures."""
    picture = np.repeat(np.array(COLOURS, np.uint8)[None], width // 3, axis=1)
    return [np.repeat(picture, height, axis=0)] * count


def make_clip(
    path: Path,
    *,
    codec: str = "libx264",
    form: str = "yuv420p",
    pictures: Sequence[np.ndarray] | None = None,
    times: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, 25),
    options: dict[str, str] | None = None,
    languages: Sequence[str] = (),
    turned: Sequence[int] | None = None,
    start: Callable[[Any], object] = lambda file: None,
    **context: Any,
) -> Path:
    """Write a clip of bars; ``start`` may add to the file, ``context`` is of the codec."""
    import av

    pictures = bars() if pictures is None else pictures
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=1 / unit)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt, video.codec_context.time_base = form, unit
        video.options = dict(options or {})
        video.set_display_matrix(turned)
        if codec == "libx265":
            quiet = video.options.get("x265-params", "")
            video.options = {"x265-params": f"log-level=none:{quiet}"}
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        tones = [file.add_stream("aac", rate=8000) for _ in languages]
        for tone, language in zip(tones, languages, strict=True):
            tone.codec_context.layout = "mono"
            if language:
                tone.metadata["language"] = language
        start(file)
        for picture, time in zip(pictures, times or range(len(pictures)), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.colorspace = context.get("colorspace", 2)
            frame.color_range = context.get("color_range", 0)
            frame.pts, frame.time_base = time, unit
            file.mux(video.encode(frame.reformat(format=form)))
        file.mux(video.encode())
        for tone in tones:
            wave = (8000 * np.sin(np.arange(8000) * 0.3)).astype(np.int16)[None]
            audio = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            audio.sample_rate = 8000
            file.mux(tone.encode(audio))
            file.mux(tone.encode())
    return path


def frames_of(path: Path) -> list[Any]:
    import av

    with av.open(str(path), metadata_errors="surrogateescape") as file:
        return list(file.decode(video=0))


def pixels_of(path: Path) -> list[np.ndarray]:
    return [frame.to_ndarray(format="rgb24").astype(int) for frame in frames_of(path)]


def read_clip(path: Path) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    """Frames, their times in seconds, and the packets of sound."""
    import av

    frames = frames_of(path)
    with av.open(str(path)) as file:
        sound = [bytes(packet) for packet in file.demux(audio=0)] if file.streams.audio else []
    return [frame.to_ndarray(format="rgb24") for frame in frames], [f.time for f in frames], sound


def told(path: Path) -> tuple[dict[str, str], list[Any], list[tuple[Any, ...]]]:
    """What a clip says: of itself, its chapters, and of each stream."""
    import av

    with av.open(str(path), metadata_errors="surrogateescape") as file:
        streams = [
            (s.type, s.language, s.metadata.get("title"), int(s.disposition) & ~1)
            for s in file.streams
        ]
        chapters = [(float(c["start"] * c["time_base"]), c["metadata"]) for c in file.chapters()]
        return {k.lower(): v for k, v in file.metadata.items()}, chapters, streams


def through(
    source: Path,
    target: Path,
    work: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    *,
    max_pixels: int = 10**7,
) -> list[str]:
    """Restore with a function in the place of a network; returns the notes."""
    from mrdiff.cli.sample.clips.restore import restore_clip

    return restore_clip(source, target, work, max_pixels=max_pixels)[1]


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


HD, UHD = {"colorspace": 1, "color_primaries": 1, "color_trc": 1}, {"colorspace": 9}
KINDS = {
    "bt709.mp4": HD,
    "full.mp4": {**HD, "form": "yuvj420p", "color_range": 2},
    "full.mkv": {**HD, "form": "yuv420p", "color_range": 2},
    "bt601.mov": {"colorspace": 6, "color_primaries": 6, "color_trc": 6, "form": "yuv422p"},
    "pal.mkv": {"colorspace": 5, "color_primaries": 5, "form": "yuv444p"},
    "bt2020.mkv": {**UHD, "codec": "libx265", "form": "yuv420p10le", "color_trc": 16},
    "hlg.mov": {**UHD, "codec": "libx265", "form": "yuv420p10le", "color_trc": 18},
    "camera.avi": {"codec": "mjpeg", "form": "yuvj420p"},
    "untagged.mp4": {},
    "rgb.mkv": {"codec": "ffv1", "form": "bgr0"},
    "screen.mov": {"codec": "qtrle", "form": "rgb24"},
    "grey.mkv": {"codec": "ffv1", "form": "gray"},
    "grey10.mkv": {"codec": "ffv1", "form": "gray10le"},
    "studio.mov": {**HD, "codec": "prores_ks", "form": "yuv422p10le"},
    "web.webm": {**HD, "codec": "libvpx-vp9"},
    "camcorder.mts": HD,
}


@needs_av
@pytest.mark.parametrize("name", KINDS)
def test_colours_bits_and_tags_come_back(tmp_path: Path, name: str) -> None:
    import av

    how = KINDS[name]
    if how.get("codec", "libx264") not in av.codecs_available:
        pytest.skip("FFmpeg was built without this encoder")
    source, target = make_clip(tmp_path / name, **how), tmp_path / "out" / name
    seen: list[np.ndarray] = []
    assert through(source, target, lambda x: (seen.append(x.copy()), x)[1]) == []
    shown = seen[0] / np.iinfo(seen[0].dtype).max * 255
    for before, after in zip(pixels_of(source), pixels_of(target), strict=True):
        for place in (16, 48, 80):  # the middle of each bar
            assert np.abs(before[24, place] - after[24, place]).max() <= 4
            assert np.abs(before[24, place] - shown[24, place]).max() <= 4
            if "grey" not in name:
                assert np.abs(before[24, place] - COLOURS[place // 32]).max() <= 8
    old, new = frames_of(source)[0], frames_of(target)[0]
    assert (seen[0].dtype == np.uint16) == (max(c.bits for c in old.format.components) > 8)
    assert max(c.bits for c in new.format.components) == max(c.bits for c in old.format.components)
    for tag in ("colorspace", "color_primaries", "color_trc"):
        assert getattr(old, tag) in (0, 2, getattr(new, tag))
    assert (new.color_range == 2) == (old.color_range == 2) or old.format.is_rgb


@needs_av
def test_hdr10_keeps_what_it_says_of_its_display(tmp_path: Path) -> None:
    import av

    if "libx265" not in av.codecs_available:
        pytest.skip("FFmpeg was built without libx265")
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {"x265-params": f"master-display={display}:max-cll=1000,400:hdr10=1"}
    how: dict[str, Any] = {**UHD, "color_trc": 16, "form": "yuv420p10le", "options": options}
    source = make_clip(tmp_path / "a.mkv", codec="libx265", **how)
    assert through(source, tmp_path / "b.mp4") == []
    for kind in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
        sides = [frames_of(p)[0].side_data.get(kind) for p in (source, tmp_path / "b.mp4")]
        assert bytes(sides[0]) == bytes(sides[1])
    notes = through(source, tmp_path / "b.avi")
    assert "HDR10's mastering display" in notes[0]


@needs_av
@pytest.mark.parametrize(
    "turned", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (0, 1, 1, 0)]
)
def test_rotation_mirroring_and_the_shape_of_pixels(
    tmp_path: Path, turned: tuple[int, int, int, int]
) -> None:
    import av

    from mrdiff.cli.sample.clips.losses import display_matrix

    a, b, c, d = (65536 * number for number in turned)
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    shape = Fraction(64, 45)
    source = make_clip(tmp_path / "a.mp4", turned=matrix, sample_aspect_ratio=shape)
    for name in ("out.mp4", "out.mov", "out.mkv"):
        assert through(source, tmp_path / name) == []
        assert display_matrix(frames_of(tmp_path / name)[0])[:5] == matrix[:5]  # type: ignore[index]
        with av.open(str(tmp_path / name)) as file:
            assert file.streams.video[0].sample_aspect_ratio == shape
    assert through(source, tmp_path / "out.avi") == ["lost in .avi: rotation"]


@needs_av
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    times=st.lists(st.integers(0, 90_000), min_size=1, max_size=8, unique=True).map(sorted),
    suffix=st.sampled_from([".mp4", ".mkv", ".webm"]),
)
def test_times_are_kept(tmp_path: Path, times: list[int], suffix: str) -> None:
    """Variable rates and late starts."""
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    path = tmp_path / f"a{suffix}"
    how: dict[str, Any] = {"pictures": bars(len(times)), "times": times, "max_b_frames": 0}
    make_clip(path, codec=codec, unit=Fraction(1, 1000), **how)
    through(path, tmp_path / f"b{suffix}")
    before, after = ([f.time for f in frames_of(p)] for p in (path, tmp_path / f"b{suffix}"))
    np.testing.assert_allclose(after, before, atol=1e-3)


@needs_av
def test_avi_out_and_in(tmp_path: Path) -> None:
    """AVI has no times of display; with frames in another order they are those of decoding."""
    pictures = [np.full((48, 64, 3), 20 + 10 * i, np.uint8) for i in range(16)]
    source = make_clip(tmp_path / "a.avi", pictures=pictures, languages=("",))
    for name in ("b.avi", "b.mkv"):
        through(source, tmp_path / name)
        levels = [frame[20, 20, 0] for frame in pixels_of(tmp_path / name)]
        assert np.abs(np.array(levels) - (20 + 10 * np.arange(16))).max() <= 4
        assert read_clip(tmp_path / name)[2] == read_clip(source)[2]
    np.testing.assert_allclose([f.time for f in frames_of(tmp_path / "b.mkv")], np.arange(16) / 25)


def _add_everything(file: Any) -> None:
    file.metadata.update(title="Granny's 80th", creation_time="2020-01-02T03:04:05.000000Z")
    file.metadata["comment"] = "filmed by J\xfcrgen"
    chapters = [("One", 0, 100), ("Two", 100, 200)]
    file.set_chapters(
        [
            {
                "id": i,
                "start": s,
                "end": e,
                "time_base": Fraction(1, 1000),
                "metadata": {"title": t},
            }
            for i, (t, s, e) in enumerate(chapters)
        ]
    )
    file.add_attachment("font.ttf", "font/ttf", b"abc" * 100)
    file.streams.audio[1].metadata["title"] = "Director"
    file.streams.audio[1].disposition = 8  # a comment


def _with_subtitles(source: Path, target: Path) -> Path:
    import av

    lines = target.with_suffix(".srt")
    lines.write_bytes(b"1\n00:00:00,000 --> 00:00:00,100\nHello\n\n")
    with (
        av.open(str(source)) as clip,
        av.open(str(lines)) as text,
        av.open(str(target), "w") as out,
    ):
        out.metadata.update(clip.metadata)
        out.set_chapters(clip.chapters())
        pairs = [(s, out.add_stream_from_template(s)) for s in clip.streams]
        subtitles = out.add_stream_from_template(text.streams[0])
        subtitles.metadata["language"], subtitles.disposition = "fra", 64  # forced
        for old, new in pairs:
            new.metadata.update(old.metadata)
            new.disposition = old.disposition
        by_index = {old.index: new for old, new in pairs}
        for packet in itertools.chain(text.demux(), clip.demux()):
            if packet.dts is not None:
                packet.stream = (
                    by_index[packet.stream_index] if packet.stream.type != "subtitle" else subtitles
                )
                out.mux(packet)
    return target


@needs_av
def test_what_is_not_pictures_is_kept_or_its_loss_is_said(tmp_path: Path) -> None:
    options = {"bf": "0"}
    plain = make_clip(
        tmp_path / "a.mkv", languages=("eng", "deu"), start=_add_everything, options=options
    )
    rich = _with_subtitles(plain, tmp_path / "rich.mkv")
    assert through(rich, tmp_path / "out.mkv") == []
    assert told(tmp_path / "out.mkv")[1:] == told(rich)[1:]
    before, after = told(rich)[0], told(tmp_path / "out.mkv")[0]
    assert {k: after[k] for k in ("title", "creation_time", "comment")} == {
        k: before[k] for k in ("title", "creation_time", "comment")
    }
    assert ("subtitle", "fra", None, 64) in told(tmp_path / "out.mkv")[2]
    notes = "\n".join(through(rich, tmp_path / "out.mp4"))
    assert "stream 3, subtitle (srt, fra), is left out: .mkv can hold it" in notes
    assert "attachment (font.ttf)" in notes
    assert [part[1] for part in told(tmp_path / "out.mp4")[2][1:3]] == ["eng", "deu"]
    lost = through(tmp_path / "out.mp4", tmp_path / "out.avi")[-1]
    for name in ("creation_time", "chapters", "language of audio stream 1"):
        assert name in lost
    assert "title" not in lost.replace("title of", "")


@needs_av
def test_covers_further_pictures_and_timecodes(tmp_path: Path) -> None:
    import av

    def add(file: Any) -> None:
        cover = file.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 96, 48, "rgb24", 1024
        second = file.add_stream("libx264", rate=25)
        second.width, second.height, second.pix_fmt = 96, 48, "yuv420p"
        file.streams.video[0].metadata["timecode"] = "01:00:00:00"
        for stream in (cover, second):
            frame = av.VideoFrame.from_ndarray(bars()[0], format="rgb24")
            frame.pts = 0
            file.mux(stream.encode(frame))
            file.mux(stream.encode())

    source = make_clip(tmp_path / "a.mp4", start=add)
    dark: Callable[[np.ndarray], np.ndarray] = lambda x: x // 4  # noqa: E731
    for name in ("b.mp4", "b.mkv"):
        assert through(source, tmp_path / name, dark) == [
            "only the first of 2 video streams is restored"
        ]
        with av.open(str(tmp_path / name)) as file:
            assert {int(s.disposition) & 1024 for s in file.streams.video} == {0, 1024}
            names = {k.lower(): v for k, v in file.streams.video[0].metadata.items()}
            assert names["timecode"] == "01:00:00:00"
            copied = next(s for s in file.streams.video[1:] if not s.disposition & 1024)
            assert next(file.decode(copied)).to_ndarray(format="rgb24").max() > 150
        assert pixels_of(tmp_path / name)[0].max() < 60


@needs_av
def test_metadata_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    make_clip(path, start=lambda file: file.metadata.update(title="Cafe at noon"))
    path.write_bytes(path.read_bytes().replace(b"Cafe", b"Caf\xe9"))
    assert through(path, tmp_path / "b.mp4") == []
    assert b"Caf\xe9 at noon" in (tmp_path / "b.mp4").read_bytes()


@needs_av
def test_what_no_encoder_here_can_keep_is_said(tmp_path: Path) -> None:
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "alpha.mkv": ({"codec": "ffv1", "form": "yuva420p"}, "transparency is left out"),
        "odd.mkv": ({"codec": "ffv1", "pictures": bars(3, height=45, width=63)}, "yuv444p"),
        "deep.mkv": ({"codec": "ffv1", "form": "yuv420p16le"}, "16 bits a channel become 12"),
        "tv.mkv": ({"options": {"x264-params": "tff=1"}}, "interlaced"),
    }
    for name, (how, note) in cases.items():
        source = make_clip(tmp_path / name, **how)
        notes = through(source, tmp_path / "out" / name)
        assert len(notes) == 1
        assert note in notes[0]
    assert frames_of(tmp_path / "out" / "tv.mkv")[0].interlaced_frame
    assert frames_of(tmp_path / "out" / "odd.mkv")[0].width == 63


def _scratch(source: Path, target: Path, damaged: int) -> Path:
    """A copy with noise in the place of a packet."""
    import av

    with av.open(str(source)) as clip, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(clip.streams.video[0])
        packets = [p for p in clip.demux(video=0) if p.size]
        for index, packet in enumerate(packets):
            if index == damaged:
                noise = random.Random(0).randbytes(packet.size)
                spoilt = av.Packet(noise)
                spoilt.pts, spoilt.dts, spoilt.time_base = packet.pts, packet.dts, packet.time_base
                packet = spoilt
            if packet.dts is None:
                packet.dts = index - 2
            packet.stream = stream
            out.mux(packet)
    return target


@needs_av
def test_one_damaged_packet_costs_one_frame(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.mkv", pictures=bars(40), options={"g": "10", "bf": "0"})
    for damaged in (15, 0):
        source = _scratch(whole, tmp_path / "b.mkv", damaged)
        notes = through(source, tmp_path / "c.mkv")
        assert notes[0] == "1 damaged packets could not be decoded: their frames are left out"
        assert len(frames_of(tmp_path / "c.mkv")) == 39


@needs_av
def test_a_clip_that_was_cut_off(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3)).astype(np.uint8)
    path = make_clip(tmp_path / "a.mkv", pictures=list(noise), options={"g": "10"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert "and not, as it says, at 2.4 s" in through(path, tmp_path / "b.mkv")[-1]
    assert 10 < len(frames_of(tmp_path / "b.mkv")) < 40
    make_clip(path, pictures=list(noise[:3])).write_bytes(path.read_bytes()[:900])
    with pytest.raises(PhotoError, match=r"a\.mkv: (no frame|cannot be read)"):
        through(path, tmp_path / "b.mkv")


@needs_av
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_clip_that_starts_late_was_not_cut_off(tmp_path: Path, suffix: str) -> None:
    path = make_clip(tmp_path / f"a{suffix}", times=range(1000, 1005))
    assert through(path, tmp_path / f"b{suffix}") == []


def _damaged(originals: Sequence[Path], count: int) -> Iterator[tuple[str, bytes]]:
    """Copies of clips with flipped bytes, in the headers too, or cut off."""
    chance = random.Random(0)
    for index in range(count):
        original = originals[index % len(originals)]
        content = bytearray(original.read_bytes())
        for _ in range(chance.choice([1, 4, 30])):
            content[chance.randrange(len(content))] = chance.randrange(256)
        if chance.random() < 0.4:
            for _ in range(3):
                content[chance.randrange(min(800, len(content)))] = chance.randrange(256)
        if chance.random() < 0.2:
            content = content[: chance.randrange(1, len(content))]
        yield original.suffix, bytes(content)


def _fuzz(folder: Path, count: int) -> None:
    from mrdiff.cli.sample.clips.request import KINDS as WRITTEN

    how: dict[str, Any] = {"options": {"g": "4"}, "languages": ("eng",)}
    names = ("a.mp4", "a.mkv", "a.avi", "a.mov", "a.ts")
    originals = [make_clip(folder / name, **how) for name in names]
    originals.append(make_clip(folder / "b.avi", codec="mjpeg", form="yuvj420p"))
    originals.append(make_clip(folder / "b.mpg", codec="mpeg2video"))
    written = 0
    for suffix, content in _damaged(originals, count):
        source = folder / f"damaged{suffix}"
        source.write_bytes(content)
        target = folder / "out" / f"c{suffix if suffix in WRITTEN else '.mkv'}"
        try:
            notes = through(source, target)
        except PhotoError as error:
            notes = [str(error)]
        else:
            written += 1
        assert all("\n" not in note for note in notes)
        assert all(path.name.startswith("c.") for path in (folder / "out").iterdir())
    assert written > count // 4


@needs_av
def test_damaged_clips_are_restored_or_refused(tmp_path: Path) -> None:
    _fuzz(tmp_path, 60)


@needs_av
@pytest.mark.slow
def test_very_many_damaged_clips(tmp_path: Path) -> None:
    _fuzz(tmp_path, 1500)


@needs_av
@pytest.mark.parametrize(
    "content",
    [b"#EXTM3U\n#EXTINF:1,\na.mp4\n", b"ffconcat version 1.0\nfile a.mp4\n", b"G" * 400, b""],
)
def test_what_is_no_clip_is_refused_and_opens_no_other_file(tmp_path: Path, content: bytes) -> None:
    make_clip(tmp_path / "a.mp4")
    (tmp_path / "b.mts").write_bytes(content)
    with pytest.raises(PhotoError, match=r"b\.mts: cannot be read as a clip"):
        through(tmp_path / "b.mts", tmp_path / "c.mts")


@needs_av
def test_nothing_half_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    resource = pytest.importorskip("resource", reason="needs limits of a POSIX system")
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3)).astype(np.uint8)
    source = make_clip(tmp_path / "a.mkv", pictures=list(noise))
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.mkv").write_bytes(b"before")

    def fail(frame: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        through(source, out / "b.mkv", fail)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # as a full disk
    try:
        with pytest.raises(OSError, match=r"File too large.*b\.mkv"):
            through(source, out / "b.mkv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(PhotoError, match="raise --max_megapixels"):
        through(source, out / "b.mkv", max_pixels=100)
    assert [(p.name, p.read_bytes()) for p in out.iterdir()] == [("b.mkv", b"before")]
    assert capfd.readouterr().err == ""


def test_names_of_what_is_written(tmp_path: Path) -> None:
    def target(source: str, output: Path) -> Path:
        options = sample.make_parser("sample.py").parse(
            ["--checkpoint", "x", "--input", str(tmp_path / source), "--output", str(output)]
        )
        return clip_target(options)

    out = tmp_path / "out"
    for name in ("a.mpg", "b.mpg", "b.mkv", "c.MP4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert target("c.MP4", out) == out / "c.MP4"
    assert target("c.MP4", out / "d.webm") == out / "d.webm"
    assert target("c.MP4", tmp_path / "folder.mp4") == tmp_path / "folder.mp4" / "c.MP4"
    assert target("a.mpg", out) == out / "a.mkv"
    assert target("b.mpg", out) == out / "b.mpg.mkv"  # b.mkv is that of b.mkv
    for source, output in (("c.MP4", tmp_path), ("c.MP4", out / "c.wmv")):
        with pytest.raises(CommandError) as caught:
            target(source, output)
        assert caught.value.status == 2


@needs_av
def test_what_is_wrong_for_a_clip_is_known_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "none.ckpt"
    checkpoint.write_bytes(b"loading it would fail")
    make_clip(tmp_path / "a.mp4")
    here, page = str(tmp_path), str(tmp_path / "r.html")
    wrong = [
        ["--report", page, "--reference", here],
        ["--reference", here],
        ["--mask", here],
        ["--log", page],
        ["--compare"],
        ["--trajectory"],
        ["--format", "png"],
        ["--samples", "2"],
        ["--batch_size", "4"],
        ["--devices", "2"],
        ["--protocol", "ir-sde"],
    ]
    for flags in wrong:
        fixed = ("--input", str(tmp_path / "a.mp4"), "--output", str(tmp_path / "out"))
        assert run(checkpoint, *fixed, *flags) == 2
        assert "is for photos, not for a clip: leave it out" in capsys.readouterr().err
    fixed = ("--input", str(tmp_path / "a.mp4"), "--output", str(tmp_path / "out.png"))
    assert run(checkpoint, *fixed) == 2
    assert "out.png: must be a folder" in capsys.readouterr().err
    for output in ("-", str(tmp_path / "a.mp4"), str(tmp_path / "a.mp4" / "below")):
        assert run(checkpoint, "--input", str(tmp_path / "a.mp4"), "--output", output) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "none.ckpt"]


@needs_av
def test_names_of_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A colon is no protocol, bytes that are no UTF-8 are a name, a suffix makes it a file."""
    same = write_tiny_checkpoint(tmp_path / "same.ckpt", identity=True)
    monkeypatch.chdir(tmp_path)
    for source, output, written in (
        ("12:30.mp4", "out", "out/12:30.mp4"),
        ("caf\udce9.mp4", "out", "out/caf\udce9.mp4"),
        ("a.mp4", "new/clean.mp4", "new/clean.mp4"),
        ("tape.mpg", "out", "out/tape.mkv"),
    ):
        codec = "mpeg2video" if source.endswith("mpg") else "libx264"
        make_clip(tmp_path / f"x{Path(source).suffix}", codec=codec).rename(source)
        assert run(same, "--input", source, "--output", output) == 0
        assert len(frames_of(Path(written))) == 5
        said = capsys.readouterr()
        assert ("note: tape.mpg: written as tape.mkv" in said.err) == (source == "tape.mpg")
    assert run(same, "--input", "a.mp4", "--output", "new/clean.mp4", "--skip_existing") == 0
    assert "is there already" in capsys.readouterr().out


@needs_av
def test_what_is_no_video_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    (tmp_path / "text.mp4").write_bytes(b"not a video" * 100)
    flags = ("--input", str(tmp_path / "text.mp4"), "--output", str(tmp_path / "out"))
    assert run(checkpoint, *flags) == 1
    assert "text.mp4: cannot be read as a clip" in capsys.readouterr().err
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
