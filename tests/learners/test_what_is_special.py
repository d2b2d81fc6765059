"""What single learners promise beside their published formulas, which tests/reference/official_*.py hold them to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learners.test_learners import QUICK
from reference.gaussian import clean_rows, make_stream

from tosca_cache.errors import UsageError
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.gaussians import Gaussians, covariance_factor
from tosca_cache.learners.options import learns_together
from tosca_cache.learners.protocol import run_protocol, run_protocols
from tosca_cache.tasks import Rows, Task
from tosca_cache.train.gradient import side_by_side

SEED, CLASSES, DIM = 7, 8, 6


def learn(name, stream, **options):
    learner = LEARNERS[name](**{"seed": SEED, "settings": QUICK} | options)
    for task in stream:
        learner.observe(task)
    return learner


@pytest.mark.parametrize("power", [0.5, 0.0])
def test_tukeys_transform_refuses_features_that_have_no_power(power):
    """Rows to learn and rows to answer for."""
    stream = make_stream(4)
    with pytest.raises(UsageError, match="Tukey"):
        learn("fecam", stream, tukey=power)
    task = stream.task(0)
    rows = Rows(np.abs(task.train.features), task.train.labels, task.train.index)
    learner = learn("fecam", [Task(0, task.classes, rows)], tukey=power)
    with pytest.raises(UsageError, match="Tukey"):
        learner.scores(-np.ones((1, DIM), np.float32))


@pytest.mark.parametrize("name", ["aper-film", "aper-luca"])
def test_aper_trains_on_the_first_task_only(name):
    stream = make_stream(2)
    learner = learn(name, [stream.task(0)])
    module, trained = dict(learner.module), learner.trainable_parameters
    assert trained > sum(tensor.numel() for tensor in module.values())
    x = torch.from_numpy(stream.task(0).train.features[:, 0])
    assert not torch.allclose(learner.adapted(x), x, atol=1e-3)
    learner.observe(stream.task(1))
    assert learner.trainable_parameters == 0
    assert all(torch.equal(tensor, module[key]) for key, tensor in learner.module.items())


def test_film_turns_a_channel_of_noise_down():
    task = make_stream(4).task(0)
    task.train.features[:, :, 3] = 20 * np.random.default_rng(0).normal(size=task.train.features.shape[:2])
    learner = learn("aper-film", [task], settings=replace(QUICK, epochs=20, lr=0.1))
    gains = learner.module["gamma"].abs()
    assert gains[3] < 0.5 * gains[[0, 1, 2, 4, 5]].min()
    assert learner.trainable_parameters == 2 * DIM + 4 * DIM + 1


def test_adanpc_forgets_test_rows_that_joined_and_says_that_they_may():
    """A confidence that no row reaches is the same as none."""
    stream = make_stream(4)
    off, never, often = (learn("adanpc", stream, k=5, beta=beta, batch_size=4) for beta in (1.1, 1.0, 0.0))
    rows = clean_rows(stream)
    assert [learner.transductive for learner in (off, never, often)] == [False, True, True]
    np.testing.assert_allclose(never.scores(rows), off.scores(rows), atol=1e-6)
    first = often.scores(rows)
    assert not np.allclose(first, off.scores(rows), atol=1e-3)
    np.testing.assert_array_equal(first, often.scores(rows))
    assert often.stored_numbers == off.stored_numbers


def test_lame_without_affinity_is_its_base():
    stream = make_stream(4)
    rows = clean_rows(stream)
    expected = torch.softmax(torch.from_numpy(learn("tosca", stream).scores(rows)).double() / 0.5, 1)
    for options in ({"strength": 0.0}, {"batch_size": 1}):
        found = learn("lame", stream, base="tosca", temperature=0.5, **options).scores(rows)
        np.testing.assert_allclose(found, expected, atol=1e-8)
    for base in ("adanpc", "lame", "none"):
        with pytest.raises(UsageError, match=base):
            LEARNERS["lame"](base=base)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_samples_have_the_mean_and_covariance_of_the_rows(n):
    """x = mu + F^T z + 1e-2 e, with as many rows of F as the covariance has directions."""
    x = torch.randn(n, DIM, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    covariance = (np.cov(x.numpy(), rowvar=False) if n > 1 else 0) + 1e-4 * np.eye(DIM)
    gaussians = Gaussians()
    gaussians.observe(torch.cat([x, x + 3]), torch.arange(2).repeat_interleave(n), range(2))
    assert [len(factor) for factor in gaussians.factors] == [min(n - 1, DIM)] * 2
    drawn = gaussians.sample(torch.tensor([1.0, 0.5]), 40000, torch.Generator().manual_seed(0), torch.device("cpu"))
    for rows, middle in zip(drawn, (x.mean(0), 0.5 * (x.mean(0) + 3)), strict=True):
        np.testing.assert_allclose(rows.mean(0), middle, atol=0.03)
        np.testing.assert_allclose(np.cov(rows.numpy(), rowvar=False), covariance, atol=0.06)


def test_what_is_kept_of_a_class_follows_from_its_covariance_alone():
    """Other rows of the same mean and covariance (an orthogonal mix of the centred ones) give the same factor."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, DIM, generator=generator, dtype=torch.float64)
    ones = torch.ones(5, 1, dtype=x.dtype)
    basis = torch.linalg.qr(torch.cat([ones, torch.randn(5, 4, generator=generator, dtype=x.dtype)], 1))[0][:, 1:]
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=x.dtype))[0]
    centred = x - x.mean(0)
    mixed = x.mean(0) + basis @ turn @ basis.T @ centred
    assert (mixed - x).abs().max() > 0.1
    torch.testing.assert_close(covariance_factor(mixed)[1], covariance_factor(x)[1], rtol=1e-8, atol=1e-10)
    assert torch.cdist(covariance_factor(x)[1], centred).min() > 0.1


