"""Which model, which weights: names, local files, resampling, and what is said when something is wrong."""

import hashlib
import os
import pickle
import shutil
import socket
import time

import pytest
import torch
from photos import pixels
from PIL import Image
from safetensors.torch import load_file, save_file

from tosca_cache.errors import BackboneError, UsageError
from tosca_cache.extract import names
from tosca_cache.extract.backbone import digest, load_backbone
from tosca_cache.extract.names import PRECISIONS, resolve_name, resolve_precision

TINY = "test_vit"  # what the fixture `tiny_weights` has weights of


def test_names(tiny_weights):
    """Those of the reference mean the weights that it used."""
    assert resolve_name("vit_base_patch16_224_in21k") == ("vit_base_patch16_224", "augreg_in21k")
    assert resolve_name("vit_base_patch16_224") == ("vit_base_patch16_224", "augreg_in21k_ft_in1k")
    assert resolve_name("vit_base_patch16_224.dino") == ("vit_base_patch16_224", "dino")
    assert resolve_name("resnet18") == ("resnet18", "")
    for name, how, said in (
        ("vit_bas_patch16_224", {}, r"did you mean .*vit_base_patch16_224"),
        (f"{TINY}.nonsense", {}, "nonsense"),
        (TINY, {"weights": tiny_weights, "img_size": 40}, "patches of 16"),
    ):
        with pytest.raises(BackboneError, match=said):
            load_backbone(name, **how)


