"""Which model, which weights: names, local files, resampling, and what is said when something is wrong."""

import hashlib
import os
import pickle
import shutil
import socket
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tosca_cache.errors import BackboneError, UsageError
from tosca_cache.extract import names
from tosca_cache.extract.backbone import digest, load_backbone
from tosca_cache.extract.names import PRECISIONS, resolve_name, resolve_precision

TINY = "test_vit"  # what the fixture `tiny_weights` has weights of


def pixels(n, size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


class TestNames:
    def test_those_of_the_reference_mean_the_weights_that_it_used(self):
        assert resolve_name("vit_base_patch16_224_in21k") == ("vit_base_patch16_224", "augreg_in21k")
        assert resolve_name("vit_base_patch16_224") == ("vit_base_patch16_224", "augreg_in21k_ft_in1k")
        assert resolve_name("vit_base_patch16_224.dino") == ("vit_base_patch16_224", "dino")
        assert resolve_name("resnet18") == ("resnet18", "")

    def test_an_unknown_one_suggests_the_nearest(self):
        with pytest.raises(BackboneError, match=r"did you mean .*vit_base_patch16_224"):
            load_backbone("vit_bas_patch16_224")

    def test_an_unknown_tag(self):
        with pytest.raises(BackboneError, match="nonsense"):
            load_backbone(f"{TINY}.nonsense")

    @pytest.mark.parametrize("network", ["none", "silent", "switched off"])
    def test_weights_that_cannot_be_fetched_are_named_without_trying_again(self, monkeypatch, tmp_path, network):
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

    def test_weights_that_are_here_need_no_network(self, monkeypatch, tiny, tiny_weights, tmp_path):
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


class TestWeightsFile:
    def test_is_loaded_and_told_by_its_digest(self, tiny, tiny_weights, tmp_path):
        again = load_backbone(TINY, weights=tiny_weights, img_size=32)
        assert again.weights_digest == tiny.weights_digest == digest(tiny.model)
        assert (tiny.name, tiny.tag, tiny.dim, tiny.image_size) == (TINY, "local", 64, 32)
        state = load_file(tiny_weights)
        state["norm.bias"][0] += 1e-6
        save_file(state, tmp_path / "other.safetensors")
        other = load_backbone(TINY, weights=tmp_path / "other.safetensors", img_size=32)
        assert other.weights_digest != tiny.weights_digest

    def test_digest_is_over_name_type_shape_and_bytes(self):
        total = hashlib.sha256()
        layer = torch.nn.Linear(2, 3)
        total.update(b"bias torch.float32 [3]\n" + layer.bias.detach().numpy().tobytes())
        total.update(b"weight torch.float32 [3, 2]\n" + layer.weight.detach().numpy().tobytes())
        assert digest(layer) == total.hexdigest()

    def test_torch_checkpoints_and_heads(self, tiny, tiny_weights, tmp_path):
        state = load_file(tiny_weights)
        contents = [
            state,
            {"state_dict": state, "epoch": 3},
            {"model": state},
            {"state_dict": {f"module.{name}": value for name, value in state.items()}},
            state | {"head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)},
        ]
        for content in contents:
            torch.save(content, tmp_path / "tiny.pth")
            loaded = load_backbone(TINY, weights=tmp_path / "tiny.pth", img_size=32)
            assert loaded.weights_digest == tiny.weights_digest

    def test_position_embedding_is_resampled_by_timm(self, tiny, tiny_weights):
        from timm.layers import resample_abs_pos_embed

        state, ours = load_file(tiny_weights), tiny.model.state_dict()
        prefix = 1
        expected = resample_abs_pos_embed(state["pos_embed"], new_size=[2, 2], num_prefix_tokens=prefix)
        assert ours["pos_embed"].shape == (1, 5, 64) != state["pos_embed"].shape
        assert torch.equal(ours["pos_embed"], expected)
        assert all(torch.equal(ours[name], state[name]) for name in state if name != "pos_embed")

    def test_code_in_a_checkpoint_is_refused(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'ran'}",)

        torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
        (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap()))
        for name, problem in (("trap", r"Python objects \(posix.system\)"), ("plain", "a Python pickle")):
            with pytest.raises(BackboneError, match=f"{problem}.*could run.* code") as raised:
                load_backbone(TINY, weights=tmp_path / f"{name}.pth")
            assert "model.state_dict()" in raised.value.remedy and "\n" not in raised.value.problem
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("norm.bias"), "norm.bias is missing"),
            (lambda state: state.update(extra=torch.zeros(1)), "extra is unknown"),
            (lambda state: state.update({"norm.bias": torch.zeros(3)}), r"norm.bias is \[3\], not \[64\]"),
        ],
    )
    def test_what_does_not_fit(self, tiny_weights, tmp_path, change, message):
        state = load_file(tiny_weights)
        change(state)
        save_file(state, tmp_path / "wrong.safetensors")
        with pytest.raises(BackboneError, match=message) as raised:
            load_backbone(TINY, weights=tmp_path / "wrong.safetensors", img_size=32)
        assert raised.value.where == str(tmp_path / "wrong.safetensors")

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"epoch 1, loss 2\n" * 20, "of another kind"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
            (b"<!DOCTYPE html>", "page of the web"),
        ],
    )
    def test_files_of_another_kind_are_called_what_they_are(self, tmp_path, suffix, content, problem):
        path = (tmp_path / "file").with_suffix(suffix)
        path.write_bytes(content)
        with pytest.raises(BackboneError, match=f"this weights file is .*{problem}"):
            load_backbone(TINY, weights=path)

    @pytest.mark.parametrize("name", ["absent.safetensors", "cut.safetensors", "cut.pth", "empty.pth", "weights.onnx"])
    def test_files_that_cannot_be_read(self, tiny_weights, tmp_path, name):
        path = tmp_path / name
        if name.startswith("cut"):
            path.write_bytes(tiny_weights.read_bytes()[:1000])
        elif name != "absent.safetensors":
            path.touch()
        with pytest.raises(BackboneError, match="weights file") as raised:
            load_backbone(TINY, weights=path)
        assert raised.value.where == str(path)


