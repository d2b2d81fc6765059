"""Learners as scikit-learn's classifiers."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tosca_cache.errors import UsageError
from tosca_cache.sklearn import FeatureClassifier

CHECKED = [FeatureClassifier(name) for name in ("nmc", "lda", "slda", "fecam", "pool")]
CHECKED.append(FeatureClassifier("ranpac", options={"expansion": 256}))


def expected(estimator):
    """Checks that fail, and why."""
    if estimator.method == "fecam":
        return {"check_fit_score_takes_y": "it teaches known classes again, which FeCAM refuses"}
    return {}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(CHECKED, expected_failed_checks=expected)
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


def blobs(labels, count=20, seed=0):
    generator = np.random.default_rng(seed)
    means = 3 * np.random.default_rng(1).normal(size=(9, 16))
    y = np.repeat(labels, count)
    return means[y] + generator.normal(size=(len(y), 16)), y


@pytest.mark.parametrize("method", ["nmc", "lda", "pool"])
def test_labels_may_be_new_at_any_time(method, tmp_path):
    clf = FeatureClassifier(method=method)
    clf.partial_fit(*blobs([4, 2]))
    assert clf.classes_.tolist() == [2, 4]
    clf.partial_fit(*blobs([7]))
    clf.partial_fit(*blobs([2, 0], seed=3))
    assert clf.classes_.tolist() == [0, 2, 4, 7]
    X, y = blobs([0, 2, 4, 7], seed=5)
    assert clf.score(X, y) > 0.95
    assert clf.predict_proba(X).shape == (80, 4)
    clf.save(tmp_path / "m")
    other = FeatureClassifier.load(tmp_path / "m")
    assert other.classes_.dtype.kind == "i"
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
    other.partial_fit(*blobs([8]))
    assert other.classes_.tolist() == [0, 2, 4, 7, 8]
    with pytest.raises(UsageError, match="texts and others numbers"):
        other.partial_fit(X, ["x"] * 80)


def test_in_pipelines_and_cross_validation():
    X, y = blobs([0, 1, 2])
    pipeline = make_pipeline(StandardScaler(), FeatureClassifier("lda"))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.9
    names = np.array(["red", "green", "blue"])[y]
    fitted = clone(pipeline).fit(X, names)
    assert fitted.classes_.tolist() == ["blue", "green", "red"]
    assert (fitted.predict(X) == names).mean() > 0.9


def test_calibrated_probabilities_are_those_of_held_out_rows():
    clf = FeatureClassifier("lda", calibrate=True).fit(*blobs([0, 1, 2], 60))
    X, y = blobs([0, 1, 2], 60, seed=7)
    found = clf.predict_proba(X)
    assert found.max() < 1 and found.argmax(1).tolist() == y.tolist()
