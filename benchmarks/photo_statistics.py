"""What a degradation did to a photograph, in numbers, from the pair (degraded, clean)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import ndimage

Image: TypeAlias = np.ndarray  # [H, W, 3] in [0, 1]
Numbers: TypeAlias = dict[str, float]


def _linear(image: Image) -> Image:
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def _smooth(image: Image, size: int) -> Image:
    return ndimage.uniform_filter(image, (size, size, *[0] * (image.ndim - 2)))


def psnr(lq: Image, gt: Image) -> float:
    return -10 * float(np.log10(np.square(lq - gt).mean() + 1e-10))


def _grain(plane: np.ndarray) -> float:
    """Deviation of what no plane surface has, in the flattest fifth of the blocks of 16 x 16."""
    height, width = (side // 16 for side in plane.shape)
    high = ndimage.convolve(plane, np.outer([1, -2, 1], [1, -2, 1]) / 6.0)
    blocks = high[: 16 * height, : 16 * width].reshape(height, 16, width, 16)
    return float(np.quantile(blocks.std((1, 3)), 0.1))


def low_light(lq: Image, gt: Image) -> Numbers:
    light, truth = _linear(lq), _linear(gt)
    seen = (gt > 0.3) & (gt < 0.97) & (lq > 0.012)
    stops = [np.nan] * 3
    for c in range(3):
        if seen[..., c].sum() > 50:
            here = seen[..., c]
            stops[c] = float(np.median(np.log2(light[here, c] / truth[here, c])))
    small, large = _smooth(lq.mean(-1), 9), _smooth(gt.mean(-1), 9)
    known = (large > 0.05) & (large < 0.9) & (small > 0.01)
    stops_here = np.log2((_smooth(light, 9).mean(-1) + 1e-4) / (_smooth(truth, 9).mean(-1) + 1e-4))
    slope = np.nan
    if known.sum() > 99:
        slope = np.polyfit(np.log(large[known]), np.log(small[known]), 1)[0]
    return {
        **{f"{share:.0%}, level": np.quantile(lq, share) * 255 for share in (0.05, 0.5, 0.9, 0.99)},
        "mean of GT, level": gt.mean() * 255,
        "black (level 2 and less), share": (lq.max(-1) <= 2.5 / 255).mean(),
        "white in GT, share": (gt.min(-1) > 0.98).mean(),
        "exposure, stops": np.mean(stops),
        "between channels, stops": max(stops) - min(stops),
        "exposure over the picture, deviation in stops": stops_here.std(),
        "slope of log LQ against log GT": slope,
        "noise in flat parts, levels": _grain(lq[..., 1]) * 255,
    }


def motion_blur(lq: Image, gt: Image) -> Numbers:
    """The kernel of least squares: the largest part of what is above a tenth of its peak."""
    window = np.outer(*(np.hanning(side) for side in lq.shape[:2]))
    blurred, sharp = (np.fft.fft2((i.mean(-1) - i.mean()) * window) for i in (lq, gt))
    power = np.abs(sharp) ** 2
    kernel = np.fft.ifft2(blurred * sharp.conj() / (power + 1e-3 * power.mean())).real
    kernel = np.fft.fftshift(kernel)
    kernel[kernel < 0.1 * kernel.max()] = 0
    parts, count = ndimage.label(ndimage.binary_dilation(kernel > 0, iterations=2))
    kernel[parts != 1 + np.argmax(ndimage.sum_labels(kernel, parts, range(1, count + 1)))] = 0
    places = np.stack(np.nonzero(kernel))
    weight = kernel[tuple(places)]
    across, along = np.sqrt(np.linalg.eigvalsh(np.cov(places, aweights=weight, bias=True)).clip(0))
    centre = np.average(places, axis=1, weights=weight) - np.array(kernel.shape) // 2
    steep = [sum(np.square(np.diff(i, axis=axis)).mean() for axis in (0, 1)) for i in (lq, gt)]
    return {
        "box of the kernel, px": np.ptp(places, axis=1).max(),
        "deviation along the kernel, px": along,
        "deviation across, share of along": across / max(along, 1e-9),
        "LQ beside GT, px": np.hypot(*centre),
        "steepness left, share": steep[0] / steep[1],
    }


def shadow(lq: Image, gt: Image) -> Numbers:
    """In shadow is what lost a quarter of its light; the edge is from 0.1 to 0.9 of the depth."""
    ratio = np.divide(*(_smooth(_linear(i), 5) + 1e-3 for i in (lq, gt)))
    inside = ndimage.binary_opening(ratio[..., 1] < 0.75, iterations=3)
    if inside.mean() < 0.002:
        return {"in shadow, share": inside.mean()}
    red, green, blue = np.median(ratio[inside], axis=0)
    depth = (1 - ratio[..., 1]) / (1 - green)
    contour = inside ^ ndimage.binary_erosion(inside)
    edge = (depth > 0.1) & (depth < 0.9) & ndimage.binary_dilation(contour, iterations=20)
    return {
        "in shadow, share": inside.mean(),
        "light left, red": red,
        "light left, green": green,
        "light left, blue": blue,
        "blue to red of the light left": blue / red,
        "edge, px": edge.sum() / contour.sum(),
        "parts": ndimage.label(inside)[1],
        "median in shadow, level": np.median(lq[inside]) * 255,
        "median in light, level": np.median(lq[~inside]) * 255,
    }


def raindrop(lq: Image, gt: Image) -> Numbers:
    """Changed is what differs by 8 levels after smoothing, in parts of 20 pixels or more."""
    change = _smooth((lq - gt).mean(-1), 5)
    parts, count = ndimage.label(np.abs(change) > 8 / 255)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    inside = sizes[parts] >= 20
    if not inside.any():
        return {"changed, share": 0.0}
    diameters = 2 * np.sqrt(sizes[sizes >= 20] / np.pi)
    steep = [ndimage.gaussian_gradient_magnitude(i.mean(-1), 1.0)[inside].mean() for i in (lq, gt)]
    return {
        "changed, share": inside.mean(),
        "parts in 100 x 100 px": len(diameters) / change.size * 1e4,
        "median diameter, px": np.median(diameters),
        "90 % diameter, px": np.quantile(diameters, 0.9),
        "mean change within, levels": change[inside].mean() * 255,
        "deviation of the change within, levels": change[inside].std() * 255,
        "steepness within, share of the truth's": steep[0] / steep[1],
        "PSNR where unchanged, dB": psnr(lq[~inside], gt[~inside]),
    }


def haze(lq: Image, gt: Image) -> Numbers:
    """Airlight is the mean where the darkest channel is brightest; transmission goes by it."""
    dark = _smooth(lq.min(-1), 15)
    air = lq[dark >= np.quantile(dark, 0.995)].mean(0)
    less = [(_smooth(i, 15) - air).mean(-1) for i in (lq, gt)]
    left = np.quantile((less[0] / np.minimum(less[1], -0.05)).clip(0, 1), (0.1, 0.5, 0.9))
    return {
        "airlight, level": air.mean() * 255,
        "airlight, blue less red, levels": (air[2] - air[0]) * 255,
        **dict(zip((f"transmission, {n} %" for n in (10, 50, 90)), left, strict=True)),
    }


def noise(lq: Image, gt: Image) -> Numbers:
    residual = lq - gt - ndimage.gaussian_filter(lq - gt, (4, 4, 0))
    level, found = _smooth(gt, 5), {}
    for name, low, high in (("dark", 0, 0.25), ("middle", 0.25, 0.6), ("bright", 0.6, 0.95)):
        there = residual[(level >= low) & (level < high)]
        found[f"deviation, {name}, levels"] = there.std() * 255 if there.size > 999 else np.nan
    red, green = residual[..., 0], residual[..., 1]
    return found | {
        "correlation with the next pixel": np.mean(green[:, 1:] * green[:, :-1]) / green.var(),
        "correlation of red and green": np.corrcoef(red.ravel(), green.ravel())[0, 1],
    }


def added_light(lq: Image, gt: Image) -> Numbers:
    added = (lq - gt).mean(-1)
    lighter = added > 0.1
    return {
        "mean added, levels": added.mean() * 255,
        "lighter by 25 levels, share": lighter.mean(),
        "mean where lighter, levels": added[lighter].mean() * 255 if lighter.any() else np.nan,
    }


def changed(lq: Image, gt: Image) -> Numbers:
    return {"changed, share": (np.abs(lq - gt).max(-1) > 3 / 255).mean()}


STATISTICS: dict[str, Callable[[Image, Image], Numbers]] = {
    "motion-blurry": motion_blur,
    "hazy": haze,
    "jpeg-compressed": changed,
    "low-light": low_light,
    "noisy": noise,
    "raindrop": raindrop,
    "rainy": added_light,
    "shadowed": shadow,
    "snowy": added_light,
    "inpainting": changed,
}
