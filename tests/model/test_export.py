"""Models as ONNX and torch.export files, and checkpoints of the published code, through the command line."""

import json
import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from commands import tosca
from model.lessons import DIM, lesson
from photos import paint

from tosca_cache.model.classifier import Model
from tosca_cache.model.teaching import store_lesson

FAST = {"epochs": 3, "mlp_ratio": 4, "se_ratio": 4}
LEARNERS = [
    ("nmc", {}),
    ("simplecil", {}),
    ("lda", {}),
    ("slda", {}),
    ("ranpac", {"expansion": 200}),
    ("ranpac", {"expansion": 50, "selection": "gcv", "precision": "float64"}),
    ("pool", {}),
    ("tosca", {}),
]
COLOURS = ("blue", "green", "red")


ALONE = "--features-only"


def run(*arguments, code=0):
    return tosca(*arguments, columns=80, code=code).output


@pytest.fixture(scope="module")
def store(make_store, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "store", classes=6, dim=12, views=2, noise=2.0)


@pytest.fixture(scope="module")
def asked(store):
    return store.features("test")[:, 0].astype(np.float32)


@pytest.fixture(scope="module")
def taught(store, tmp_path_factory):
    """Makes a model that has learned a store in two steps: (learner, options, settings) -> its folder."""
    folder = tmp_path_factory.mktemp("models")

    def teach(method, options=None, settings=FAST):
        whole = store_lesson(store)
        first = np.isin(whole.names, sorted(set(whole.names))[:3])
        how = {"options": options, "settings": settings, "dtype": "float16", "views": 2, "device": "cpu"}
        model = Model.create(store.dim, method=method, **how)
        model.learn(whole.part(first))
        model.learn(whole.part(~first))
        path = folder / f"m-{method}-{len(list(folder.iterdir()))}.tosca"
        model.save(path)
        return path

    return teach


