"""mrdiff prepare through its command: the layout of every benchmark, archives that mean harm."""

import gzip
import io
import os
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from datamodules import CleanFolder, PairedFolder
from datamodules.archives.layouts import BENCHMARKS
from datamodules.archives.plan import make_plan
from datamodules.archives.reading import Limits
from datamodules.archives.unpack import unpack
from datamodules.degradations import JPEG
from datamodules.errors import DataError
from mrdiff.cli.main import main
from mrdiff.cli.prepare.command import NAMES
from tests.places import ROOT

# What each archive holds, and what comes of it: archives by name, names by split.
Layout = tuple[dict[str, list[str]], dict[str, set[str]]]
PAIRS: dict[str, Layout] = {
    "gopro": (
        {
            "GOPRO_Large.zip": [
                f"{split}/{scene}/{kind}/{number}.png"
                for split, scene in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00"))
                for kind in ("blur", "blur_gamma", "sharp")
                for number in ("000047", "000048")
            ]
        },
        {
            "train": {"GOPR0372_07_00/000047", "GOPR0372_07_00/000048"},
            "test": {"GOPR0384_11_00/000047", "GOPR0384_11_00/000048"},
        },
    ),
    "reside-6k": (
        {
            "RESIDE-6K.zip": [
                *(f"RESIDE-6K/train/{kind}/1400_8.jpg" for kind in ("hazy", "GT")),
                *(f"RESIDE-6K/test/{kind}/0001_0.8_0.2.jpg" for kind in ("hazy", "GT")),
            ]
        },
        {"train": {"1400_8"}, "test": {"0001_0.8_0.2"}},
    ),
    "lol": (
        {
            "LOLdataset.zip": [
                *(f"our485/{kind}/{n}.png" for kind in ("low", "high") for n in (2, 5)),
                *(f"eval15/{kind}/1.png" for kind in ("low", "high")),
            ]
        },
        {"train": {"2", "5"}, "test": {"1"}},
    ),
    "raindrop": (
        {
            "train.zip": ["train/data/0_rain.png", "train/gt/0_clean.png"],
            "test_a.zip": ["data/3_rain.png", "gt/3_clean.png"],
            "test_b.tar.gz": ["test_b/data/3_rain.jpg", "test_b/gt/3_clean.jpg"],
        },
        {"train": {"0"}, "test": {"3"}, "test_b": {"3"}},
    ),
    "rain100h": (
        {
            "RainTrainH.zip": [f"RainTrainH/{kind}-17.png" for kind in ("rain", "norain")],
            "Rain100H.zip": [
                "Rain100H/rain-001.png",  # lies in both places in some copies
                "Rain100H/rainy/rain-001.png",
                "Rain100H/norain-001.png",
            ],
        },
        {"train": {"17"}, "test": {"001"}},
    ),
    "rain100l": (
        {
            "rain_data_train_Light.zip": [
                "rain_data_train_Light/rain/norain-1x2.png",
                "rain_data_train_Light/norain/norain-1.png",
            ],
            "rain_data_test_Light.gz": ["rain/X2/norain-1x2.png", "norain/norain-1.png"],
        },
        {"train": {"1"}, "test": {"1"}},
    ),
    "srd": (
        {
            "SRD_train.tar": [
                "Train/shadow/IMG_1.jpg",
                "Train/shadow_free/IMG_1_no_shadow.jpg",
            ],
            "SRD_test.zip": [
                "test_data/shadow/IMG_2.jpg",
                "test_data/shadow_free/IMG_2_free.jpg",
                "test_data/mask/IMG_2.jpg",
            ],
        },
        {"train": {"IMG_1"}, "test": {"IMG_2"}},
    ),
    "istd": (
        {
            "ISTD_Dataset.tar.xz": [
                f"./ISTD_Dataset/{split}/{split}_{letter}/1-1.png"
                for split in ("train", "test")
                for letter in "ABC"
            ]
        },
        {"train": {"1-1"}, "test": {"1-1"}},
    ),
    "snow100k": (
        {
            "Snow100K-training.tar.gz": [
                f"./all/{kind}/city_00003.jpg" for kind in ("gt", "mask", "synthetic")
            ],
            "Snow100K-testset.tar.bz2": [
                f"media/jdway/GameSSD/overlapping/test/Snow100K-{size}/{kind}/sea_1.jpg"
                for size in "LMS"
                for kind in ("gt", "mask", "synthetic")
            ],
        },
        {"train": {"city_00003"}, "test": {f"Snow100K-{size}/sea_1" for size in "LMS"}},
    ),
}
CLEAN: dict[str, Layout] = {
    "div2k": (
        {
            "DIV2K_train_HR.zip": ["DIV2K_train_HR/0001.png"],
            "DIV2K_valid_HR.zip": ["DIV2K_valid_HR/0801.png"],
        },
        {"train": {"0001"}, "test": {"0801"}},
    ),
    "flickr2k": (
        {
            "Flickr2K.tar": [
                "Flickr2K/Flickr2K_HR/000001.png",
                "Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png",
            ]
        },
        {"train": {"000001"}},
    ),
    "cbsd68": (
        {
            "CBSD68-dataset-master.zip": [
                f"CBSD68-dataset-master/CBSD68/{kind}/0000.png"
                for kind in ("original_png", "noisy25")
            ]
        },
        {"test": {"0000"}},
    ),
    "celeba-hq": (
        {
            "CelebAMask-HQ.zip": [
                *(f"CelebAMask-HQ/CelebA-HQ-img/{n}.jpg" for n in (7, 99, 100, 29999)),
                "CelebAMask-HQ/CelebAMask-HQ-mask-anno/0/00007_hair.png",
            ],
            "data.zip": ["datasets/gt_keep_masks/thin/000000.png"],
        },
        {"train": {"100", "29999"}, "test": {"7", "99"}},
    ),
}