@pytest.mark.parametrize("network", ["none", "silent", "switched off"])
def test_weights_that_cannot_be_fetched_are_named_without_trying_again(monkeypatch, tmp_path, network):
    """A port where nobody listens, one where nobody answers, and a user who wants no network."""
    monkeypatch.setattr("tosca_cache.extract.weights.TIMEOUT", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", network == "switched off")
    begun = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        if network == "none":
            server.close()
        with pytest.raises(BackboneError, match=f"{TINY}.r160_in1k are not on this machine") as refused:
            load_backbone(f"{TINY}.r160_in1k")
    assert address in refused.value.problem and "--weights FILE" in refused.value.remedy
    assert time.monotonic() - begun < 5


def test_weights_that_are_here_need_no_network(monkeypatch, tiny, tiny_weights, tmp_path):
    """As huggingface_hub keeps them: a snapshot, and what the branch `main` points at."""
    kept = tmp_path / f"models--timm--{TINY}.r160_in1k"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    shutil.copy(tiny_weights, kept / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("timm.models._builder._USE_OLD_CACHE", False)
    assert load_backbone(f"{TINY}.r160_in1k", img_size=32).weights_digest == tiny.weights_digest


def test_a_weights_file_is_told_by_its_digest_and_resampled_by_timm(tiny, tiny_weights, tmp_path):
    from timm.layers import resample_abs_pos_embed

    again = load_backbone(TINY, weights=tiny_weights, img_size=32)
    assert again.weights_digest == tiny.weights_digest == digest(tiny.model)
    assert (tiny.name, tiny.tag, tiny.dim, tiny.image_size) == (TINY, "local", 64, 32)
    total, layer = hashlib.sha256(), torch.nn.Linear(2, 3)  # name, type, shape and bytes of every tensor
    total.update(b"bias torch.float32 [3]\n" + layer.bias.detach().numpy().tobytes())
    total.update(b"weight torch.float32 [3, 2]\n" + layer.weight.detach().numpy().tobytes())
    assert digest(layer) == total.hexdigest()
    state, ours = load_file(tiny_weights), tiny.model.state_dict()
    expected = resample_abs_pos_embed(state["pos_embed"], new_size=[2, 2], num_prefix_tokens=1)
    assert ours["pos_embed"].shape == (1, 5, 64) != state["pos_embed"].shape
    assert torch.equal(ours["pos_embed"], expected)
    assert all(torch.equal(ours[name], state[name]) for name in state if name != "pos_embed")
    for content in (  # checkpoints of torch, with and without heads
        state,
        {"state_dict": state, "epoch": 3},
        {"model": state},
        {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        state | {"head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)},
    ):
        torch.save(content, tmp_path / "tiny.pth")
        assert load_backbone(TINY, weights=tmp_path / "tiny.pth", img_size=32).weights_digest == tiny.weights_digest
    state["norm.bias"][0] += 1e-6
    save_file(state, tmp_path / "other.safetensors")
    other = load_backbone(TINY, weights=tmp_path / "other.safetensors", img_size=32)
    assert other.weights_digest != tiny.weights_digest


def test_code_in_a_checkpoint_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap()))
    for name, problem in (("trap", r"Python objects \(posix.system\)"), ("plain", "Python objects")):
        with pytest.raises(BackboneError, match=f"{problem}.*could run.* code") as raised:
            load_backbone(TINY, weights=tmp_path / f"{name}.pth")
        assert "model.state_dict()" in raised.value.remedy and "\n" not in raised.value.problem
    assert not (tmp_path / "ran").exists()


def test_weights_files_that_do_not_fit_or_cannot_be_read(tiny_weights, tmp_path):
    state, head = load_file(tiny_weights), tiny_weights.read_bytes()[:1000]
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    cases = [
        ("less.safetensors", {n: t for n, t in state.items() if n != "norm.bias"}, "norm.bias is missing"),
        ("more.safetensors", state | {"extra": torch.zeros(1)}, "extra is unknown"),
        ("shape.safetensors", state | {"norm.bias": torch.zeros(3)}, r"norm.bias is \[3\], not \[64\]"),
        ("absent.safetensors", None, "weights file"),
        ("weights.onnx", b"", "weights file"),
    ]
    for suffix in (".pth", ".safetensors"):
        cases += [
            (f"other{suffix}", text, "this weights file is damaged") for text in (b"", head, lfs, b"epoch 1\n" * 20)
        ]
    for name, content, said in cases:
        if isinstance(content, dict):
            save_file(content, tmp_path / name)
        elif content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BackboneError, match=said) as raised:
            load_backbone(TINY, weights=tmp_path / name, img_size=32)
        assert raised.value.where == str(tmp_path / name)


@pytest.mark.parametrize("normalise", [True, False])
def test_features_are_those_of_the_plain_model_on_the_plain_transform(tiny, normalise):
    from torchvision import transforms

    shown = pixels(1, 32)
    plain = transforms.ToTensor()(Image.fromarray(shown[0].numpy()))
    if normalise:
        plain = transforms.Normalize(tiny.mean, tiny.std)(plain)
    forward = tiny.forward(tiny.transform(normalise))
    assert torch.equal(forward.prepare(shown), plain[None])
    with torch.inference_mode():
        assert torch.equal(forward(shown), tiny.model(plain[None]))
        assert torch.equal(forward(shown), tiny.model.forward_features(plain[None])[:, 0]), "[CLS] after the final norm"


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_weights_are_held_in_16_bits_and_features_are_near(tiny, name):
    forward, exact = (tiny.forward(tiny.transform(), p) for p in (name, "fp32"))
    assert {p.dtype for p in forward.model.parameters()} == {getattr(torch, PRECISIONS[name])}
    x = pixels(4, 32)
    features = forward(x)
    assert features.dtype == torch.float32
    assert 0 < ((features - exact(x)).norm() / exact(x).norm()).item() < 0.02
    assert {p.dtype for p in tiny.model.parameters()} == {torch.float32}


def test_auto_asks_the_processor_but_not_for_the_examples(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(names, "_CPUINFO", tmp_path / "cpuinfo")
    for line, expected in (
        ("flags\t\t: fpu avx512f avx512_bf16 sse", "bf16"),
        ("flags\t\t: fpu amx_bf16", "bf16"),
        ("Features\t: fp asimd bf16", "bf16"),
        ("flags\t\t: fpu avx2", "fp32"),
    ):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
        assert resolve_precision("auto", cpu, TINY) == expected
        assert resolve_precision("auto", cpu, "vit_nano") == "fp32"
    assert resolve_precision("fp16", cpu, TINY) == "fp16" and resolve_precision("bf16", cpu, "vit_nano") == "bf16"
    with pytest.raises(UsageError, match="int8"):
        resolve_precision("int8", cpu, TINY)


@pytest.mark.parametrize(
    ("name", "file", "size", "dim"),
    [
        ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2.saliency.fp16.safetensors", 224, 384),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0.safetensors", None, 1280),
    ],
)
def test_real_backbones(shared, name, file, size, dim):
    import timm

    backbone = load_backbone(name, weights=shared / "weights" / file, img_size=size, precision="fp32")
    assert (backbone.dim, backbone.image_size) == (dim, 224)
    overlay = {"file": str(shared / "weights" / file), "num_classes": 0 if dim == 384 else 1000}
    sized = {} if size is None else {"img_size": size}
    peer = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **sized).eval()
    assert digest(peer) == backbone.weights_digest
    forward = backbone.forward(backbone.transform())
    with torch.inference_mode():
        assert torch.equal(forward(pixels(1, 224)), peer(forward.prepare(pixels(1, 224))))
