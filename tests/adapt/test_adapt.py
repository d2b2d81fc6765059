"""Modules inside a frozen ViT: their start, their training on the first task alone, interruption, saving and loading."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tosca_cache.errors import BackboneError
from tosca_cache.extract import tuning
from tosca_cache.extract.adapted import CARD, PARTS
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.pieces import Kept

KINDS = sorted(tuning.KINDS)


def pixels(n=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))


def features(backbone):
    return backbone.forward(backbone.transform())(pixels())


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_modules_leave_the_features_as_they_were(kind):
    backbone = load_backbone("vit_nano")
    before, frozen = features(backbone), {id(p) for p in backbone.model.parameters()}
    trained = tuning.insert(backbone.model, kind, tuning.settings_of(kind))
    assert trained and not {id(p) for p in trained} & frozen and all(p.requires_grad for p in trained)
    if kind == "vpt":  # prompt tokens take part in every attention from the start
        assert not torch.allclose(features(backbone), before)
    else:
        torch.testing.assert_close(features(backbone), before)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_trained_saved_and_loaded(kind, adapt, tmp_path):
    folder = adapt(tmp_path, "--kind", kind)
    card = json.loads((folder / CARD).read_text())
    losses = [epoch["loss"] for epoch in card["training"]["history"]]
    assert min(losses[1:]) < losses[0]
    frozen, found = load_backbone("vit_nano"), load_backbone(str(folder))
    assert card["base"]["weights_digest"] == frozen.weights_digest != found.weights_digest
    assert not torch.allclose(features(found), features(frozen))
    # The same by hand: the frozen model, fresh modules, and the saved tensors in their places.
    trained = tuning.insert(frozen.model, kind, card["settings"])
    assert tuning.put_tensors(frozen.model, trained, load_file(folder / PARTS)) == []
    torch.testing.assert_close(features(frozen), features(found))
    both = load_backbone(str(folder), with_base=True)
    assert both.dim == 2 * found.dim
    torch.testing.assert_close(features(both), torch.cat((features(load_backbone("vit_nano")), features(found)), 1))
    layers = [load_backbone(name, kept=Kept(2, "mean")) for name in ("vit_nano", str(folder))]
    beside = load_backbone(str(folder), with_base=True, kept=Kept(2, "mean"))
    assert beside.widths == (2 * layers[0].widths[0], 2 * layers[0].widths[1])
    pieces = [features(one).chunk(2, 1) for one in layers]  # piece by piece, the frozen one's first
    expected = torch.cat((pieces[0][0], pieces[1][0], pieces[0][1], pieces[1][1]), 1)
    torch.testing.assert_close(features(beside), expected)


def test_the_first_task_is_what_is_trained_on_and_test_images_play_no_part(adapt, adapted, patterns, tmp_path):
    first = json.loads((adapted / CARD).read_text())["first_task"]
    order = np.random.RandomState(1).permutation(6)
    names = sorted(path.name for path in (patterns / "train").iterdir())
    assert first["classes"] == [names[c] for c in order[:2]] and first["class_order"] == [names[c] for c in order]
    assert first["train_rows"] + first["held_out"] == 16 and first["held_out"] == 2
    copy = tmp_path / patterns.name
    shutil.copytree(patterns, copy)
    for image in copy.rglob("*.png"):  # unreadable, but for the train images of the first task
        if "test" in image.parts or image.parent.name not in first["classes"]:
            image.write_bytes(b"")
    other = adapt(tmp_path / "out", dataset=copy)
    assert (other / PARTS).read_bytes() == (adapted / PARTS).read_bytes()


def test_interrupted_it_goes_on_and_gives_the_same(adapt, adapted, tmp_path, monkeypatch):
    done = []

    def told(what, epoch, best):
        done.append(what.rpartition(" ")[2])
        if done == ["1/3", "2/3"]:
            raise KeyboardInterrupt
        return what

    with monkeypatch.context() as patch:
        patch.setattr("tosca_cache.adapt.request.epoch_line", told)
        assert adapt(tmp_path, fails=True).exit_code == 130
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".partial"]
        again = adapt(tmp_path)
    assert done == ["1/3", "2/3", "3/3"] and {path.name for path in again.iterdir()} == {CARD, PARTS}
    assert (again / PARTS).read_bytes() == (adapted / PARTS).read_bytes()
    (partial,) = [tmp_path / "begun.partial"]
    shutil.rmtree(again)
    partial.mkdir()
    save_file({"x": torch.zeros(1)}, partial / "state.safetensors", {"record": "{}"})
    refused = adapt(tmp_path, "--name", "begun", fails=True)
    assert "cannot be gone on with" in refused.output and "remove its folder" in refused.output
    shutil.rmtree(tmp_path / "begun.partial")
    assert (adapt(tmp_path, "--name", "begun") / PARTS).read_bytes() == (adapted / PARTS).read_bytes()


def test_held_out_rows_choose_the_epoch_and_end_the_training(adapt, tmp_path):
    record = json.loads((adapt(tmp_path, "--epochs", "12", "--patience", "1") / CARD).read_text())["training"]
    merits = [(e["held_out_accuracy"], -e["held_out_loss"]) for e in record["history"]]
    assert record["best"] == 1 + merits.index(max(merits))
    assert len(merits) == 12 or len(merits) == record["best"] + 1
    last = json.loads((adapt(tmp_path, "--held-out", "0") / CARD).read_text())
    assert last["training"]["best"] == 3 and last["first_task"]["train_rows"] == 16
    assert last["training"]["history"][0]["held_out_loss"] is None


@pytest.mark.parametrize("option", ["--bf16", "--checkpointing"])
def test_less_time_or_memory_gives_nearly_the_same(option, adapt, adapted, tmp_path):
    found, plain = (
        load_file(path / PARTS)
        for path in (adapt(tmp_path, "--held-out", "0", option), adapt(tmp_path, "--held-out", "0"))
    )
    for name, tensor in plain.items():
        torch.testing.assert_close(found[name], tensor, rtol=0.1, atol=0.05 if option == "--bf16" else 1e-5)


def test_adamw_and_another_size(adapt, tmp_path):
    folder = adapt(tmp_path, "--optimizer", "adamw", "--lr", "0.003", "--size", "4", "--no-shuffle")
    card, tensors = json.loads((folder / CARD).read_text()), load_file(folder / PARTS)
    assert card["first_task"]["classes"] == ["checks", "columns"]
    assert {tuple(t.shape) for n, t in tensors.items() if n.endswith("down.weight")} == {(4, 192)}


class TestDamage:
    @pytest.fixture
    def copy(self, adapted, tmp_path):
        return shutil.copytree(adapted, tmp_path / "copy")

    @pytest.mark.parametrize("file", [CARD, PARTS])
    def test_changed_bytes(self, copy, file):
        data = (copy / file).read_bytes()
        changed = data.replace(b'"scale": 0.1', b'"scale": 0.2') if file == CARD else data[:-1] + bytes([data[-1] ^ 1])
        assert changed != data
        (copy / file).write_bytes(changed)
        with pytest.raises(BackboneError, match="damaged"):
            load_backbone(str(copy))

    def test_a_card_that_is_none(self, copy):
        (copy / CARD).write_text("[]")
        with pytest.raises(BackboneError, match="no adapted backbone"):
            load_backbone(str(copy))

    def test_other_base_weights(self, copy, tmp_path):
        state = {name: tensor + 1 for name, tensor in load_backbone("vit_nano").model.state_dict().items()}
        save_file(state, tmp_path / "other.safetensors")
        with pytest.raises(BackboneError, match="not the weights that the backbone was adapted from"):
            load_backbone(str(copy), weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "soup"), "there is no kind 'soup'"),
        (("--kind", "ssf", "--size", 3), "have no size"),
        (("--optimizer", "lion"), "there is no optimizer"),
        (("--held-out", 0.9), "share from 0 to 0.5"),
        (("--lr", -1), "--lr is -1"),
        (("--epochs", 0), "--epochs is 0"),
        (("--init-cls", 1), "one class"),
        (("--init-cls", 7), "init_cls is 7"),
        (("--lr", 1e30), "not finite"),
        (("--name", "a/b"), "cannot be the name"),
    ],
)
def test_wrong_requests(words, said, adapt, tmp_path):
    refused = adapt(tmp_path, *words, fails=True)
    assert said in refused.output and "error:" in refused.output


def test_what_cannot_be_adapted(adapt, adapted, tmp_path):
    assert "adapted already" in adapt(tmp_path, "--backbone", adapted, fails=True).output
    import timm

    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "net.safetensors")
    words = ("--backbone", "test_resnet", "--weights", tmp_path / "net.safetensors", "--img-size", 64)
    assert "only plain vision transformers" in adapt(tmp_path, *words, fails=True).output
