"""The files of the data sets: folders, partners, sizes, channels, bits, and what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrdiff.cli.common.errors import one_line
from mrdiff.cli.doctor.findings import Finding, counted, error, some, warning
from mrdiff.cli.doctor.scan import Picture

_KINDS = {"lq": "LQ", "gt": "GT", "mask": "mask"}


@dataclass(frozen=True)
class Folder:
    """A source of one or several sets, listed."""

    roles: tuple[str, ...]  # the sets that read it: train, val, test, predict
    source: Any  # a ``datamodules.Source``
    files: Sequence[Any]  # its ``datamodules.SourceFiles``

    @property
    def label(self) -> str:
        return ", ".join(self.roles)

    @property
    def complete(self) -> list[Any]:
        """The files that have all their partners."""
        return [of for of in self.files if all(getattr(of, kind) for kind in self.source.folders)]

    def paths(self) -> list[Path]:
        folders = self.source.folders
        found = [path for of in self.files for kind in folders if (path := getattr(of, kind))]
        return found + [path for of in self.files for path in of.others]


def find_folders(sets: Mapping[str, Any]) -> tuple[list[Folder], list[Finding]]:
    """The sources of the sets, one that several sets read but once; and what hinders it."""
    found: dict[tuple[Any, ...], tuple[list[str], Any]] = {}
    findings = []
    for role, dataset in sets.items():
        try:
            for source in dataset.sources():
                key = (source.lq, source.gt, source.mask)
                found.setdefault(key, ([], source))[0].append(role)
        except ValueError as failure:  # DataError of the data package
            cure = f"correct the folders of data.{role}, see --data.root"
            findings.append(error(f"{role}: {one_line(failure)}", cure))
    folders = [Folder(tuple(roles), source, source.files()) for roles, source in found.values()]
    return folders, findings


def check_set(role: str, check: Callable[[], None]) -> list[Finding]:
    """What the data itself refuses, as training would."""
    try:
        check()
    except ValueError as failure:
        return [error(f"{role}: {one_line(failure)}", f"mend it, or correct data.{role}")]
    return []


def check_folder(folder: Folder) -> list[Finding]:
    """Folders that are missing or empty, and files without a partner."""
    label, folders = folder.label, folder.source.folders
    kinds = {kind: [of for of in folder.files if getattr(of, kind)] for kind in folders}
    found = []
    for kind, path in folders.items():
        if not path.is_dir():
            cure = f"make it, or give the right folder in data.{folder.roles[0]}, see --data.root"
            found.append(error(f"{label}: no such folder of {_KINDS[kind]} images", cure, [path]))
        elif not kinds[kind]:
            cure = "put the images there (png, jpg, tif, webp, …) or correct the path"
            found.append(error(f"{label}: the {_KINDS[kind]} folder holds no images", cure, [path]))
    twice = [path for of in folder.files for path in of.others]
    what = f"{label}: {counted(len(twice), 'file')} of a name twice"
    found += some(error, what, "keep one of each: names must differ before the suffix", twice)
    return [*found, *_lonely(folder, kinds)]


def _lonely(folder: Folder, kinds: Mapping[str, Sequence[Any]]) -> Iterator[Finding]:
    """Files that lack a partner of one kind, for each kind."""
    if not all(kinds.values()):
        return  # a folder is empty or missing: that was said
    counts = ", ".join(
        f"{counted(len(kinds[kind]), f'{_KINDS[kind]} image')} in {path}"
        for kind, path in folder.source.folders.items()
    )
    for kind in kinds:
        files = [of.lq or of.gt or of.mask for of in folder.files if not getattr(of, kind)]
        what = f"{folder.label}: {counts}; {counted(len(files), 'name')} without {_KINDS[kind]}"
        cure = "add the missing files or remove these; partners have one name up to the suffix"
        yield from some(error, what, cure, files)


def check_pictures(folder: Folder, pictures: Mapping[Path, Picture]) -> list[Finding]:
    """What is wrong with the images of a source, one by one and pair by pair."""
    known = [pictures[path] for path in folder.paths()]
    kinds = list(folder.source.folders)
    rows = [{kind: pictures[getattr(of, kind)] for kind in kinds} for of in folder.complete]
    sound = [row for row in rows if not any(picture.problem for picture in row.values())]
    masks = {of.mask for of in folder.files}
    photos = [p for p in known if not p.problem and p.path not in masks]
    found = [*_unreadable(folder.label, known), *_sizes(folder.label, sound)]
    if {"lq", "gt"} <= set(kinds):
        pairs = [(row["lq"], row["gt"]) for row in sound]
        found += [*_unlike(folder.label, pairs), *_identical(folder.label, pairs)]
    found += [*_depth(folder.label, photos), *_contents(folder.label, photos)]
    patch = folder.source.patch_size if "train" in folder.roles else None
    small = [p.path for p in photos if patch is not None and min(p.width, p.height) < patch]
    what = f"{folder.label}: {counted(len(small), 'image')} smaller than patch_size {patch}"
    cure = "they are filled up by reflection: leave them out, or set a smaller patch_size"
    return [*found, *some(warning, what, cure, small)]


def _unreadable(label: str, pictures: Sequence[Picture]) -> list[Finding]:
    bad = [f"{picture.path}: {picture.problem}" for picture in pictures if picture.problem]
    cure = "copy or download them again, or remove them with their partners"
    return some(error, f"{label}: {counted(len(bad), 'image')} that cannot be read", cure, bad)


def _sizes(label: str, rows: Sequence[Mapping[str, Picture]]) -> list[Finding]:
    """Partners of unequal size."""
    unequal = []
    for row in rows:
        sizes = {kind: f"{picture.width}x{picture.height}" for kind, picture in row.items()}
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{_KINDS[kind]} {text}" for kind, text in sizes.items())
            unequal.append(f"{next(iter(row.values())).path}: {said}")
    cure = "bring both to one size: upscale a small LQ image, or crop both to the same frame"
    return some(error, f"{label}: {counted(len(unequal), 'pair')} of unequal size", cure, unequal)


def _unlike(label: str, pairs: Sequence[tuple[Picture, Picture]]) -> Iterator[Finding]:
    """LQ and GT of unequal channels or bits."""
    mixed = [lq.path for lq, gt in pairs if lq.grey != gt.grey]
    what = f"{label}: {counted(len(mixed), 'pair')} of a grey and a colour image"
    yield from some(error, what, "convert both to colour or both to grey", mixed)
    deep = [lq.path for lq, gt in pairs if lq.bits != gt.bits]
    bits = sorted({(lq.bits, gt.bits) for lq, gt in pairs if lq.bits != gt.bits})
    kinds = " and ".join(f"LQ of {a} bits against GT of {b}" for a, b in bits)
    what = f"{label}: {counted(len(deep), 'pair')} of unequal bit depth: {kinds}"
    cure = "each is read by its own range (65535 or 255): convert both to one depth to be sure"
    yield from some(warning, what, cure, deep)


def _identical(label: str, pairs: Sequence[tuple[Picture, Picture]]) -> list[Finding]:
    same = [lq.path for lq, gt in pairs if lq.digest and lq.digest == gt.digest]
    share = "all pairs" if len(same) == len(pairs) else f"{len(same):,} of {len(pairs):,} pairs"
    cure = "there is nothing to learn from them: check that lq and gt are the right folders"
    return some(warning, f"{label}: LQ and GT are identical in {share}", cure, same)


def _depth(label: str, photos: Sequence[Picture]) -> Iterator[Finding]:
    """16-bit files that do not hold 16 bits."""
    wide = [p for p in photos if p.bits == 16 and p.decoded]
    # Of 16-bit colour Pillow keeps the upper 8 bits alone, which are then all zero.
    dark = [p.path for p in wide if p.high <= (255 if p.grey else 0)]
    what = f"{label}: {counted(len(dark), '16-bit file')} with no value above 255"
    cure = "8-bit data, read as almost black: save as 8 bits, or multiply the values by 257"
    yield from some(error, what, cure, dark)
    rest = [p for p in wide if p.path not in set(dark)]
    top = max((p.high * (1 if p.grey else 256) for p in rest), default=65535)
    if top < 16384:
        bits = int(top).bit_length()
        what = f"{label}: no 16-bit file has a value above {2**bits - 1:,}, as of {bits}-bit data"
        cure = f"they are read as dark: multiply the values by {65535 / (2**bits - 1):.3g}"
        yield warning(what, cure, [p.path for p in rest])


def _contents(label: str, photos: Sequence[Picture]) -> Iterator[Finding]:
    """Pictures of one colour, see-through pictures, and grey among colour ones."""
    constant = [f"{p.path}: {_shade(p)}" for p in photos if p.constant]
    what, cure = "of a single colour", "look at them: a failed export? Remove them with partners"
    yield from some(warning, f"{label}: {counted(len(constant), 'image')} {what}", cure, constant)
    clear = [p.path for p in photos if p.transparent]
    what = f"{label}: {counted(len(clear), 'image')} with an alpha channel that is not opaque"
    yield from some(warning, what, "they are laid on white: flatten them as you want them", clear)
    grey = [p.path for p in photos if p.grey]
    if len(grey) < len(photos):
        what = f"{label}: {counted(len(grey), 'grey image')} among {len(photos):,}"
        cure = "grey is repeated to three channels: convert them if not meant"
        yield from some(warning, what, cure, grey)


def _shade(picture: Picture) -> str:
    top = {8: 255.0, 16: 65535.0 if picture.grey else 255.0, 32: 1.0}[picture.bits]
    return {0.0: "all black", top: "all white"}.get(picture.low, "one colour")


def summary(folder: Folder, pictures: Mapping[Path, Picture]) -> str:
    """A source in a line: how many, how large, and of what kind."""
    photos = [path for of in folder.files for path in (of.lq, of.gt) if path]
    known = [p for path in photos if not (p := pictures[path]).problem]
    kinds = {f"{'grey' if p.grey else 'colour'} {p.bits} bit" for p in known}
    where = " and ".join(str(path) for path in folder.source.folders.values())
    noun = "image" if len(folder.source.folders) == 1 else "pair"
    text = f"{folder.label}: {counted(len(folder.complete), noun)} in {where}"
    if not known:
        return text
    sides = [(min(p.width, p.height), max(p.width, p.height)) for p in known]
    low, high = min(sides), max(sides, key=lambda s: s[0] * s[1])
    sizes = f"{low[0]}x{low[1]}" + (f" to {high[0]}x{high[1]}" if high != low else "")
    return f"{text}: {sizes}, {', '.join(sorted(kinds))}"
