"""What flags and configurations offer, by name; free of torch: ``--help`` answers at once."""

from __future__ import annotations

PAPER_SAMPLERS = ("mr-ode-1", "mr-ode-2", "mr-ode-3", "mr-sde-1", "mr-sde-2")
TUNED_SAMPLERS = ("fidelity", "perceptual", "consistency")  # the best found at each NFE
BASELINES = ("euler-sde", "euler-ode", "heun-ode", "posterior")
SAMPLERS = (*PAPER_SAMPLERS, *TUNED_SAMPLERS, *BASELINES)

GRIDS = ("uniform_t", "uniform_log_snr", "uniform_angle", "karras", "power", "leading", "trailing")
METRICS = ("psnr", "ssim", "psnr_y", "ssim_y", "lpips")
IMAGE_METRICS = (*METRICS, "sw", "dists", "niqe", "piqe")  # of one image, or of it and its truth
SET_METRICS = ("fid", "kid")  # of many
VALIDATION_METRICS = (*IMAGE_METRICS, *SET_METRICS)
MAX_PSNR = 100.0  # dB: identical images count as this, or every mean would be infinite
LOWER_IS_BETTER = ("lpips", "sw", "dists", "niqe", "piqe", *SET_METRICS)
METRIC_TITLES = {name: name.upper().replace("_", "-") for name in VALIDATION_METRICS}
BACKBONES = ("inception", "vgg16", "alexnet")  # whose features "fid" and "kid" compare
SEARCH_METRICS = ("distance", "psnr", "ssim", "lpips")  # that times can be chosen by
PROTOCOLS = ("standard", "ir-sde")
FORMATS = ("png", "jpg", "webp", "tif", "bmp")
_CLIPS = ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .vob .ogv .wmv .asf .flv .3gp"
CLIPS = (*_CLIPS.split(), ".3g2", ".mxf", ".dv")
PRECISIONS = {  # by the backend
    "torch": ("auto", "fp32", "tf32", "bf16", "fp16"),
    "openvino": ("auto", "fp32", "bf16", "int8"),
}
ARCHITECTURES = ("irsde", "refusion", "daclip")  # of the official code
OFFICIAL_PATHS = ("mr", "goub", "unidb")  # that those were trained with


def metric_label(metric: str, name: str = "") -> str:
    """Its name, or another, its unit and which way is better."""
    unit = " in dB" if metric.startswith("psnr") else ""
    better = "lower" if metric in LOWER_IS_BETTER else "higher"
    return f"{name or METRIC_TITLES[metric]}{unit} ({better} is better)"
