"""The page of a model, ``README.md``, made of its description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from mrdiff.checkpoints.description import class_paths
from mrdiff.checkpoints.hub import HUB

_MOST = 40  # names a line
_PAGE = """\
# {title}

A model for `mrdiff`, which restores photos by mean-reverting diffusion in a handful of network
calls.

{facts}

## Use

```python
from PIL import Image
from mrdiff import Restorer

restorer = Restorer.from_pretrained("{name}")
restorer(Image.open("photo.jpg")).save("restored.png")
```

```sh
mrdiff sample photo.jpg --checkpoint {place}
```

A model of the Hub needs `pip install 'mrdiff[hub]'`. Nothing of a model is code: its weights are
safetensors, its description is plain values.

## Limits

It knows what it was trained on. Other degradations it may leave, or make worse; where the photo
says little, what it shows is likely, not true: it is no evidence of what was there.
"""


def model_card(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    place: str,
    license: str | None = None,
) -> str:
    """What ``README.md`` says of a model, its metadata for the Hub first.

    ``config`` is a checked description, of anybody: nothing in it becomes YAML, Markdown or HTML.

    Args:
        config: the description, as :class:`mrdiff.checkpoints.reading.Checkpoint` has it.
        weights: the network's.
        place: where the model will be: ``hf://ORG/NAME`` or a folder.
        license: its name as the Hub has them, such as ``apache-2.0``; None says nothing of it.
    """
    metadata = {
        "library_name": "mrdiff",
        "pipeline_tag": "image-to-image",
        "tags": ["image-to-image", "image-restoration", "diffusion"],
        **({} if license is None else {"license": license}),
    }
    place = _plain(place)
    page = _PAGE.format(
        title=Path(place).name,
        facts="\n".join(f"* {what}: {said}" for what, said in _facts(config, weights).items()),
        name=place.removeprefix(HUB),
        place=place,
    )
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n{page}"


def _facts(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, str]:
    model, data = config["model"], config.get("data") or {}
    size = sum(value.numel() for value in weights.values() if value.is_floating_point())
    facts = {
        "network": f"{_code(class_paths(model['network'])[:1])}, {size:,} parameters",
        "path": _code(class_paths(model["process"])),
        "predicts": _code([model["parameterization"]]),
    }
    if isinstance(tasks := (model["network"].get("init_args") or {}).get("tasks"), list) and tasks:
        facts["tasks"] = f"{_code(tasks)}; which one a photo needs it judges, unless it is told"
    if model.get("start") is not None:
        facts["starts from"] = f"one call of {_code(class_paths(model['start']['network'])[:1])}"
    if isinstance(sampler := config.get("sampler"), dict):
        name, nfe = sampler.get("name", "MRSampler"), sampler.get("nfe", 5)
        facts["sampler"] = f"{_code([name])}, {_plain(nfe)} network calls a photo"
    if isinstance(data, dict) and (classes := class_paths(data.get("train"))):
        facts["trained on"] = _code(dict.fromkeys(classes))
    return facts


def _plain(value: object) -> str:
    """Without any sign that means something to YAML, Markdown, HTML, Python or a shell."""
    return re.sub(r"[^\w./:@-]", "_", f"{value!s:.80}")


def _code(values: Any) -> str:
    """At most 40 of them as code, which nothing in it ends."""
    names = [f"`{_plain(value)}`" for value in values]
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" * (len(names) > _MOST))
