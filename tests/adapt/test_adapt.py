"""Modules inside a frozen ViT: their start, their training on the first task alone, interruption, saving and loading."""

import json
import shutil

import numpy as np
import pytest
import torch
from photos import pixels
from safetensors.torch import load_file, save_file

from tosca_cache.errors import BackboneError
from tosca_cache.extract import tuning
from tosca_cache.extract.adapted import CARD, PARTS
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.pieces import Kept


def features(name, **how):
    backbone = load_backbone(str(name), **how)
    return backbone.forward(backbone.transform())(pixels(3, 32))


def card_of(folder):
    return json.loads((folder / CARD).read_text())


@pytest.mark.parametrize("kind", sorted(tuning.KINDS))
def test_every_kind_is_trained_saved_and_loaded(kind, adapt, tmp_path):
    folder = adapt(tmp_path, "--kind", kind)
    card, frozen = card_of(folder), load_backbone("vit_nano")
    losses = [epoch["loss"] for epoch in card["training"]["history"]]
    assert min(losses[1:]) < losses[0]
    assert card["base"]["weights_digest"] == frozen.weights_digest != load_backbone(str(folder)).weights_digest
    before, found = features("vit_nano"), features(folder)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(features(folder, with_base=True), torch.cat((before, found), 1))
    pieces = [features(name, kept=Kept(2, "mean")).chunk(2, 1) for name in ("vit_nano", folder)]
    beside = features(folder, with_base=True, kept=Kept(2, "mean"))  # piece by piece, the frozen one's first
    torch.testing.assert_close(beside, torch.cat((pieces[0][0], pieces[1][0], pieces[0][1], pieces[1][1]), 1))
    # The same by hand: the frozen model, fresh modules, which leave features as they were, and the saved tensors.
    own, forward = {id(p) for p in frozen.model.parameters()}, frozen.forward(frozen.transform())
    trained = tuning.insert(frozen.model, kind, card["settings"])
    assert trained and not {id(p) for p in trained} & own and all(p.requires_grad for p in trained)
    # But prompt tokens take part in every attention from the start.
    assert torch.allclose(forward(pixels(3, 32)), before, rtol=1.3e-6, atol=1e-5) == (kind != "vpt")
    assert tuning.put_tensors(frozen.model, trained, load_file(folder / PARTS)) == []
    torch.testing.assert_close(forward(pixels(3, 32)), found)


def test_the_first_task_is_what_is_trained_on_and_test_images_play_no_part(adapt, adapted, patterns, tmp_path):
    first = card_of(adapted)["first_task"]
    names = np.array(sorted(path.name for path in (patterns / "train").iterdir()))
    order = names[np.random.RandomState(1).permutation(6)].tolist()
    assert (first["classes"], first["class_order"]) == (order[:2], order)
    assert first["train_rows"] + first["held_out"] == 16 and first["held_out"] == 2
    copy = shutil.copytree(patterns, tmp_path / patterns.name)
    for image in copy.rglob("*.png"):  # unreadable, but for the train images of the first task
        if "test" in image.parts or image.parent.name not in first["classes"]:
            image.write_bytes(b"")
    assert (adapt(tmp_path / "out", dataset=copy) / PARTS).read_bytes() == (adapted / PARTS).read_bytes()


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
    partial = tmp_path / "begun.partial"
    partial.mkdir()
    save_file({"x": torch.zeros(1)}, partial / "state.safetensors", {"record": "{}"})
    refused = adapt(tmp_path, "--name", "begun", fails=True)
    assert "cannot be gone on with" in refused.output and "remove its folder" in refused.output


def test_held_out_rows_choose_the_epoch_and_end_the_training(adapt, tmp_path):
    record = card_of(adapt(tmp_path, "--epochs", "12", "--patience", "1"))["training"]
    merits = [(e["held_out_accuracy"], -e["held_out_loss"]) for e in record["history"]]
    assert record["best"] == 1 + merits.index(max(merits))
    assert len(merits) == 12 or len(merits) == record["best"] + 1


def test_options_of_the_training(adapt, tmp_path):
    """Less time or memory gives nearly the same; without held-out rows the last epoch stands; another optimizer, size."""
    plain = adapt(tmp_path, "--held-out", "0")
    training, first = card_of(plain)["training"], card_of(plain)["first_task"]
    assert training["best"] == 3 and first["train_rows"] == 16 and training["history"][0]["held_out_loss"] is None
    for option, tolerance in (("--bf16", 0.05), ("--checkpointing", 1e-5)):
        found = load_file(adapt(tmp_path / option, "--held-out", "0", option) / PARTS)
        for name, tensor in load_file(plain / PARTS).items():
            torch.testing.assert_close(found[name], tensor, rtol=0.1, atol=tolerance)
    folder = adapt(tmp_path, "--optimizer", "adamw", "--lr", "0.003", "--size", "4", "--no-shuffle")
    assert card_of(folder)["first_task"]["classes"] == ["blue", "cyan"]
    downs = {tuple(t.shape) for n, t in load_file(folder / PARTS).items() if n.endswith("down.weight")}
    assert downs == {(4, 192)}


def test_damage_and_other_base_weights_are_refused(adapted, tmp_path):
    copy = shutil.copytree(adapted, tmp_path / "copy")
    card, parts = (copy / CARD).read_bytes(), (copy / PARTS).read_bytes()
    for file, whole, data, said in (
        (CARD, card, card.replace(b'"scale": 0.1', b'"scale": 0.2'), "damaged"),
        (PARTS, parts, parts[:-1] + bytes([parts[-1] ^ 1]), "damaged"),
        (CARD, card, b"[]", "no adapted backbone"),
    ):
        assert data != whole
        (copy / file).write_bytes(data)
        with pytest.raises(BackboneError, match=said):
            load_backbone(str(copy))
        (copy / file).write_bytes(whole)
    state = {name: tensor + 1 for name, tensor in load_backbone("vit_nano").model.state_dict().items()}
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BackboneError, match="not the weights that the backbone was adapted from"):
        load_backbone(str(copy), weights=tmp_path / "other.safetensors")


def test_wrong_requests(adapt, adapted, tmp_path):
    import timm

    net = tmp_path / "net.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), net)
    for words, said in (
        (("--kind", "soup"), "--kind cannot be 'soup'"),
        (("--kind", "ssf", "--size", 3), "have no size"),
        (("--held-out", 0.9), "less than or equal to 0.5"),
        (("--init-cls", 1), "one class"),
        (("--lr", 1e30), "not finite"),
        (("--name", "a/b"), "cannot be the name"),
        (("--backbone", adapted), "adapted already"),
        (("--backbone", "test_resnet", "--weights", net, "--img-size", 64), "only plain vision transformers"),
    ):
        refused = adapt(tmp_path / "out", *words, fails=True)
        assert said in refused.output and "error:" in refused.output
