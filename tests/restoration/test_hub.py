"""Models travel: to a folder, to a Hub and back, bit for bit; and nothing of a stranger's runs."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from mrdiff import Restorer, make_sampler
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.export import export_model
from mrdiff.checkpoints.hub import PlaceError
from mrdiff.checkpoints.places import find_model
from mrdiff.cli.sample import command as sample
from mrdiff.solvers.timegrid import uniform_t
from mrdiff.tuning.checkpoint_sampler import save_sampler
from tests.local_hub import Hub, Repo, serving
from tests.places import ROOT
from tests.tiny_model import write_tiny_checkpoint

PHOTO = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on this machine, and an empty cache of models."""
    pytest.importorskip("huggingface_hub", reason="needs mrdiff[hub]")
    from huggingface_hub import constants

    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


@pytest.fixture
def restorer(tmp_path: Path) -> Restorer:
    """Of a checkpoint that says what it was trained on."""
    path = write_tiny_checkpoint(tmp_path / "tiny.ckpt", tasks=("rainy", "hazy"))
    content = torch.load(path, weights_only=True)
    content["mrdiff"]["data"] = {"train": {"class_path": "datamodules.DeadLeaves"}}
    torch.save(content, path)
    return Restorer.from_checkpoint(path, device="cpu", sampler="mr-sde-1", nfe=2)


def folder_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def restored(source: Any, **options: Any) -> torch.Tensor:
    picture: torch.Tensor = Restorer.from_pretrained(source, device="cpu", **options)(PHOTO)
    return picture