def photo(path: str, size: tuple[int, int] = (12, 10)) -> bytes:
    """A photo of its own for every path, in the format of the suffix."""
    image = Image.new("RGB", size, tuple(sum(path.encode()) * k % 256 for k in (1, 3, 7)))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG" if path.endswith(".jpg") else "PNG")
    return buffer.getvalue()


def pack(archive: Path, members: dict[str, bytes]) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
        return archive
    kind = archive.suffix[1:] if archive.suffix in (".gz", ".bz2", ".xz") else ""
    with tarfile.open(archive, f"w:{kind}") as tarred:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tarred.addfile(info, io.BytesIO(content))
    return archive


def pack_all(folder: Path, archives: dict[str, list[str]]) -> list[str]:
    packed = [pack(folder / n, {path: photo(path) for path in ps}) for n, ps in archives.items()]
    return [str(path) for path in packed]


LOL = {path: photo(path) for path in PAIRS["lol"][0]["LOLdataset.zip"]}


def prepare(*arguments: object) -> int:
    return main(["prepare", *map(str, arguments)])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


def refused(work: Path, archive: Path, message: str, capsys, *, name: str = "lol") -> None:
    """The archive is refused in one line, and nothing is left of it."""
    before = sorted(work.rglob("*"))
    assert prepare(name, archive, work / "out") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "error:" in captured.err.splitlines()[-1]
    assert sorted(work.rglob("*")) == before


