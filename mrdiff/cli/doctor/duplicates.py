"""Pictures that are in training and in validation or test alike: their scores would mean nothing.

Exact duplicates have equal decoded pixels, whatever the format. Near duplicates (saved as JPEG,
scaled, a neighbouring frame) are found by their fingerprints, 16 x 16 grey values that correlate by
more than 0.99, and looked at again: if the details of 64 x 64 agree too, it is one picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from mrdiff.cli.doctor.files import Folder
from mrdiff.cli.doctor.findings import Finding, counted, error, some, warning
from mrdiff.cli.doctor.scan import FINGERPRINT, Picture, fingerprint
from mrdiff.photo import open_image

_ALIKE = 0.99  # correlation of fingerprints
_DETAIL = 64  # side of the thumbnails that settle it
_SAME_DETAIL = 0.9  # correlation of what the fingerprint does not see
_BLOCK = 4096  # fingerprints compared at once

Match = tuple[Picture, Picture]


def check_duplicates(
    folders: Sequence[Folder], pictures: Mapping[Path, Picture]
) -> tuple[list[Finding], int, int]:
    """Findings, and how many pictures of training and of the other sets were compared."""
    training = [folder for folder in folders if "train" in folder.roles]
    train = [picture for folder in training for picture in _clean(folder, pictures)]
    found = list(_within(training, pictures))
    held: dict[str, list[Picture]] = {}
    for folder in folders:
        label = " and ".join(role for role in folder.roles if role in ("val", "test"))
        if label:
            held.setdefault(label, []).extend(_clean(folder, pictures))
    for label, theirs in held.items():
        found += _between(train, theirs, label)
    return found, len(train), sum(map(len, held.values()))


def _clean(folder: Folder, pictures: Mapping[Path, Picture]) -> list[Picture]:
    """The clean pictures of a source, or what there is in their place."""
    found = [pictures[of.gt or of.lq] for of in folder.files if of.gt or of.lq]
    return [picture for picture in found if picture.decoded]


def _between(train: Sequence[Picture], held: Sequence[Picture], label: str) -> Iterator[Finding]:
    """Pictures of ``held`` that are in ``train``."""
    known = {picture.digest: picture for picture in train}
    exact = [(p, known[p.digest]) for p in held if p.digest in known]
    cure = f"remove them from training or from {label}: scores on them would be too good"
    what = f"{label}: {counted(len(exact), 'image')} also in the training set"
    yield from some(error, what, cure, _said(exact))
    rest = [p for p in held if p.digest not in known]
    alike = [(rest[i], train[j]) for i, j in near(_matrix(rest), _matrix(train))]
    same = [match for match in alike if _same_detail(*match)]
    what = f"{label}: {counted(len(same), 'image')} nearly the same as one of training"
    yield from some(error, what, cure, _said(same))
    unclear = [match for match in alike if match not in same]
    what = f"{label}: {counted(len(unclear), 'image')} that may be one of training"
    yield from some(warning, what, f"look at both; if they show one scene, {cure}", _said(unclear))


def _said(matches: Sequence[Match]) -> list[str]:
    return [f"{ours.path} = {theirs.path}" for ours, theirs in matches]


def _within(folders: Sequence[Folder], pictures: Mapping[Path, Picture]) -> list[Finding]:
    """Samples that training has twice: equal in all their files."""
    first: dict[tuple[bytes, ...], Path] = {}
    twice = []
    for folder in folders:
        kinds = list(folder.source.folders)
        for of in folder.complete:
            rows = [pictures[getattr(of, kind)] for kind in kinds]
            key = tuple(row.digest for row in rows)
            if all(key) and first.setdefault(key, rows[0].path) != rows[0].path:
                twice.append(f"{rows[0].path} = {first[key]}")
    what = f"train: {counted(len(twice), 'sample')} there more than once"
    return some(warning, what, "remove them, unless they are to count double", twice)


def _matrix(pictures: Sequence[Picture]) -> NDArray[np.float16]:
    """Their fingerprints ``[N, 256]``, zero for those without contrast."""
    matrix = np.zeros((len(pictures), FINGERPRINT**2), np.float16)
    for row, picture in zip(matrix, pictures, strict=True):
        if picture.fingerprint is not None:
            row[:] = picture.fingerprint
    return matrix


def near(ours: NDArray[np.float16], theirs: NDArray[np.float16]) -> list[tuple[int, int]]:
    """(i, j) for each of our fingerprints i that is like one of theirs, j being the likest."""
    best = np.full(len(ours), _ALIKE, np.float32)
    where = np.full(len(ours), -1)
    for i in range(0, len(ours), _BLOCK):
        block = slice(i, i + _BLOCK)
        left = ours[block].astype(np.float32)
        for j in range(0, len(theirs), _BLOCK):
            alike = left @ theirs[j : j + _BLOCK].astype(np.float32).T
            column = alike.argmax(axis=1)
            value = alike[np.arange(len(left)), column]
            better = value > best[block]
            where[block][better] = j + column[better]
            best[block][better] = value[better]
    return [(i, int(j)) for i, j in enumerate(where) if j >= 0]


def _detail(path: Path) -> NDArray[np.float32] | None:
    """What the 64 x 64 thumbnail shows beyond the 16 x 16 one, of length 1; None for nothing."""
    with open_image(path) as image:
        values = fingerprint(ImageOps.exif_transpose(image), side=_DETAIL)
    if values is None:
        return None
    step = _DETAIL // FINGERPRINT
    blocks = values.astype(np.float32).reshape(FINGERPRINT, step, FINGERPRINT, step)
    rest = (blocks - blocks.mean(axis=(1, 3), keepdims=True)).ravel()
    length = float(np.linalg.norm(rest))
    return None if length < 0.02 else rest / length


def _same_detail(ours: Picture, theirs: Picture) -> bool:
    left, right = _detail(ours.path), _detail(theirs.path)
    return left is not None and right is not None and float(left @ right) > _SAME_DETAIL
