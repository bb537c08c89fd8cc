"""What is known of the restoration of a photo: for a log, and as said in a line or on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrdiff.restoration.restorer import Judged
from mrdiff.solvers.run import Sampler

__all__ = ["facts_of", "told"]


def facts_of(sampler: Sampler, judged: Judged | None, seconds: float) -> dict[str, Any]:
    """Plain values; ``judged`` is the task with its probability, for a model of several."""
    name = (sampler.spec or {}).get("name", "a sampler of its own")
    facts: dict[str, Any] = {"seconds": round(seconds, 4), "sampler": name, "nfe": sampler.nfe}
    if judged is not None:
        facts |= {"task": judged[0], "probability": round(judged[1], 4)}
    return facts


def told(facts: Mapping[str, Any], *, sure: bool) -> list[str]:
    """The facts in words; ``sure`` says how sure the model is of the task."""
    calls = f"{facts['nfe']} call" + "s" * (facts["nfe"] != 1)
    words = [f"{facts['sampler']}, {calls}", f"{facts['seconds']:.1f} s"]
    if "task" in facts:
        words.insert(0, facts["task"] + (f" ({facts['probability']:.0%} sure)" if sure else ""))
    return words