def test_the_command_knows_every_benchmark(capsys) -> None:
    assert set(NAMES) == set(BENCHMARKS) == {*PAIRS, *CLEAN}
    with pytest.raises(SystemExit):
        prepare("--help")
    assert set(NAMES) <= set(capsys.readouterr().out.split())
    assert prepare("gopr", "a", "b") == 2
    assert "did you mean gopro?" in capsys.readouterr().err


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_unpacked_and_load(name: str, work: Path, capsys) -> None:
    archives, expected = PAIRS[name]
    out = work / "data" / name
    assert prepare(name, *pack_all(work / "in", archives), out) == 0
    assert {path.name for path in out.iterdir()} == set(expected)
    for split, names in expected.items():
        pairs = PairedFolder(str(out / split / "LQ"), str(out / split / "GT"))
        pairs.check()
        assert {pairs[i]["name"] for i in range(len(pairs))} == names
    printed = capsys.readouterr().out
    assert f"train: {len(expected['train'])} pairs" in printed
    assert f"{BENCHMARKS[name].recipe} --config paired.yaml --data.root {out}" in printed
    assert [path.name for path in out.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", CLEAN)
def test_clean_photos_are_unpacked_and_load(name: str, work: Path, capsys) -> None:
    archives, expected = CLEAN[name]
    out = work / "out"
    assert prepare(name, *pack_all(work / "in", archives), out) == 0
    for split, names in expected.items():
        photos = CleanFolder(str(out / split / "GT"), JPEG())
        assert {photos[i]["name"] for i in range(len(photos))} == names
        assert not (out / split / "LQ").exists()
    assert "clean photos, no LQ" in capsys.readouterr().out


def test_masks_come_beside_the_photos(work: Path, capsys) -> None:
    assert prepare("celeba-hq", *pack_all(work / "in", CLEAN["celeba-hq"][0]), work / "out") == 0
    assert (work / "out/test/mask/thin/000000.png").is_file()
    printed = capsys.readouterr().out
    assert "test: 2 clean photos, no LQ, 1 masks" in printed
    assert "left out: 1 other images" in printed


def test_recipes_exist_and_every_benchmark_is_documented() -> None:
    guide = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    for name, benchmark in BENCHMARKS.items():
        assert (ROOT / "configs" / benchmark.recipe).is_file()
        assert f"mrdiff prepare {name} " in guide
        assert f"--config {benchmark.recipe} " in guide


def test_photos_are_copied_byte_for_byte(work: Path) -> None:
    archive = pack(work / "in" / "LOL.zip", LOL)
    assert prepare("lol", archive, work / "out") == 0
    lq = (work / "out/train/LQ/2.png").read_bytes()
    assert (lq, (work / "out/test/GT/1.png").read_bytes()) == (
        LOL["our485/low/2.png"],
        LOL["eval15/high/1.png"],
    )
    umask = os.umask(0)
    os.umask(umask)
    assert (work / "out").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_folder_stands_for_its_archive(work: Path) -> None:
    with zipfile.ZipFile(pack(work / "in" / "LOL.zip", LOL)) as archive:
        archive.extractall(work / "unpacked")
    (work / "unpacked/our485/low/.hidden.png").write_bytes(b"")
    assert prepare("lol", work / "unpacked", work / "out") == 0
    assert len(list((work / "out").rglob("*.png"))) == len(LOL)
    os.symlink(work / "in", work / "unpacked" / "link")
    shutil.rmtree(work / "out")
    assert prepare("lol", work / "unpacked", work / "out") == 1


def test_out_must_be_missing_or_empty(work: Path, capsys) -> None:
    archive = pack(work / "in" / "LOL.zip", LOL)
    out = work / "out"
    out.mkdir()
    assert prepare("lol", archive, out) == 0
    capsys.readouterr()
    refused(work, archive, "not an empty folder", capsys)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize(
    "path", ["../out.png", "/etc/out.png", "a/../../b.png", "C:/a.png", "a\\..\\b.png"]
)
def test_paths_that_lead_out_are_refused(name: str, path: str, work: Path, capsys) -> None:
    archive = pack(work / "in" / name, {**LOL, path: b"x"})
    refused(work, archive, f"member {path!r} leads out of the folder", capsys)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tar_are_refused(kind: bytes, work: Path, capsys) -> None:
    path = pack(work / "in" / "a.tar", LOL)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("our485/low/9.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refused(work, path, "member 'our485/low/9.png' is a link or a device", capsys)


def test_links_in_zip_are_refused(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", LOL)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("our485/low/9.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    refused(work, path, "member 'our485/low/9.png' is a link or a device", capsys)


def test_a_high_ratio_is_refused(work: Path, capsys) -> None:
    zeros = bytes(11_000_000)
    path = pack(work / "in" / "a.zip", {**LOL, "eval15/low/7.png": zeros})
    refused(work, path, "a decompression bomb", capsys)
    path = pack(work / "in" / "a.tar.gz", {**LOL, "eval15/low/7.png": zeros})
    refused(work, path, "a decompression bomb", capsys)


def test_a_header_that_lies_is_caught(work: Path, capsys) -> None:
    path = work / "in" / "a.zip"
    pack(path, {**LOL, "eval15/high/7.png": photo("x"), "eval15/low/7.png": bytes(5_000_000)})
    content = path.read_bytes().replace(struct.pack("<I", 5_000_000), struct.pack("<I", 1_000))
    path.write_bytes(content)
    refused(work, path, "broken or cut short", capsys)


def test_a_long_header_is_not_read(work: Path, capsys) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    path = work / "in" / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(1024)))
    refused(work, path, "a header of", capsys)


def test_limits_on_size_and_number(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", LOL)
    assert prepare("lol", path, work / "out", "--max_gib", "0.0000001") == 1
    assert "see --max_gib" in capsys.readouterr().err
    with pytest.raises(ValueError, match="more than 3 members"):
        make_plan("lol", [path], work / "out", limits=Limits(members=3))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_cut_archive_is_refused(name: str, share: float, work: Path, capsys) -> None:
    noise = {"noise.bin": os.urandom(60_000)}
    path = pack(work / "in" / name, {**LOL, **noise})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(work, path, "broken or cut short", capsys)


def test_a_corrupt_photo_is_refused(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", LOL)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(work, path, "broken or cut short", capsys)


def test_a_wrong_checksum_at_the_end_is_noticed(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.tar.gz", LOL)
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(work, path, "broken or cut short: CRC check failed", capsys)


def test_encryption_is_refused(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", LOL)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    path.write_bytes(bytes(content))
    refused(work, path, "is encrypted", capsys)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"Rar!\x1a\x07\x00", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"hello", "neither a zip or tar archive"),
        (b"", "neither a zip or tar archive"),
        (b"\x1f\x8b\x08", "broken or cut short"),
    ],
)
def test_other_files_are_refused(start: bytes, message: str, work: Path, capsys) -> None:
    path = work / "in" / "a.zip"
    path.write_bytes(start)
    refused(work, path, message, capsys)


def test_a_missing_archive_is_named(work: Path, capsys) -> None:
    refused(work, work / "in" / "a.zip", "no such archive or folder", capsys)


def test_another_layout_is_explained(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", {"x/1.png": photo("x"), "x/y.zip": b"", "readme": b""})
    refused(work, path, "expected our485/{low,high}/N.png", capsys)
    refused(work, path, "found readme, x/; it holds archives, unpack it and give x/y.zip", capsys)


def test_a_missing_partner_is_named(work: Path, capsys) -> None:
    members = {path: content for path, content in LOL.items() if path != "our485/high/5.png"}
    path = pack(work / "in" / "a.zip", members)
    refused(work, path, "1 photos without a partner: our485/low/5.png has no GT", capsys)


def test_pairs_that_do_not_fit_are_refused(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", {**LOL, "our485/low/5.png": photo("", (12, 11))})
    refused(work, path, "train/LQ and train/GT do not fit together: 5 is 12x11", capsys)


def test_a_broken_clean_photo_is_refused(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", {"CBSD68/0001.png": b"nothing"})
    refused(work, path, "test/GT/0001.png is not a readable image", capsys, name="cbsd68")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(work: Path, capsys) -> None:
    path = pack(work / "in" / "a.zip", LOL)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("our485/low/2.png", b"again")
    refused(work, path, "member 'our485/low/2.png' comes twice", capsys)
    path = pack(work / "in" / "b.zip", {**LOL, "copy/our485/low/2.png": photo("x")})
    refused(work, path, "two files for train/LQ/2", capsys)


def test_a_full_disk_is_found_out_before(work: Path, capsys, monkeypatch) -> None:
    path = pack(work / "in" / "a.zip", LOL)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    refused(work, path, "not enough space", capsys)


def test_an_interruption_leaves_nothing(work: Path) -> None:
    path = pack(work / "in" / "a.zip", LOL)
    plan = make_plan("lol", [path], work / "out", limits=Limits())
    before = sorted(work.rglob("*"))
    written = 0

    def advance(count: int) -> None:
        nonlocal written
        written += count
        if written > plan.size / 2:
            assert sorted(work.rglob("*")) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(plan, advance=advance)
    assert sorted(work.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_pipes_and_devices_are_not_waited_for(work: Path, capsys) -> None:
    os.mkfifo(work / "in" / "a.zip")
    refused(work, work / "in" / "a.zip", "is a pipe or a device", capsys)
    refused(work, Path("/dev/zero"), "is a pipe or a device", capsys)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_folders_count_as_members(work: Path, suffix: str) -> None:
    path = work / "in" / f"a{suffix}"
    names = [f"{i}/" for i in range(50)]
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
    with pytest.raises(DataError, match="more than 20 members"):
        make_plan("lol", [path], work / "out", limits=Limits(members=20))


def test_a_bomb_of_folders_is_refused(work: Path) -> None:
    path = work / "in" / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for _ in range(1000):
            member = tarfile.TarInfo("same")
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
    with pytest.raises(DataError, match="a decompression bomb"):
        make_plan("lol", [path], work / "out", limits=Limits(ratio=100, ratio_from=100_000))
