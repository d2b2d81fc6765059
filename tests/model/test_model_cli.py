"""`tosca learn`, `predict`, `evaluate`, `forget` and `undo` on photos and stores, as a user calls them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import tosca as tosca_command
from model.lessons import rows
from photos import paint
from PIL import Image

import tosca_cache as tosca
from tosca_cache.model.classifier import Model

NANO = ("--backbone", "vit_nano")


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments, code=0, input=None):
    return tosca_command(*arguments, columns=80, code=code, typed=input).output


def learn(*arguments, code=0):
    return run("learn", "shelf.tosca", *arguments, code=code)


@pytest.fixture
def shelf(tmp_path):
    learn(paint(tmp_path / "photos", ["red", "green", "blue"]), *NANO)
    return tmp_path / "shelf.tosca"


def predict(*arguments, code=0, input=None):
    lines = run("predict", "shelf.tosca", "--json", *arguments, code=code, input=input).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_teach_a_class_ask_teach_more_ask_again(shelf, tmp_path):
    asked = paint(tmp_path / "new", ["red", "yellow"], 3, seed=5)
    before = predict(asked)
    assert [one["label"] for one in before[:3]] == ["red"] * 3
    assert set(before[0]) == {"path", "label", "probability", "top", "novelty", "error"}
    said = learn(paint(tmp_path / "more", ["yellow", "red"], 4, seed=2))
    assert "new: 1 class, 4 photos: yellow (4)" in said
    assert "known: 1 class, 4 photos: red (4)" in said
    assert [one["label"] for one in predict(asked)] == ["red"] * 3 + ["yellow"] * 3
    assert (shelf / "classes.txt").read_text().split() == ["blue", "green", "red", "yellow"]


def test_the_same_photos_twice_change_nothing_and_are_computed_once(shelf, tmp_path):
    card = (shelf / "model.json").read_bytes()
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    for folder in ("photos", "copy"):
        assert "nothing new was learned" in learn(tmp_path / folder)
    assert (shelf / "model.json").read_bytes() == card
    assert "known: 3 classes, 24 photos" in learn(tmp_path / "photos", "--again")
    shutil.rmtree(shelf)
    said = learn(tmp_path / "photos", *NANO)
    assert "extract photos" not in said and "learned in" in said  # its store was there


def test_photos_that_cannot_be_read_cost_no_other(shelf, tmp_path):
    folder = paint(tmp_path / "new", ["green"], 3, seed=5)
    (folder / "green" / "bad.png").write_bytes(b"no picture")
    (folder / "empty.jpg").write_bytes(b"")
    found = predict(folder, tmp_path / "missing.png", code=1)
    assert len(found) == 6
    assert sum(one["error"] is not None for one in found) == 3
    assert all(one["label"] == "green" for one in found if one["error"] is None)
    table = run("predict", "shelf.tosca", folder, "--csv", "out.csv", code=1)
    assert table.count("cannot be read") == 2
    assert (tmp_path / "out.csv").read_text().startswith("path,label,probability,novelty,error,label2,probability2")
    assert "error" in learn(folder, code=1)


def test_photos_are_named_in_every_way_and_sorted_into_the_folders_of_their_classes(shelf, tmp_path):
    folder = paint(tmp_path / "new", ["green", "blue"], 2, seed=5)
    files = sorted(str(path) for path in folder.rglob("*.png"))
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{one},x\n" for one in files))
    whole = predict(folder)
    assert len(whole) == 4
    for ways in ([*files], [f"{folder}/*/*.png"], ["list.csv"]):
        assert [(one["label"], one["path"]) for one in predict(*ways)] == [(o["label"], o["path"]) for o in whole]
    assert len(predict("-", input="\n".join(files))) == 4
    assert "no file is called so" in run("predict", "shelf.tosca", "nothing*.png", code=2)
    for _ in range(2):
        run("predict", "shelf.tosca", folder, "--link", "sorted")
    assert len(list((tmp_path / "sorted" / "green").iterdir())) == 4
    assert all(path.is_symlink() and path.exists() for path in (tmp_path / "sorted").rglob("*.png"))
    run("predict", "shelf.tosca", folder, "--move", "moved", "--threshold", "1")
    assert len(list((tmp_path / "moved" / "unknown").iterdir())) == 4 and not list(folder.rglob("*.png"))


def test_a_class_cannot_lead_out_of_the_folder(tmp_path):
    features, _ = rows([0, 1], 6, 0)
    how = {"dataset": "odd", "class_names": ["../out", "in"], "split": np.arange(12) % 6 == 0, "root": "cache"}
    store = tosca.import_features(features[:, 0], np.repeat([0, 1], 6), **how)
    learn("--store", store.path)
    assert "cannot be" in run("predict", "shelf.tosca", "x.png", "--link", "sorted", code=2)
    assert not (tmp_path.parent / "out").exists()


def test_forget_and_undo_which_goes_back_one_step(shelf, tmp_path):
    asked = paint(tmp_path / "new", ["green", "red"], 3, seed=5)
    assert run("forget", "shelf.tosca", "green", "blue").count("traces of it remain") == 2
    assert {answer["label"] for answer in predict(asked)} == {"red"}
    run("undo", "shelf.tosca")
    assert [answer["label"] for answer in predict(asked)] == ["green"] * 3 + ["red"] * 3
    assert "nothing to undo" in run("undo", "shelf.tosca", code=1)
    assert "knows no class" in run("forget", "shelf.tosca", "mauve", code=2)
    run("learn", "nmc.tosca", tmp_path / "photos", *NANO, "--method", "nmc")
    assert "as if it had never learned it" in run("forget", "nmc.tosca", "green")


def test_evaluate_names_what_is_mistaken(shelf, tmp_path):
    test = paint(tmp_path / "test", ["red", "green", "yellow"], 5, seed=7)
    found = json.loads(run("evaluate", "shelf.tosca", test, "--json").splitlines()[-1])
    assert (found["images"], found["unknown"]["images"], found["accuracy"]) == (10, 5, 100)
    assert "accuracy 100.0 %" in run("evaluate", "shelf.tosca", test)
    more = paint(tmp_path / "more", ["grey"])
    assert "knows none of the classes" in run("evaluate", "shelf.tosca", more, code=2)
    for option in (("--method", "nmc"), ("--seed", "5"), ("--views", "3"), ("--img-size", "64"), ("--set", "x=1")):
        assert "error" in learn(more, *option, code=2), "options of another model"
    assert "in the way" in run("learn", tmp_path / "photos", more, *NANO, code=1)
    assert "does not exist" in run("learn", "other.tosca", "nowhere", *NANO, code=1)
    assert not (tmp_path / "other.tosca").exists()
    assert "give photos or a store" in learn(code=2)
    store = next(tmp_path.glob("cache/*--vit_nano--*"))
    assert "give it as the store: --store" in learn(store, code=1)


def test_a_list_teaches_its_train_photos_and_the_backbone_may_live_in_the_model(tmp_path):
    folder = paint(tmp_path / "photos", ["red", "blue"], 6)
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "all.csv").write_text("path,label\n" + "".join(f"{line}\n" for line in lines))
    split = [f"{line},{'test' if number % 3 == 0 else 'train'}\n" for number, line in enumerate(lines)]
    (tmp_path / "split.csv").write_text("path,label,split\n" + "".join(split))
    assert "2 classes, 8 photos" in learn("split.csv", *NANO, "--with-backbone")
    assert (tmp_path / "shelf.tosca" / "backbone.safetensors").is_file()
    assert predict(folder / "red")[0]["label"] == "red"
    assert "known: 2 classes, 4 photos" in learn("all.csv")
    assert "4 photos of 2 classes" in run("evaluate", "shelf.tosca", "split.csv")


def test_photos_in_python(shelf, tmp_path):
    model = tosca.Model.open(shelf)
    photos = sorted((paint(tmp_path / "new", ["green", "grey"], 2, seed=5)).rglob("*.png"))
    by_path = model.predict([*photos, str(photos[0])])
    by_content = model.predict([photos[0].read_bytes(), Image.open(photos[1])])
    assert by_path.labels[:2, 0].tolist() == ["green", "green"]
    np.testing.assert_allclose(by_content.probabilities, by_path.probabilities[:2], rtol=1e-4, atol=1e-6)
    assert model.learn(tmp_path / "new").new == {"grey": 2}
    with pytest.raises(tosca.ToscaError, match="cannot be read"):
        model.predict([b"nothing"])
    assert model.learn(tmp_path / "new").left_out == 4
    model.save(shelf)
    assert predict(photos[2])[0]["label"] == "grey"


def test_a_run_is_a_model():
    run("extract", "--dataset", "digits", "--views", "0", "--root", "cache")
    run("train", "--dataset", "digits", "--method", "lda", "--root", "cache", "--runs", "runs")
    (made,) = Path("runs").iterdir()
    store = next(Path("cache").iterdir())
    lines = run("predict", made, "--features", store, "--json").splitlines()
    labels = [json.loads(line)["label"] for line in lines]
    opened = tosca.open_store(store)
    truth = [opened.class_names[c] for split in ("train", "test") for c in opened.labels(split)]
    assert np.mean(np.array(labels) == np.array(truth)) > 0.9
    found = json.loads(run("evaluate", made, "--store", store, "--json").splitlines()[-1])
    last = json.loads((made / "metrics.json").read_text())["last_accuracy"]
    assert found["accuracy"] == pytest.approx(last)
    features = opened.features("train")
    how = {"dataset": "more", "class_names": ["a", "b"], "split": np.arange(40) < 8, "root": "cache"}
    more = tosca.import_features(features[:40, 0] + 1, np.arange(40) % 2, **how)
    assert "new: 2 classes" in run("learn", made, "--store", more.path)
    taught = Model.open(made)
    assert taught.class_names[-2:] == ("a", "b")
    assert taught.held_out.learner is not taught.learner
    assert taught.learner.classifier.counts.sum() == len(features) + more.rows("train")  # each row once
    run("undo", made, code=1)
