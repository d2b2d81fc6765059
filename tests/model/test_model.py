"""Models: every learner is saved, opened, asked and taught on; calibration, novelty, forgetting, and damage."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.lessons import DIM, SETTINGS, lesson, rows, together

from tosca_cache.errors import ModelError, ToscaError, UsageError
from tosca_cache.learners import LEARNERS
from tosca_cache.model.classifier import Model
from tosca_cache.model.held_out import best_temperature, calibration_error, choose_held_out, doubt, probabilities

CLASSIFIERS = sorted(name for name, learner in LEARNERS.items() if not learner.bound)
EXACT = ("nmc", "simplecil", "lda", "slda", "fsa-lda")  # however rows are split into lessons
OPTIONS = {"ranpac": {"expansion": 64}, "acil": {"buffer": 64}, "garm": {"buffer": 64}, "dkvb": {"keys": 16}}
ASKED = rows(range(5), 7, 0, seed=9)[0][:, 0]


def create(method="lda"):
    options = OPTIONS.get(method, {})
    return Model.create(DIM, method=method, options=options, settings=SETTINGS, views=2, device="cpu")


def taught(method="lda", *lessons):
    model = create(method)
    for one in lessons or (lesson([0, 1, 2]), lesson([3, 4])):
        model.learn(one)
    return model


def same_answers(one, other):
    a, b = one.predict(ASKED), other.predict(ASKED)
    assert (a.labels == b.labels).all()
    assert (a.probabilities == b.probabilities).all()
    assert (a.novelty == b.novelty).all()


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_every_learner_is_the_same_after_opening_and_learns_on_as_if_it_had_never_stopped(
    method, tmp_path, monkeypatch
):
    whole = create(method)
    whole.learn(lesson([0, 1, 2]))
    whole.save(tmp_path / "m")
    opened = Model.open(tmp_path / "m", device="cpu")
    same_answers(whole, opened)
    for model in (whole, opened):
        model.learn(lesson([3, 4]))
    same_answers(whole, opened)
    assert opened.class_names == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert opened.card.held_out == whole.card.held_out
    features = rows(range(5), 40, 0, seed=10)[0][:, 0]
    at_once = opened.predict(features)
    monkeypatch.setattr("tosca_cache.model.classifier.ROWS_AT_ONCE", 16)  # several at a time
    opened.save(tmp_path / "again")
    spread = Model.open(tmp_path / "again", device="cpu").predict(features)
    assert (spread.labels[:, 0] == at_once.labels[:, 0]).all()
    np.testing.assert_allclose(spread.probabilities, at_once.probabilities, atol=1e-5)
    np.testing.assert_allclose(spread.novelty, at_once.novelty, atol=0.05)


@pytest.mark.parametrize("method", EXACT)
def test_lessons_one_by_one_equal_all_at_once(method):
    parts = [lesson([0, 1]), lesson([2]), lesson([3]), lesson([0, 3], seed=1)]
    one_by_one, at_once = taught(method, *parts), taught(method, together(*parts))
    np.testing.assert_allclose(one_by_one.scores(ASKED), at_once.scores(ASKED), rtol=1e-9, atol=1e-9)


def test_a_learner_that_cannot_take_more_of_a_known_class_says_so_before_anything_happens():
    model = taught("fecam")
    with pytest.raises(UsageError, match="cannot take more photos of a class that it knows: 'class 1'"):
        model.learn(lesson([1, 5], seed=3))
    same_answers(model, taught("fecam"))
    with pytest.raises(UsageError, match="bound"):
        create("joint-logistic")


@pytest.mark.parametrize("method", ["nmc", "simplecil"])
def test_forgetting_is_exact_where_the_learner_keeps_classes_apart(method):
    model, one = taught(method), lesson([0, 1, 2])
    never = taught(method, one.part(np.array(one.names) != "class 1"), lesson([3, 4]))
    assert model.forget("class 1")
    np.testing.assert_allclose(model.scores(ASKED), never.scores(ASKED), atol=1e-6)
    np.testing.assert_allclose(model.probabilities(ASKED), never.probabilities(ASKED), atol=1e-6)


def test_where_traces_remain_it_is_said_and_the_class_is_not_answered_until_it_is_taught_again(tmp_path):
    model, features = taught("lda"), rows([1], 20, 0)[0][:, 0]
    assert not model.forget("class 1")
    model.save(tmp_path / "m")
    for one in (model, Model.open(tmp_path / "m")):
        found = one.predict(features, top=9)
        assert found.labels.shape == (20, 4) and "class 1" not in found.labels
    model.learn(lesson([1], seed=4))
    assert (model.predict(features).labels[:, 0] == "class 1").mean() > 0.8


def test_probabilities_are_calibrated_and_novelty_keeps_its_promise():
    model = taught("lda", *(lesson([c], count=60) for c in range(6)))
    features, names = rows(range(6), 200, 0, seed=8)
    found = model.predict(features[:, 0])
    right = found.labels[:, 0] == np.array(names, dtype=object)
    assert calibration_error(found.probabilities[:, 0], right) < 5
    assert (found.novelty > 0.95).mean() < 0.12
    strange = model.predict(rows([6, 7], 100, 0)[0][:, 0])
    assert (strange.novelty > 0.95).mean() > 0.5


def test_one_photo_and_one_class_are_enough_to_be_asked(tmp_path):
    model = taught("pool", lesson([0], count=1))
    model.save(tmp_path / "m")
    assert (Model.open(tmp_path / "m").predict(ASKED).labels[:, 0] == "class 0").all()
    assert model.card.held_out.accuracy is None
    with pytest.raises(ModelError, match="knows no class yet"):
        create().predict(ASKED)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(0, 3))
def test_a_fifth_of_each_class_is_held_out_whatever_other_classes_there_are(names, step):
    chosen = choose_held_out(names, {}, 7, step)
    for name in set(names):
        mine = np.array([one == name for one in names])
        count = mine.sum()
        assert chosen[mine].sum() == min(max(round(0.2 * count), 1), count - 1, 10)
        assert (choose_held_out([name] * count, {}, 7, step) == chosen[mine]).all()


@given(st.integers(1, 40), st.integers(2, 5), st.floats(0.01, 100))
def test_probabilities_are_probabilities_whatever_the_scale_of_the_scores(count, classes, scale):
    generator = np.random.default_rng(count)
    scores, targets = scale * generator.normal(size=(count, classes)), generator.integers(0, classes, count)
    found = probabilities(scores, best_temperature(scores, targets), doubt(count))
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found.argmax(1) == scores.argmax(1)).all() and found.min() >= 0


def test_a_damaged_or_foreign_folder_gives_one_clear_error(tmp_path):
    path = tmp_path / "m"
    taught().save(path)
    with pytest.raises(ModelError, match="no model here"):
        Model.open(tmp_path / "nothing")
    card, state = path / "model.json", path / "state.safetensors"
    facts, whole = json.loads(card.read_text()), state.read_bytes()

    def refused(file, content):
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(facts | content).encode())
        with pytest.raises(ToscaError) as raised:
            Model.open(path)
        assert "\n  do:" in str(raised.value), content

    generator = np.random.default_rng(0)
    for place in generator.integers(len(whole), size=20).tolist():
        refused(state, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    state.write_bytes(whole)
    for content in (
        *({"format": 1}, {"dim": -1}, {"dtype": "object"}, {"more": 1}, {"tasks": "many"}),
        {"classes": [*facts["classes"], facts["classes"][0]]},
        {"classes": [{"name": "x", "indices": [99], "images": 1}]},
        *({"learner": facts["learner"] | {key: {"x": 1}}} for key in ("options", "settings")),
        {"learner": facts["learner"] | {"method": "nothing"}},
        *(b"", b"{}", b"[" * 5000, b"{" + b'"a":' * 3, b"\xff"),
    ):
        refused(card, content)
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(ModelError):
        Model.open(path)


def test_the_folder_is_a_model_repository_as_it_stands(tmp_path):
    path, model, one = tmp_path / "my`model.tosca", create(), lesson([0, 1], 6)
    awkward = ["</h1> [x](y) *|", "line\nbreak"]
    model.learn(replace(one, names=[awkward[int(name[-1])] for name in one.names]))
    model.save(path)
    text = (path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: tosca_cache\npipeline_tag: image-classification\n")
    assert "</h1>" not in text and "line\nbreak" not in text
    assert Model.open(path).class_names == tuple(awkward)