class TestForward:
    @pytest.mark.parametrize("normalise", [True, False])
    def test_equals_the_plain_model_on_the_plain_transform(self, tiny, normalise):
        from torchvision import transforms

        shown = pixels(1, 32)
        plain = transforms.ToTensor()(Image.fromarray(shown[0].numpy()))
        if normalise:
            plain = transforms.Normalize(tiny.mean, tiny.std)(plain)
        forward = tiny.forward(tiny.transform(normalise))
        assert torch.equal(forward.prepare(shown), plain[None])
        with torch.inference_mode():
            assert torch.equal(forward(shown), tiny.model(plain[None]))

    def test_feature_is_the_class_token_after_the_final_norm(self, tiny):
        forward = tiny.forward(tiny.transform())
        x = pixels(3, 32)
        with torch.inference_mode():
            tokens = tiny.model.forward_features(forward.prepare(x))
        assert torch.equal(forward(x), tokens[:, 0])

    def test_feature_of_a_convolutional_network_is_pooled(self, tmp_path):
        import timm

        torch.manual_seed(0)
        model = timm.create_model("test_efficientnet", num_classes=0).eval()
        save_file(model.state_dict(), tmp_path / "w.safetensors")
        backbone = load_backbone("test_efficientnet", weights=tmp_path / "w.safetensors", img_size=64, precision="fp32")
        forward = backbone.forward(backbone.transform())
        with torch.inference_mode():
            maps = model.forward_features(forward.prepare(pixels(2, 64)))
        assert torch.allclose(forward(pixels(2, 64)), maps.mean((2, 3)), atol=1e-6)

    @pytest.mark.parametrize("name", ["bf16", "fp16"])
    def test_weights_are_held_in_16_bits_and_features_are_near(self, tiny, name):
        forward, exact = (tiny.forward(tiny.transform(), p) for p in (name, "fp32"))
        assert {p.dtype for p in forward.model.parameters()} == {getattr(torch, PRECISIONS[name])}
        x = pixels(4, 32)
        features = forward(x)
        assert features.dtype == torch.float32
        error = ((features - exact(x)).norm() / exact(x).norm()).item()
        assert 0 < error < 0.02
        assert {p.dtype for p in tiny.model.parameters()} == {torch.float32}

    def test_a_size_that_the_patches_do_not_fit(self, tiny_weights):
        with pytest.raises(BackboneError, match="patches of 16"):
            load_backbone(TINY, weights=tiny_weights, img_size=40)


class TestPrecision:
    CPU = torch.device("cpu")

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("flags\t\t: fpu avx512f avx512_bf16 sse", "bf16"),
            ("flags\t\t: fpu amx_bf16", "bf16"),
            ("Features\t: fp asimd bf16", "bf16"),
            ("flags\t\t: fpu avx2", "fp32"),
        ],
    )
    def test_auto_asks_the_processor_but_not_for_the_examples(self, tmp_path, monkeypatch, line, expected):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
        monkeypatch.setattr(names, "_CPUINFO", tmp_path / "cpuinfo")
        assert resolve_precision("auto", self.CPU, TINY) == expected
        assert resolve_precision("auto", self.CPU, "vit_nano") == "fp32"

    def test_an_explicit_one_is_taken_if_there_is_one(self):
        assert resolve_precision("fp16", self.CPU, TINY) == "fp16"
        assert resolve_precision("bf16", self.CPU, "vit_nano") == "bf16"
        with pytest.raises(UsageError, match="int8"):
            resolve_precision("int8", self.CPU, TINY)


class TestSharedWeights:
    @pytest.mark.parametrize(
        ("name", "file", "size", "dim"),
        [
            ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2.saliency.fp16.safetensors", 224, 384),
            ("tf_efficientnet_lite0", "tf_efficientnet_lite0.safetensors", None, 1280),
        ],
    )
    def test_real_backbones(self, shared, name, file, size, dim):
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