@pytest.fixture(scope="module")
def checkpoints(taught, tmp_path_factory):
    """A model of the learner tosca, and its checkpoints of two tasks."""
    path, out = taught("tosca"), tmp_path_factory.mktemp("checkpoints") / "out"
    run("export", path, "--checkpoint", out)
    return path, sorted(out.glob("*.pth"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine of each of three colours, in landscape, so that they are resized and cropped."""
    return paint(tmp_path_factory.mktemp("photos"), COLOURS, 9, size=(40, 56), noise=60)


def ask_onnx(path, rows):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})[0], session.get_modelmeta().custom_metadata_map


def ask_pt2(path, rows):
    files = {"metadata.json": ""}
    found = torch.export.load(path, extra_files=files).module()(torch.from_numpy(rows)).detach().numpy()
    return found, json.loads(files["metadata.json"])


@pytest.mark.parametrize(("method", "options"), LEARNERS, ids=str)
def test_a_learner_alone_says_what_the_model_says(taught, asked, tmp_path, method, options):
    path = taught(method, options)
    output = run("export", path, ALONE, "--onnx", tmp_path / "m.onnx", "--pt2", tmp_path / "m.pt2")
    assert output.count("largest difference") == 2
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx", "m.pt2"}
    model = Model.open(path)
    expected = model.probabilities(asked)
    for ask, name in ((ask_onnx, "m.onnx"), (ask_pt2, "m.pt2")):
        for some in (slice(0, 1), slice(0, 7), slice(None)):
            found, said = ask(tmp_path / name, asked[some])
            assert np.abs(found - expected[some]).max() < 1e-4
        assert json.loads(said["classes"]) == list(model.class_names)
        assert said["learner"] == method


def test_forgotten_classes_and_classes_of_one_name(taught, checkpoints, asked, tmp_path):
    forgetful, named, names = taught("simplecil"), tmp_path / "n.tosca", tmp_path / "names.txt"
    run("forget", forgetful, "class-4")
    names.write_text("a\nb\nc\na\nb\nd\n")
    run("import-checkpoint", named, *checkpoints[1], "--classes", names)
    for path, known in ((forgetful, [f"class-{n}" for n in (0, 1, 2, 3, 5)]), (named, ["a", "b", "c", "d"])):
        run("export", path, ALONE, "--onnx", tmp_path / "m.onnx")
        found, said = ask_onnx(tmp_path / "m.onnx", asked)
        assert json.loads(said["classes"]) == known
        assert np.abs(found - Model.open(path).probabilities(asked)).max() < 1e-4
    names.write_text("a\nb\n")
    refused = run("import-checkpoint", tmp_path / "x.tosca", *checkpoints[1], "--classes", names, code=2)
    assert "2 names, and the head has 6 rows" in refused


def test_half_precision(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("learn", "m.tosca", photos, "--backbone", "vit_nano", "--method", "nmc", "--precision", "bf16")
    output = run("export", "m.tosca", "--onnx", "m.onnx", "--photos", photos / "red")
    assert "on 9 photos" in output and "in its own precision, says otherwise by up to" in output
    assert "otherwise" not in run("export", "m.tosca", "--pt2", "half.pt2", "--photos", photos / "red")
    right = Model.probabilities
    monkeypatch.setattr(Model, "probabilities", lambda self, rows: right(self, rows) + 3e-3)
    output = run("export", "m.tosca", "--pt2", "wrong.pt2", "--photos", photos / "red", code=1)
    assert "more than 0.001" in output
    assert {path.name for path in tmp_path.glob("*.*")} == {"m.tosca", "m.onnx", "half.pt2"}


def test_what_cannot_be_exported(taught, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    for path, words, said, code in (
        (taught("teen"), (ALONE, "--onnx", "m.onnx"), "teen cannot be exported", 2),
        (taught("tosca", {"router": "pool"}), (ALONE, "--pt2", "m.pt2"), "router pool cannot be exported", 2),
        (taught("nmc"), ("--onnx", "m.onnx"), "cannot see photos", 1),
        (taught("nmc"), (), "say what to write", 2),
        (taught("nmc"), ("--onnx", "folder.onnx", ALONE), "file system refuses", 1),
        (taught("nmc"), ("--checkpoint", "o"), "only a model of the learner tosca", 2),
    ):
        assert said in run("export", path, *words, code=code)
    model = Model.create(DIM, method="tosca", settings=FAST, views=2, device="cpu")
    model.learn(lesson([0, 1, 2]))
    model.forget("class 1")  # whose rows are in no store: they cannot be left out of what the others have made of it
    model.save(tmp_path / "f.tosca")
    assert "forgotten" in run("export", "f.tosca", "--checkpoint", "o", code=2)
    assert {path.name for path in tmp_path.iterdir()} == {"folder.onnx", "f.tosca"}


def test_a_file_that_is_not_the_model_replaces_none(taught, tmp_path, monkeypatch):
    path, target = taught("lda"), tmp_path / "m.onnx"
    target.write_bytes(b"good")
    right = Model.probabilities
    for wrong, said in ((2e-4, "differ by 0.0002, more than 0.0001"), (np.nan, "is not the model")):
        monkeypatch.setattr(Model, "probabilities", lambda self, rows, wrong=wrong: right(self, rows) + wrong)
        assert said in run("export", path, ALONE, "--onnx", target, code=1)
    assert target.read_bytes() == b"good"
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def same_answers(one, other, rows):
    return np.array_equal(Model.open(one).scores(rows), Model.open(other).scores(rows))


@pytest.mark.parametrize("flow", ["tosca", "tosca_r", "adapter", "calibrator"])
def test_what_was_exported_as_checkpoints_is_imported_and_answers_the_same(taught, asked, tmp_path, flow):
    path = taught("tosca", settings=FAST | {"flow": flow})
    run("export", path, "--checkpoint", tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.pth"))
    assert len(files) == 2
    names = ("--classes", tmp_path / "out" / "classes.txt", "--flow", flow)
    output = run("import-checkpoint", tmp_path / "new.tosca", *files, *names)
    assert "2 tasks, 6 classes, features of 12 numbers" in output
    assert Model.open(tmp_path / "new.tosca").class_names == Model.open(path).class_names
    assert same_answers(path, tmp_path / "new.tosca", asked)
    run("export", tmp_path / "new.tosca", "--checkpoint", tmp_path / "again")
    for file in files:
        first, second = (torch.load(folder / file.name) for folder in (tmp_path / "out", tmp_path / "again"))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert "already" in run("import-checkpoint", tmp_path / "new.tosca", *files, code=2)
    assert "something of this name" in run("export", path, "--checkpoint", tmp_path / "out", code=2)


OTHER_NAMES = {"W_down": "adapter.0.weight", "b_down": "adapter.0.bias", "W_up": "adapter.2.weight"}
OTHER_NAMES |= {"b_up": "adapter.2.bias", "S_down": "gate.0.weight", "S_up": "gate.2.weight"}
OTHER_NAMES |= {"LN.weight": "norm.weight", "LN.bias": "norm.bias"}
ORDERS = {
    "norm first": "LN.weight LN.bias W_down b_down W_up b_up S_down S_up",
    "norm last": "W_down b_down W_up b_up S_down S_up LN.weight LN.bias",
}


@pytest.mark.parametrize("order", ORDERS)
def test_other_names_are_taken_by_shape_and_order(checkpoints, asked, tmp_path, order):
    path, files = checkpoints
    states = [torch.load(file) for file in files]
    files = [tmp_path / "luca_0.pth", tmp_path / "luca_1.pth"]
    for file, state in zip(files, states, strict=True):
        torch.save({f"luca.{OTHER_NAMES[name]}": state[name] for name in ORDERS[order].split()}, file)
    torch.save({"fc.weight": states[1]["W"], "fc.sigma": states[1]["sigma"]}, tmp_path / "head.pth")
    output = run("import-checkpoint", tmp_path / "n.tosca", tmp_path / "head.pth", *files)
    assert "squeeze_weight = luca.gate.0.weight" in output.replace("\n", "") and "3 a task" in output
    assert Model.open(tmp_path / "n.tosca").class_names == tuple(f"class_{number}" for number in range(6))
    assert same_answers(path, tmp_path / "n.tosca", asked)
    assert "no head" in run("import-checkpoint", tmp_path / "x.tosca", *files, code=1)


def test_an_imported_model_sees_photos_and_learns_on(taught, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lengths = {"LN.weight": (192,), "LN.bias": (192,), "W_down": (12, 192), "b_down": (12,), "W_up": (192, 12)}
    lengths |= {"b_up": (192,), "S_down": (12, 192), "S_up": (192, 12), "W": (3, 192), "sigma": (1,)}
    generator = torch.Generator().manual_seed(0)
    torch.save({name: torch.randn(size, generator=generator) for name, size in lengths.items()}, "t0.pth")
    run("import-checkpoint", "m.tosca", "t0.pth", "--backbone", "vit_nano")
    assert len(run("predict", "m.tosca", photos / "red", "--json").splitlines()) == 9
    run("learn", "m.tosca", photos)
    assert Model.open("m.tosca").class_names == ("class_0", "class_1", "class_2", *COLOURS)


class Evil:
    def __reduce__(self):
        return print, ("code was run",)


def damaged(state):
    """Files that are no checkpoints of a task, and what is said of them."""
    yield b"", "damaged"
    yield pickle.dumps(Evil()), "could run code"
    yield b"hello", "damaged"
    yield {**state, "W_down": Evil()}, "Python objects"
    yield {"epoch": 3}, "no weights"
    yield {name: state[name] for name in state if name != "W_up"}, "up_weight"
    yield {**state, "W_up": state["W_up"][:, :1]}, "no tasks of one model"
    yield {**state, "W": state["W"] * torch.nan}, "no finite numbers"
    yield {**state, "W": state["W"][0]}, "no tasks of one model"
    yield {**state, "more": torch.ones(2, 3, 4)}, "not the tensors of a LuCA module"
    yield {f"x{number}": torch.ones(12) for number in range(3)}, "not the tensors of a LuCA module"
    yield {"tokens": torch.ones(4, 4, dtype=torch.int64)}, "no finite numbers"


def test_damaged_checkpoints_are_refused(checkpoints, tmp_path, capsys):
    files = checkpoints[1]
    whole, bad = files[1].read_bytes(), tmp_path / "bad1.pth"
    cases = [*damaged(torch.load(files[1])), (whole[: len(whole) // 2], "damaged"), (whole[:-200], "damaged")]
    for content, message in cases:
        if isinstance(content, bytes):
            bad.write_bytes(content)
        else:
            torch.save(content, bad)
        output = run("import-checkpoint", tmp_path / "x.tosca", files[0], bad, code=1)
        assert message in output, message
        assert "code was run" not in output + capsys.readouterr().out
        assert not (tmp_path / "x.tosca").exists()
    assert "no such" in run("import-checkpoint", tmp_path / "x.tosca", tmp_path / "none.pth", code=1)
    torch.save({"W": torch.ones(3, 12), "sigma": torch.ones(1)}, bad)
    assert "no LuCA module" in run("import-checkpoint", tmp_path / "x.tosca", bad, code=1)
    wide = run("import-checkpoint", tmp_path / "x.tosca", *files, "--backbone", "vit_nano", code=1)
    assert "features of 12 numbers, and the backbone gives 192" in " ".join(wide.split())


def test_the_page_of_the_documentation(photos, tmp_path, monkeypatch, capsys):
    """Its commands run as they stand, one after the other, and so does its Python."""
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    commands = re.findall(r"^\$ tosca (.*)$", text, re.MULTILINE)
    outputs = {command: run(*shlex.split(command)) for command in commands}
    assert len(outputs) == len(commands) >= 6
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    answer = json.loads(run("predict", "shelf.tosca", "photos/red/0.png", "--json"))
    label, probability = capsys.readouterr().out.split()[-2:]
    assert label == answer["label"] == "red"
    assert float(probability) == pytest.approx(answer["probability"], abs=1e-3)
    printed = re.findall(r"^\$ (?:tosca .*)\n((?:(?!\$|```).+\n)+)", text, re.MULTILINE)
    for line in "".join(printed).splitlines():  # but for sizes and differences
        shape = re.sub(r"\d\S*", "#", line)
        assert shape in re.sub(r"\d\S*", "#", "".join(outputs.values())), line
