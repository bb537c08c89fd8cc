"""DA-CLIP's towers against other implementations, its files, and the features that are stored."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mrdiff import MRProcess, Restorer
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.networks import DACLIPUNet, UNet
from mrdiff.networks.conditions import FeatureError, make_context
from mrdiff.networks.protocol import known_features
from mrdiff.official.daclip import DACLIPError, ImageController, encode_texts
from mrdiff.official.daclip.controller import prepare
from mrdiff.official.daclip.text import tokenise
from mrdiff.official.daclip.towers import TextTower
from mrdiff.official.daclip.weights import fill, text_tower
from mrdiff.restoration.features import StoredFeatures, gather_features
from tests.networks.test_official import small
from tests.tiny_daclip import GRID, LAYERS, PATCH, SIDE, WIDTH, tiny_daclip, write_daclip

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="compares with transformers"
)
needs_open_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="needs open_clip: 'mrdiff[clip]'"
)
HEADS = WIDTH // 64


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_daclip(tmp_path_factory.mktemp("daclip") / "daclip.pt")


@pytest.fixture(scope="module")
def controller(file: Path) -> ImageController:
    return ImageController.from_file(file)


def pixels(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def images(batch: int = 2, size: tuple[int, int] = (40, 56)) -> Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(2))


def in_transformers(weights: dict[str, Tensor], start: str, prefix: str) -> dict[str, Tensor]:
    """The blocks of a tower by the names of transformers."""
    renamed: dict[str, Tensor] = {}
    pairs = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    pairs |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for index in range(LAYERS):
        theirs, ours = f"{prefix}encoder.layers.{index}", f"{start}resblocks.{index}"
        for part in ("weight", "bias"):
            for a, b in pairs.items():
                renamed[f"{theirs}.{b}.{part}"] = weights[f"{ours}.{a}.{part}"]
            joint = weights[f"{ours}.attn.in_proj_{part}"].chunk(3)
            for name, value in zip("qkv", joint, strict=True):
                renamed[f"{theirs}.self_attn.{name}_proj.{part}"] = value
    return renamed


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@needs_transformers
@torch.no_grad()
def test_the_vision_tower_is_that_of_transformers(controller: ImageController) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="gelu",
    )
    model, weights, base = CLIPVisionModelWithProjection(config), tiny_daclip(), "clip.visual."
    renamed = in_transformers(weights, f"{base}transformer.", "vision_model.")
    theirs = "vision_model.embeddings."
    renamed[f"{theirs}class_embedding"] = weights[f"{base}class_embedding"]
    renamed[f"{theirs}patch_embedding.weight"] = weights[f"{base}conv1.weight"]
    renamed[f"{theirs}position_embedding.weight"] = weights[f"{base}positional_embedding"]
    for part in ("weight", "bias"):
        renamed[f"vision_model.pre_layrnorm.{part}"] = weights[f"{base}ln_pre.{part}"]
        renamed[f"vision_model.post_layernorm.{part}"] = weights[f"{base}ln_post.{part}"]
    renamed["visual_projection.weight"] = weights[f"{base}proj"].T
    load_all(model, renamed)
    close(controller.visual(pixels())[0], model.eval()(pixels()).image_embeds)


@needs_transformers
@torch.no_grad()
def test_the_text_tower_is_that_of_transformers() -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        hidden_act="gelu",
        eos_token_id=49,
        bos_token_id=48,
        pad_token_id=0,
    )
    model, weights = CLIPTextModelWithProjection(config), tiny_daclip()
    renamed = in_transformers(weights, "clip.transformer.", "text_model.")
    theirs = "text_model.embeddings."
    renamed[f"{theirs}token_embedding.weight"] = weights["clip.token_embedding.weight"]
    renamed[f"{theirs}position_embedding.weight"] = weights["clip.positional_embedding"]
    for part in ("weight", "bias"):
        renamed[f"text_model.final_layer_norm.{part}"] = weights[f"clip.ln_final.{part}"]
    renamed["text_projection.weight"] = weights["clip.text_projection"].T
    load_all(model, renamed)
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[0, :4] = torch.tensor([48, 7, 9, 49])
    tokens[1, :6] = torch.tensor([48, 3, 22, 9, 30, 49])
    close(text(weights)(tokens), model.eval()(tokens).text_embeds)


def load_all(model: nn.Module, weights: dict[str, Tensor]) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("position_ids") for name in missing)


def text(weights: dict[str, Tensor]) -> TextTower:
    return fill(text_tower(weights, "clip.", "here"), weights, lambda name: f"clip.{name}", "here")


def slow_tower(
    weights: dict[str, Tensor],
    prefix: str,
    transformer: str,
    x: Tensor,
    control: list[Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """A vision tower word for word; the second result is what the zero layers return, if any."""

    def norm(name: str, value: Tensor) -> Tensor:
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(value, (WIDTH,), w, b)

    def attention(name: str, value: Tensor) -> Tensor:
        joint = value @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]
        heads = []
        for head in range(HEADS):
            q, k, v = (part[..., 64 * head : 64 * head + 64] for part in joint.chunk(3, dim=-1))
            heads.append((q @ k.mT / 8).softmax(dim=-1) @ v)
        merged = torch.cat(heads, dim=-1)
        return merged @ weights[f"{name}.out_proj.weight"].T + weights[f"{name}.out_proj.bias"]

    patches = F.conv2d(x, weights[f"{prefix}conv1.weight"], stride=PATCH).flatten(2).mT
    first = weights[f"{prefix}class_embedding"].expand(len(x), 1, WIDTH)
    hidden = torch.cat([first, patches], dim=1) + weights[f"{prefix}positional_embedding"]
    hidden, states = norm(f"{prefix}ln_pre", hidden), []
    for index in range(LAYERS):
        block = f"{prefix}{transformer}resblocks.{index}"
        hidden = hidden + attention(f"{block}.attn", norm(f"{block}.ln_1", hidden))
        wide = norm(f"{block}.ln_2", hidden) @ weights[f"{block}.mlp.c_fc.weight"].T
        wide = F.gelu(wide + weights[f"{block}.mlp.c_fc.bias"])
        wide = wide @ weights[f"{block}.mlp.c_proj.weight"].T
        hidden = hidden + wide + weights[f"{block}.mlp.c_proj.bias"]
        zero = f"{prefix}transformer.zero_modules.{index}"
        if f"{zero}.weight" in weights:
            states.append(hidden @ weights[f"{zero}.weight"].T + weights[f"{zero}.bias"])
        if control is not None:
            hidden = hidden + control.pop()
    return norm(f"{prefix}ln_post", hidden[:, 0]) @ weights[f"{prefix}proj"], states


@torch.no_grad()
def test_the_controller_steers_the_tower_from_the_last_block_on(
    controller: ImageController,
) -> None:
    weights = tiny_daclip()
    wrapped = "transformer.transformer."
    degradation, states = slow_tower(weights, "visual_control.", wrapped, pixels())
    assert len(states) == LAYERS
    content, _ = slow_tower(weights, "clip.visual.", "transformer.", pixels(), states)
    ours = controller.encode(pixels())
    close(ours["text"], degradation)
    close(ours["image"], content)
    assert not torch.allclose(content, controller.visual(pixels())[0], atol=1e-2)


def test_photos_are_resized_by_their_shorter_side_and_cropped() -> None:
    stripes = torch.zeros(3, 30, 90)
    stripes[0, :, :28], stripes[1, :, 28:62], stripes[2, :, 62:] = 1, 1, 1
    for image in (stripes, stripes.mT):
        seen = prepare(image, 20)
        assert seen.shape == (3, 20, 20)
        values = torch.tensor([0, 1, 0]) - torch.tensor([0.48145466, 0.4578275, 0.40821073])
        values /= torch.tensor([0.26862954, 0.26130258, 0.27577711])
        # Green alone, but for the rims, where the filter reaches the other stripes.
        middle = seen if image is stripes else seen.mT
        assert torch.allclose(middle[..., 3:-3], values[:, None, None].expand(3, 20, 14))
    same = torch.randint(256, (3, 20, 20)).float() / 255
    mean, std = prepare(torch.zeros(3, 9, 9), 20)[:, 0, 0], prepare(torch.ones(3, 9, 9), 20)
    low, high = mean[:, None, None], std
    assert torch.allclose(prepare(same, 20), low + same * (high - low), atol=1e-6)


def test_a_photo_has_the_same_features_alone_and_among_others(controller: ImageController) -> None:
    batch = controller(images(3))
    assert {name: tuple(v.shape) for name, v in batch.items()} == {
        "text": (3, 512),
        "image": (3, 512),
    }
    for index in range(3):
        alone = controller(images(3)[index : index + 1])
        assert all(torch.equal(alone[name][0], batch[name][index]) for name in alone)
    assert not torch.allclose(batch["text"][0], batch["text"][1], atol=1e-3)
    assert controller.side == SIDE == GRID * PATCH


def test_a_narrow_tower_has_one_head(tmp_path: Path) -> None:
    narrow = ImageController.from_file(write_daclip(tmp_path / "a.pt", width=32, outputs=16))
    assert narrow.features == {"text": 16, "image": 16}
    assert narrow(images(1))["image"].shape == (1, 16)


def test_half_precision_and_bare_files_are_read(tmp_path: Path) -> None:
    half = {key: value.half() for key, value in tiny_daclip().items()}
    torch.save(half, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert ImageController.from_file(tmp_path / "a.pt")(images(1))["text"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if "visual_control" not in k}, "keys are missing"),
        (
            lambda w: {k: v for k, v in w.items() if "zero_modules.1" not in k},
            "2 keys are missing, first visual_control.transformer.zero_modules.1.weight",
        ),
        (
            lambda w: {k.removeprefix("clip."): v for k, v in w.items()},
            "has no clip.visual.conv1.weight, clip.visual.positional_embedding, clip.visual.proj",
        ),
        (
            lambda w: {**w, "clip.visual.ln_pre.weight": torch.ones(3)},
            r"clip.visual.ln_pre.weight is \[3\], expected \[128\]",
        ),
        (
            lambda w: {**w, "clip.visual.proj": torch.ones(3)},
            r"clip.visual.proj is \[3\], expected 2 dimensions",
        ),
        (lambda w: {"state_dict": {"epoch": 3}}, "holds no weights"),
        (lambda w: [1, 2], "holds no weights"),
    ],
)
def test_what_is_no_daclip_is_said_in_a_line(tmp_path: Path, change, message: str) -> None:
    torch.save(change(tiny_daclip()), tmp_path / "wrong.pt")
    with pytest.raises(DACLIPError, match=rf"wrong\.pt.*{message}"):
        ImageController.from_file(tmp_path / "wrong.pt")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"nothing")
    with pytest.raises(DACLIPError, match=r"a\.pt is not a readable checkpoint"):
        ImageController.from_file(tmp_path / "a.pt")
    with pytest.raises(DACLIPError, match=r"no DA-CLIP checkpoint at .*none\.pt"):
        ImageController.from_file(tmp_path / "none.pt")


@needs_open_clip
def test_tokens_are_those_of_clip() -> None:
    tokens = tokenise(["rainy", "Motion-Blurry"])
    assert tokens[0, :4].tolist() == [49406, 10222, 49407, 0]
    assert tokens[1, :6].tolist() == [49406, 7860, 268, 21977, 49407, 0]
    assert tokens.shape == (2, 77)


@needs_open_clip
def test_a_text_has_the_same_features_alone_and_among_others(tmp_path: Path) -> None:
    path = write_daclip(tmp_path / "a.pt", words=49408, outputs=16)
    both = encode_texts(path, ["rainy", "hazy"])
    assert both.shape == (2, 16)
    assert torch.equal(both[1:], encode_texts(path, ["hazy"]))


def test_without_open_clip_it_is_said_what_to_install(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DACLIPError, match=r"pip install 'mrdiff\[clip\]' \(those of photos do not"):
        encode_texts(file, ["rainy"])


def stored(path: Path, **tensors: Tensor) -> StoredFeatures:
    save_file({key.replace("__", "/"): value for key, value in tensors.items()}, path)
    return StoredFeatures.read(path)


def test_stored_features_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    a, b, c, d, e = (torch.full((4,), float(i)) for i in range(5))
    found = stored(path, text=a, image=b[None], s__x__image=c, s__x__text=d.half(), task__rainy=e)
    assert {k: v.tolist() for k, v in found.of("y").items()} == {
        "text": [[0] * 4],
        "image": [[1] * 4],
    }
    own = found.of("s/x")
    assert own["text"].dtype == torch.float32
    assert (own["text"][0, 0], own["image"][0, 0]) == (3, 2)
    assert found.of("s/x", task="rainy")["text"][0, 0] == 4
    assert found.of("s/x", task="rainy")["image"][0, 0] == 2
    with pytest.raises(FeatureError, match=r"a\.safetensors has no task/hazy: it has rainy"):
        found.of("x", task="hazy")
    StoredFeatures(tmp_path / "b" / "c.safetensors", {"x/text": a, "task/hazy": b}).write()
    again = StoredFeatures.read(tmp_path / "b" / "c.safetensors")
    assert torch.equal(again.of("x", task="hazy")["text"], b[None])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("x", torch.ones(4), "unknown key x: use NAME/text"),
        ("a__text", torch.ones(2, 4), r"a/text is float32 \[2, 4\], expected floats"),
        ("image", torch.tensor(1.0), r"image is float32 \[\], expected floats"),
        ("text", torch.ones(4, dtype=torch.int64), r"text is int64 \[4\], expected floats"),
        ("task__rainy", torch.tensor([1.0, torch.nan]), "task/rainy is not finite"),
    ],
)
def test_wrong_features_name_file_and_key(
    tmp_path: Path, key: str, value: Tensor, message: str
) -> None:
    with pytest.raises(FeatureError, match=rf"a\.safetensors: {message}"):
        stored(tmp_path / "a.safetensors", **{key: value})


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(FeatureError, match=r"a is not a readable \.safetensors file"):
        StoredFeatures.read(tmp_path / "a")


def test_a_network_with_layers_called_features_takes_none() -> None:
    network = nn.Module()
    network.features = nn.Sequential(nn.Linear(1, 1))
    assert known_features(network) == {}
    assert known_features(small("daclip")) == {"text": 512, "image": 512}
    assert known_features(DACLIPUNet(width=32, multipliers=(1,), text=False)) == {"image": 512}


def test_features_are_gathered_image_by_image() -> None:
    seen: list[float] = []

    def make(image: Tensor) -> dict[str, Tensor]:
        seen.append(float(image.mean()))
        return {name: image.mean().expand(1, 512) for name in ("text", "image", "other")}

    mu = torch.stack([torch.full((3, 4, 4), value) for value in (0.25, 0.5, 0.75)])
    whole = {name: torch.full((1, 512), 9.0) for name in ("text", "image")}
    given = [{}, {"text": whole["text"]}, whole]
    context = gather_features(small("daclip"), mu, given, make)
    assert context["text"][:, 0].tolist() == [0.25, 9, 9]
    assert context["image"][:, 0].tolist() == [0.25, 0.5, 9]
    assert seen == [0.25, 0.5]  # what is known is not made
    assert gather_features(UNet(), mu, None, make) == {}


def test_missing_and_wide_features_are_refused() -> None:
    network, mu = small("daclip"), images(1)
    with pytest.raises(FeatureError, match="features of each photo, text and image: sample"):
        make_context(network, mu)
    with pytest.raises(FeatureError, match=r"text is \[1, 3\], but this model takes \[B, 512\]"):
        make_context(network, mu, features={n: torch.ones(1, 3) for n in ("text", "image")})
    assert make_context(UNet(), mu, features={"text": torch.ones(1, 3)}) is None


def restorer(network: nn.Module, **options: object) -> Restorer:
    denoiser = Denoiser(network, MRProcess(), Parameterization.named("data"))
    return Restorer(denoiser, nfe=1, **options)


def test_the_restorer_asks_once_for_the_whole_photo(controller: ImageController) -> None:
    class Echo(nn.Module):
        """Returns its features, so that every tile can be seen to have had the same."""

        features = {"text": 512, "image": 512}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: dict[str, Tensor]) -> Tensor:
            states = (context["text"] + context["image"])[:, :1, None, None]
            return states.sigmoid() + 0 * x

    sizes: list[tuple[int, ...]] = []

    def make(image: Tensor) -> dict[str, Tensor]:
        sizes.append(tuple(image.shape))
        return controller(image)

    lq = 0.5 * images(2, (80, 120))
    tiled = restorer(Echo(), tile=64, features=make).restore(lq, ["a", "b"])
    assert sizes == [(1, 3, 80, 120)] * 2
    whole = restorer(Echo(), tile="off", features=controller).restore(lq, ["a", "b"])
    assert torch.allclose(tiled, whole, atol=1e-6)
    assert ((whole - lq).mean(dim=(1, 2, 3)) > 0).all()
    assert (whole[0] - lq[0]).mean() != pytest.approx(float((whole[1] - lq[1]).mean()))


@pytest.mark.parametrize("tile", ["auto", 64])
def test_a_daclip_model_restores(controller: ImageController, tile: str | int) -> None:
    made = restorer(small("daclip"), tile=tile, features=controller)
    lq = images(2, (48, 72))
    both = made.restore(lq, ["a", "b"])
    assert torch.equal(both[1:], made.restore(lq[1:], ["b"]))
    known = [{"text": torch.randn(1, 512)}] * 2
    assert not torch.equal(both, made.restore(lq, ["a", "b"], features=known))
    photo = Image.fromarray((lq[0] * 255).byte().permute(1, 2, 0).numpy())
    assert np.asarray(made(photo, name="a")).shape == (48, 72, 3)


def test_what_does_not_fit_the_restorer(controller: ImageController) -> None:
    with pytest.raises(FeatureError, match="this model takes no features"):
        restorer(UNet(), features=controller)
    with pytest.raises(FeatureError, match="task rainy: this model takes features instead"):
        restorer(small("daclip"), task="rainy")
    with pytest.raises(FeatureError, match="needs features of each photo"):
        restorer(small("daclip")).restore(images(1), ["a"])
