"""Real photographs that come with scikit-image, spoilt: nothing to download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from datamodules.datasets.base import RestorationDataset, Sample, check_sizes, index_of
from datamodules.datasets.degraded import FixedSamples
from datamodules.degradations import JPEG, Degradation, Haze, LowLight, Noise, Rain, Snow
from datamodules.degradations.base import to_8_bit
from datamodules.errors import DataError
from datamodules.randomness import SampleKey
from mrdiff.photo import centre_crop, read_rgb, write_image

# Everyday scenes whose files lie in the wheel itself (others of skimage.data are downloaded).
_PNG = ("astronaut", "camera", "chelsea", "coffee", "motorcycle_left")
_FILES = (*(f"{name}.png" for name in _PNG), "rocket.jpg")


def _folder() -> Path:
    """scikit-image's photos; found without importing it, which is slow."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("scikit-image is not installed; its photos are needed: pip install it")
    return Path(spec.submodule_search_locations[0]) / "data"


def _fitted(image: Tensor, size: int) -> Tensor:
    """``[3, H, W]`` scaled until its shorter side is ``size``, then cut to a central square."""
    scale = size / min(image.shape[-2:])
    target = [max(size, round(side * scale)) for side in image.shape[-2:]]
    scaled = functional.interpolate(image[None], target, mode="bicubic", antialias=True)[0]
    return to_8_bit(centre_crop(scaled, size))


class DemoPhotos(RestorationDataset):
    """Real photos from the scikit-image wheel, ``size`` pixels square.

    Each comes under every task of the degradation, a function of (seed, name) alone.
    """

    def __init__(self, degradation: Degradation, *, size: int = 192, seed: int = 0) -> None:
        check_sizes(size)
        self.degradation, self.size = degradation, size
        self.fixed = FixedSamples(degradation, seed=seed)

    def check(self) -> None:
        """Raise :class:`DataError` if the installed scikit-image lacks a photo."""
        folder = _folder()
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            cure = "reinstall scikit-image 0.22 or later"
            raise DataError(f"{folder}: {', '.join(missing)} not there; {cure}")

    def __len__(self) -> int:
        return len(_FILES) * self.fixed.each

    def __getitem__(self, key: int | SampleKey) -> Sample:
        index = index_of(key)
        path = _folder() / _FILES[index // self.fixed.each]
        clean = _fitted(read_rgb(path), self.size)
        return self.fixed.sample(clean, index, path.stem)


def write_demo(
    folder: Path | str,
    *,
    degradation: Degradation | None = None,
    size: int = 384,
    seed: int = 0,
) -> list[str]:
    """Write ``LQ/<name>.png`` and ``GT/<name>.png`` of every demo photo; returns the names.

    The folder is made if it is missing, files of the same names are replaced. Without a
    degradation it is :class:`Rain`. ``size`` is the side of the square photos in pixels.

    Raises:
        DataError: scikit-image is not there.
        PhotoError: the folder cannot be written.
    """
    photos = DemoPhotos(degradation or Rain(), size=size, seed=seed)
    photos.check()
    return [_write(folder, photos[index]) for index in range(len(photos))]


def write_mixed(folder: Path | str, *, size: int = 384, seed: int = 0) -> list[str]:
    """As :func:`write_demo`, but each photo under another degradation, named before its name."""
    spoilt: dict[str, Degradation] = {"rainy": Rain(), "noisy": Noise(), "low-light": LowLight()}
    spoilt |= {"jpeg-compressed": JPEG(), "snowy": Snow(), "hazy": Haze()}
    names = []
    for index, (task, degradation) in enumerate(spoilt.items()):
        photos = DemoPhotos(degradation, size=size, seed=seed)
        photos.check()
        names.append(_write(folder, photos[index], f"{task}-"))
    return names


def _write(folder: Path | str, sample: Sample, prefix: str = "") -> str:
    name = prefix + sample["name"]
    write_image(Path(folder) / "LQ" / f"{name}.png", sample["lq"])
    write_image(Path(folder) / "GT" / f"{name}.png", sample["gt"])
    return name