@pytest.mark.parametrize("name", sorted(name for name, kind in LEARNERS.items() if learns_together(kind)))
def test_seeds_of_unequal_tasks_learn_side_by_side_what_each_learns_alone(name):
    seeds, told = (3, 5, 8, 9), []
    streams = [make_stream(2, rows=5 + 3 * np.arange(CLASSES), seed=seed) for seed in seeds]
    parts = side_by_side([stream.task(0) for stream in streams], QUICK)
    assert any(len(part) > 1 and len({len(streams[m].task(0).train) for m in part}) > 1 for part in parts)
    assert len(parts) > 1
    learners = [LEARNERS[name](seed=seed, settings=QUICK) for seed in seeds]
    outcomes = run_protocols(learners, streams, on_task=told.append)
    assert told == list(range(CLASSES // 2))
    assert len({outcome.seconds["train"] for outcome in outcomes}) == 1
    for learner, seed, stream in zip(learners, seeds, streams, strict=True):
        alone, rows = learn(name, stream, seed=seed), clean_rows(stream)
        np.testing.assert_allclose(learner.scores(rows), alone.scores(rows), rtol=1e-4, atol=1e-5)


def test_epochs_are_reported_as_they_end():
    for name in ("finetune", "tosca", "dkvb"):
        seen = []
        LEARNERS[name](settings=QUICK).observe(make_stream(4).task(0), on_epoch=seen.append)
        assert seen == list(range(QUICK.epochs))


def test_a_module_of_proteus_starts_as_a_learned_combination_of_the_earlier_ones():
    """With a rate of zero after the mixing epochs, the combination is what is left."""
    stream = make_stream(2)
    learner = learn("proteus", [stream.task(0), stream.task(1)], settings=replace(QUICK, epochs=5, lr=0.1))
    learner.settings = replace(QUICK, epochs=5, scheduler="steplr", milestones=(2,), gamma=1e-30, lr=0.5)
    learner.observe(stream.task(2))
    *earlier, last = (torch.cat([t.flatten() for t in module]) for module in learner.bank.modules)
    a = torch.linalg.lstsq(torch.stack(earlier, 1), last).solution
    torch.testing.assert_close(torch.stack(earlier, 1) @ a, last, rtol=1e-4, atol=1e-5)
    assert a.sum() == pytest.approx(1, abs=1e-3)
    assert 1 > a.min() > 0 and a.max() - a.min() > 1e-4


def test_the_orthogonality_term_of_proteus_turns_modules_away_from_earlier_ones():
    overlaps = []
    for weight in (0.0, 1.0):
        settings = replace(QUICK, epochs=5, lr=0.1)
        modules = learn("proteus", make_stream(2), settings=settings, orthogonality=weight).bank.modules
        down = [module.down_weight[0] for module in modules]
        overlaps.append(np.mean([(down[2] @ earlier.T).square().sum() for earlier in down[:2]]))
    assert overlaps[1] < 0.7 * overlaps[0]


def test_the_joint_bound_chooses_its_strength_on_train_rows():
    stream = make_stream(2, rows=20, tests=20, classes=6, dim=10, noise=2.0)
    chosen, flat = learn("joint-logistic", stream), learn("joint-logistic", stream, c=1e-6)
    labels = np.concatenate([stream.test(t).labels for t in range(3)])
    right = [(one.scores(clean_rows(stream)).argmax(1) == labels).mean() for one in (chosen, flat)]
    assert right[0] > max(right[1], 0.6)
    assert chosen.chosen > 1e-6


def test_a_joint_module_is_tosca_with_all_classes_in_one_task():
    stream = make_stream(2)
    joint, tosca = learn("joint-luca", stream), learn("tosca", make_stream(CLASSES))
    np.testing.assert_array_equal(joint.scores(clean_rows(stream)), tosca.scores(clean_rows(stream)))


def test_the_oracle_answers_by_the_true_module_and_needs_to_be_told():
    oracle, stream = LEARNERS["oracle-luca"](settings=QUICK), make_stream(2)
    found = run_protocol(oracle, stream)
    np.testing.assert_array_equal(found.predictions[-1].modules, found.tasks)
    with pytest.raises(UsageError, match="whose task is known"):
        oracle.scores(clean_rows(stream, 1))