def refusal(source: Any, error: type[ValueError] = PlaceError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        restored(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_model_is_the_same_again(restorer: Restorer, tmp_path: Path) -> None:
    restorer.save_pretrained(tmp_path / "model", license="apache-2.0")
    assert {*folder_of(tmp_path / "model")} == {"config.json", "model.safetensors", "README.md"}
    assert torch.equal(restored(tmp_path / "model"), restorer(PHOTO))
    again = Restorer.from_pretrained(tmp_path / "model")
    assert again.sampler.options() == restorer.sampler.options()
    # All else of the description is as it was.
    assert again.description == {**(restorer.description or {}), "sampler": again.sampler.spec}
    with pytest.raises(CheckpointError, match="not an empty folder"):
        restorer.save_pretrained(tmp_path / "model")
    plain = Restorer(restorer.denoiser, sampler="mr-sde-1", nfe=2)  # of no checkpoint
    plain.save_pretrained(tmp_path / "plain")
    assert torch.equal(restored(tmp_path / "plain"), restorer(PHOTO))


def test_a_start_and_a_sampler_that_is_no_json_travel(restorer: Restorer, tmp_path: Path) -> None:
    first = Restorer.from_checkpoint(write_tiny_checkpoint(tmp_path / "a.ckpt"), device="cpu")
    first.denoiser.start_from(restorer.denoiser)
    options = {"nfe": 2, "order": 1, "eta": math.inf, "grid": {2: [1.0, 0.5, 0.0]}}
    with_start = Restorer(first.denoiser, sampler=make_sampler(options))
    with_start.save_pretrained(tmp_path / "model")
    assert {*folder_of(tmp_path / "model")} == {
        *("config.yaml", "model.safetensors", "start.safetensors", "README.md")
    }
    assert torch.equal(restored(tmp_path / "model"), with_start(PHOTO))


def test_what_would_come_back_as_something_else_is_not_saved(
    restorer: Restorer, tmp_path: Path
) -> None:
    restorer.denoiser.network.to(torch.bfloat16)
    with pytest.raises(ValueError, match="rounded to bfloat16: load it with precision='fp32'"):
        restorer.save_pretrained(tmp_path / "model")
    other = Restorer.from_checkpoint(tmp_path / "tiny.ckpt", device="cpu", grid=uniform_t)
    with pytest.raises(TypeError, match="grid that is a function"):
        other.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_setting_is_written_into_json_too(restorer: Restorer, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    restorer.save_pretrained(folder)
    save_sampler(folder, {"name": "mr-ode-1", "nfe": 3})
    assert Restorer.from_pretrained(folder).sampler.nfe == 3
    before = folder_of(folder)
    with pytest.raises(CheckpointError, match="its sampler cannot be written"):
        save_sampler(folder, {"nfe": 2, "grid": {2: [1.0, 0.5, 0.0]}})
    assert folder_of(folder) == before


def test_push_and_pull_are_the_same_bits(hub: Hub, restorer: Restorer, tmp_path: Path) -> None:
    page = restorer.push_to_hub("org/tiny", private=True, token="hf_x", license="mit")
    assert page == f"{hub.url}/org/tiny"
    repo = hub.repos["org/tiny"]
    assert repo.private
    restorer.save_pretrained(tmp_path / "saved")
    assert {k: v for k, v in repo.files.items() if k != "README.md"} == {
        k: v for k, v in folder_of(tmp_path / "saved").items() if k != "README.md"
    }
    metadata = yaml.safe_load(repo.files["README.md"].decode().split("---")[1])
    assert metadata["license"] == "mit"
    assert metadata["pipeline_tag"] == "image-to-image"
    for source in ("org/tiny", "hf://org/tiny", "hf://org/tiny@main"):
        assert torch.equal(restored(source), restorer(PHOTO))
    assert torch.equal(
        Restorer.from_checkpoint("hf://org/tiny", device="cpu")(PHOTO), restorer(PHOTO)
    )


def test_a_new_version_leaves_the_owners_card_and_the_old_version(
    hub: Hub, restorer: Restorer, tmp_path: Path
) -> None:
    old = write_tiny_checkpoint(tmp_path / "old.ckpt", identity=True)
    export_model(old, tmp_path / "old")
    first = {**folder_of(tmp_path / "old"), "README.md": b"mine", "notes.txt": b"mine, too"}
    hub.repos["org/tiny"] = Repo()
    hub.repos["org/tiny"].commit(first, tag="v1")
    restorer.push_to_hub("org/tiny")
    files = hub.repos["org/tiny"].files
    assert {*files} == {"config.json", "model.safetensors", "README.md", "notes.txt"}
    assert files["README.md"] == b"mine"
    assert torch.equal(restored("org/tiny"), restorer(PHOTO))
    expected = Restorer.from_checkpoint(old, device="cpu")(PHOTO)
    assert torch.equal(restored("org/tiny", revision="v1"), expected)
    assert torch.equal(restored("hf://org/tiny@v1"), expected)
    assert not list((tmp_path / "cache").rglob("notes.txt"))


def test_the_commands_take_a_model_of_the_hub(
    hub: Hub, restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same process while the Hub is there, and by the real command once it has gone."""
    monkeypatch.chdir(tmp_path)
    restorer.push_to_hub("org/tiny")
    Image.new("RGB", (24, 20), (90, 120, 40)).save("photo.png")
    flags = ["--checkpoint", "hf://org/tiny", "--input", "photo.png", "--device", "cpu"]
    assert sample.main([*flags, "--output", "now"], program="sample.py") == 0
    hub.asked.clear()
    environment = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "sample.py"), *flags, "--output", "later"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    assert hub.asked == []
    assert Path("later/photo.png").read_bytes() == Path("now/photo.png").read_bytes()
    command[command.index("hf://org/tiny")] = "hf://org/none"
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 2
    assert "hf://org/none: the Hub cannot be reached, and its cache has not all" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_cache_of_the_hub_is_not_written_into(
    hub: Hub, restorer: Restorer, tmp_path: Path
) -> None:
    restorer.push_to_hub("org/tiny")
    with pytest.raises(CheckpointError, match="Hub's cache: copy it first, with mrdiff export"):
        save_sampler("hf://org/tiny", {"name": "mr-ode-1", "nfe": 3})
    export_model("hf://org/tiny", tmp_path / "mine")
    save_sampler(tmp_path / "mine", {"name": "mr-ode-1", "nfe": 3})
    assert torch.equal(restored("org/tiny"), restorer(PHOTO))


def test_what_cannot_be_had_is_one_line(
    hub: Hub, restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer.push_to_hub("org/tiny")
    hub.repos["org/gated"] = Repo(gated=True)
    hub.repos["org/gated"].commit(hub.repos["org/tiny"].files)
    assert refusal("org/none").startswith("hf://org/none: there is no such model, or it is private")
    assert "its owner has to let you in" in refusal("hf://org/gated")
    assert refusal("org/tiny", revision="v9") == "hf://org/tiny@v9: it has no such revision"
    assert "a model of the Hub is hf://ORG/NAME" in refusal("hf://a b/c")
    assert "no checkpoint at" in refusal(tmp_path / "none", CheckpointError)
    assert "only a model of the Hub has revisions" in refusal(tmp_path, revision="main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot be reached" in refusal("org/tiny")  # it was never fetched
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'mrdiff[hub]'" in refusal("org/tiny")
    with pytest.raises(PlaceError, match=r"pip install 'mrdiff\[hub\]'"):
        restorer.push_to_hub("org/tiny")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_on_the_hub_is_not_fetched_and_not_read(
    hub: Hub, restorer: Restorer, tmp_path: Path
) -> None:
    restorer.save_pretrained(tmp_path / "saved")
    config = (tmp_path / "saved" / "config.json").read_bytes()
    evil = pickle.dumps(Evil(tmp_path / "pwned"))
    repo = hub.repos["org/evil"] = Repo()
    repo.commit({"config.json": config, "pytorch_model.bin": evil, "model.ckpt": evil})
    assert refusal("org/evil").startswith("hf://org/evil has no model.safetensors")
    assert not any(".bin" in line or ".ckpt" in line for line in hub.asked)
    repo.commit({"config.json": config, "model.safetensors": evil})
    assert "not a readable exported model" in refusal("org/evil", CheckpointError)
    repo.commit({"config.json": b'{"model_type": "bert"}', "model.safetensors": evil})
    refusal("org/evil", CheckpointError)
    assert not (tmp_path / "pwned").exists()


def test_a_foreign_class_on_the_hub_is_not_imported(
    hub: Hub, restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_package.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'pwned')!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    restorer.push_to_hub("org/evil")
    files = dict(hub.repos["org/evil"].files)
    config = json.loads(files["config.json"])
    config["mrdiff"]["model"]["network"]["class_path"] = "evil_package.Net"
    hub.repos["org/evil"].commit({**files, "config.json": json.dumps(config).encode()})
    said = refusal("hf://org/evil", CheckpointError)
    assert "evil_package.Net is outside the allowed packages" in said
    assert not (tmp_path / "pwned").exists()
    assert len(load_file(find_model("hf://org/evil") / "model.safetensors")) > 5
