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

from tosca_cache.errors import BackboneError
from tosca_cache.extract import names
from tosca_cache.extract.backbone import digest, load_backbone
from tosca_cache.extract.names import resolve_name, resolve_precision

TINY = "test_vit"  # what the fixture `tiny_weights` has weights of


def test_names_of_the_reference_mean_the_weights_that_it_used():
    assert resolve_name("vit_base_patch16_224_in21k") == ("vit_base_patch16_224", "augreg_in21k")
    assert resolve_name("vit_base_patch16_224") == ("vit_base_patch16_224", "augreg_in21k_ft_in1k")
    assert resolve_name("vit_base_patch16_224.dino") == ("vit_base_patch16_224", "dino")
    for name, said in (("vit_bas_patch16_224", r"did you mean .*vit_base_patch16_224"), (f"{TINY}.none", "none")):
        with pytest.raises(BackboneError, match=said):
            load_backbone(name)


@pytest.mark.parametrize("network", ["none", "silent", "switched off"])
def test_weights_that_are_here_need_no_network_and_others_are_named_without_trying_again(
    monkeypatch, tiny, tiny_weights, tmp_path, network
):
    """A port where nobody listens, one where nobody answers, and a user who wants no network."""
    kept = tmp_path / f"models--timm--{TINY}.r160_in1k"  # as huggingface_hub keeps them
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("tosca_cache.extract.weights.TIMEOUT", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", network == "switched off")
    monkeypatch.setattr("timm.models._builder._USE_OLD_CACHE", False)
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
        shutil.copy(tiny_weights, kept / "snapshots" / ("0" * 40) / "model.safetensors")
        assert load_backbone(f"{TINY}.r160_in1k", img_size=32).weights_digest == tiny.weights_digest


def test_a_weights_file_is_told_by_its_digest_and_resampled_by_timm(tiny, tiny_weights, tmp_path):
    from timm.layers import resample_abs_pos_embed

    assert tiny.weights_digest == digest(tiny.model)
    assert (tiny.name, tiny.tag, tiny.dim, tiny.image_size) == (TINY, "local", 64, 32)
    total, layer = hashlib.sha256(), torch.nn.Linear(2, 3)  # name, type, shape and bytes of every tensor
    total.update(b"bias torch.float32 [3]\n" + layer.bias.detach().numpy().tobytes())
    total.update(b"weight torch.float32 [3, 2]\n" + layer.weight.detach().numpy().tobytes())
    assert digest(layer) == total.hexdigest()
    state, ours = load_file(tiny_weights), tiny.model.state_dict()
    expected = resample_abs_pos_embed(state["pos_embed"], new_size=[2, 2], num_prefix_tokens=1)
    assert ours["pos_embed"].shape == (1, 5, 64) != state["pos_embed"].shape
    assert all(torch.equal(ours[name], (state | {"pos_embed": expected})[name]) for name in state)
    other = state | {"norm.bias": state["norm.bias"] + 1e-6}
    for content, same in (  # checkpoints of torch, with and without heads
        (state, True),
        ({"state_dict": state, "epoch": 3}, True),
        ({"model": state}, True),
        ({"state_dict": {f"module.{name}": value for name, value in state.items()}}, True),
        (state | {"head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}, True),
        (other, False),
    ):
        torch.save(content, tmp_path / "tiny.pth")
        found = load_backbone(TINY, weights=tmp_path / "tiny.pth", img_size=32)
        assert (found.weights_digest == tiny.weights_digest) == same


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
    lfs, damaged = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "this weights file is damaged"
    for name, content, said in (
        ("less.safetensors", {n: t for n, t in state.items() if n != "norm.bias"}, "norm.bias is missing"),
        ("more.safetensors", state | {"extra": torch.zeros(1)}, "extra is unknown"),
        ("shape.safetensors", state | {"norm.bias": torch.zeros(3)}, r"norm.bias is \[3\], not \[64\]"),
        ("weights.onnx", b"", "weights file"),
        *(("other.pth", data, damaged) for data in (b"", head, lfs, b"epoch 1\n" * 20)),
        *(("other.safetensors", data, damaged) for data in (b"", head, lfs)),
    ):
        if isinstance(content, dict):
            save_file(content, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BackboneError, match=said) as raised:
            load_backbone(TINY, weights=tmp_path / name, img_size=32)
        assert raised.value.where == str(tmp_path / name)


@pytest.mark.parametrize("normalise", [True, False])
def test_features_are_those_of_the_plain_model_on_the_plain_transform(tiny, normalise):
    from torchvision import transforms

    shown = pixels(1, 32)
    plain = transforms.ToTensor()(Image.fromarray(shown[0].numpy()))
    plain = (transforms.Normalize(tiny.mean, tiny.std)(plain) if normalise else plain)[None]
    forward = tiny.forward(tiny.transform(normalise))
    assert torch.equal(forward.prepare(shown), plain)
    with torch.inference_mode():
        assert torch.equal(forward(shown), tiny.model(plain))
        assert torch.equal(forward(shown), tiny.model.forward_features(plain)[:, 0]), "[CLS] after the final norm"


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
    assert resolve_precision("bf16", cpu, "vit_nano") == "bf16"


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
