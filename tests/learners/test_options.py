"""What can be asked of learners by name: options and seeds."""

import pytest

from tosca_cache.compare.cells import CompareRequest, parse_seeds
from tosca_cache.config import TrainConfig
from tosca_cache.errors import UsageError
from tosca_cache.learners import LEARNERS, learner_type
from tosca_cache.learners.options import check_options, full_options, method_names, options_of, parse_assignments
from tosca_cache.learners.simplecil import SimpleCil


class Optioned(SimpleCil):
    """Options of every kind; `fixed` is settled by the class below."""

    def __init__(
        self, *, many=(1, 2), number=2.0, whole=3, flag=False, word="a", free=None, fixed=1, other=object(), **c
    ):
        super().__init__(**c)


class Below(Optioned):
    def __init__(self, *, more: int = 1, **common):
        super().__init__(fixed=2, **common)


def test_options_are_those_that_a_user_may_set():
    free = {"many": (1, 2), "number": 2.0, "whole": 3, "flag": False, "word": "a", "free": None}
    assert options_of(Optioned) == free | {"fixed": 1}
    assert options_of(Below) == free | {"more": 1}
    assert options_of(SimpleCil) == {}


def test_values_are_read_as_the_default_is_and_others_refused(monkeypatch):
    monkeypatch.setitem(LEARNERS, "optioned", Optioned)
    read = {"many=3,x": (3, "x"), "number=1": 1.0, "whole=7": 7, "flag=true": True, "word=7": "7", "free=none": None}
    for text, value in (read | {"free=0.5": 0.5}).items():
        (found,) = parse_assignments([f"optioned.{text}"], ["optioned"])["optioned"].values()
        assert found == value and type(found) is type(value)
    for text in ("whole=1.5", "flag=1", "number=true", "whole=true", "whole=-1", "number=nan"):
        with pytest.raises(UsageError, match="cannot be"):
            parse_assignments([f"optioned.{text}"], ["optioned"])


def test_an_option_says_what_it_takes():
    for name, option, value, remedy in (
        ("teen", "alpha", 1.5, "less than or equal to 1"),
        ("slda", "estimator", "best", "one of fixed, streaming, oas"),
        ("fly-cl", "active", 0.0, "greater than 0"),
        ("acil", "selection", "split", "one of fixed, gcv"),
        ("klda", "gamma", -1.0, '"none"'),
        ("dkvb", "heads", 0, "greater than or equal to 1"),
        ("ovor-luca", "quantiles", 1, "a list"),
    ):
        with pytest.raises(UsageError, match=f"{option} cannot be") as error:
            check_options({name: {option: value}})
        assert remedy in str(error.value)
    check_options({name: dict(options_of(kind)) for name, kind in LEARNERS.items()})


def test_only_a_router_comes_from_the_configuration():
    config = TrainConfig(router="lda", batch_size=7, momentum=0.1)
    assert full_options("tosca", config, {}) == {"router": "lda", "routing_batch_size": 48}
    assert full_options("tosca", config, {"router": "sample"})["router"] == "sample"
    own = {name: full_options(name, TrainConfig(), {})["router"] for name in ("tosca", "mos")}
    assert own == {"tosca": "sample", "mos": "mos-ensemble"}
    for name in LEARNERS:
        others = {k: v for k, v in full_options(name, config, {}).items() if not k.startswith("rout")}
        assert others == {k: v for k, v in options_of(learner_type(name)).items() if not k.startswith("rout")}


def test_names_and_seeds_of_a_comparison():
    assert method_names("all") == tuple(sorted(LEARNERS))
    assert method_names(" tosca,simplecil,tosca") == ("tosca", "simplecil")
    counted = {"5": (1993, 1994, 1995, 1996, 1997), "1": (1993,), "1993": (1993,), "7,": (7,), "3, 4": (3, 4)}
    assert {text: parse_seeds(text) for text in counted} == counted
    with pytest.raises(UsageError, match="no methods"):
        CompareRequest(TrainConfig(), ())
    with pytest.raises(UsageError, match="seeds"):
        CompareRequest(TrainConfig(), ("tosca",), seeds=(1, 1))
