"""Class guidance on two labelled Gaussians, where the score of a class and its flow are known in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import samplers, score
from ncsn_tf.densities import labelled, toy
from ncsn_tf.guidance import classes
from ncsn_tf.samplers import blocks
from ncsn_tf.samplers.counting import Counted
from ncsn_tf.sde import VE, VP, SubVP

MEANS, DEVIATIONS = np.array([[-0.6, 0.2], [0.5, -0.1]]), np.array([0.3, 0.5])
DENSITY = labelled.Labelled(
    np.array([0.3, 0.7]), tuple(toy.Mixture(np.ones(1), MEANS[k : k + 1], DEVIATIONS[k]) for k in range(2))
)
SDES = {"ve": VE(sigma_max=20.0, sigma_min=0.01), "vp": VP(), "subvp": SubVP()}
LABELS = tf.constant([0, 1, 1, 0, 1, 0])
X = np.random.default_rng(0).normal(size=(6, 2))
T = np.linspace(0.05, 0.95, 6)


def ways(sde, scale):
    """Both kinds of guidance with the exact score and the exact classifier of the labelled Gaussians."""
    return {
        "classifier": classes.ByClassifier(DENSITY.logits_fn(sde), scale),
        "classifier-free": classes.ClassifierFree(2, scale),
    }


def start(numbers, labels, run_seed):
    """The start of samples of classes under the VP SDE."""
    return classes.Chosen(labels).start(numbers, VP().prior_sample, (2,), run_seed=run_seed)


DENSITY_SCORE, GUIDANCE = DENSITY.labelled_score_fn(VP()), ways(VP(), 2.5)


@pytest.mark.parametrize("way", ["classifier", "classifier-free"])
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
def test_the_scale_goes_from_no_class_to_the_class_and_beyond(sde, way):
    """By Bayes' rule grad log p(y | x) is the difference of the class's score and the score, at any noise."""
    score_fn = DENSITY.labelled_score_fn(sde)
    x, t = tf.constant(X), tf.constant(T)
    without, of_class = score_fn(x, t).numpy(), score_fn(x, t, LABELS).numpy()
    size = np.abs(of_class).max()
    for scale in (0.0, 0.5, 1.0, 2.0, 7.5):
        guided = ways(sde, scale)[way].score(Counted(score_fn), sde, (LABELS,))
        expected = without + scale * (of_class - without)
        np.testing.assert_allclose(guided(x, t), expected, rtol=0, atol=1e-12 * max(scale, 1.0) * size)
    exact = {0.0: without, 1.0: of_class} if way == "classifier-free" else {0.0: without}
    for scale, expected in exact.items():
        guided = ways(sde, scale)[way].score(Counted(score_fn), sde, (LABELS,))
        np.testing.assert_array_equal(guided(x, t), expected)


@pytest.mark.parametrize("way", ["classifier", "classifier-free"])
def test_rows_of_no_class_have_the_score_without_a_class(way):
    sde, score_fn = VP(), DENSITY.labelled_score_fn(VP())
    labels = tf.constant([0, 2, 1, 2, 2, 0])
    guided = ways(sde, 3.0)[way].score(Counted(score_fn), sde, (labels,))(tf.constant(X), tf.constant(T)).numpy()
    without, other = (score_fn(tf.constant(X), tf.constant(T), given).numpy() for given in (None, labels))
    np.testing.assert_allclose(guided, without + 3.0 * (other - without), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(guided[[1, 3, 4]], without[[1, 3, 4]], rtol=1e-12)


@pytest.mark.parametrize(("name", "way"), [("vp", "classifier"), ("subvp", "classifier-free")])
def test_scale_1_carries_the_prior_to_the_class(name, way):
    """The flow of N(m, s^2) is x_0 = alpha_0 m + sqrt(V_0 / V_1) (x_1 - alpha_1 m), V = alpha^2 s^2 + sigma^2."""
    sde, last = SDES[name], 1e-3
    sampler = samplers.make("probability_flow", sde, rtol=2e-6, atol=2e-6, denoise=False, last_time=last)
    found = sampler(DENSITY.labelled_score_fn(sde), tf.constant(X), None, ways(sde, 1.0)[way], (LABELS,)).x
    (alpha, begun), (sigma, sigma_begun) = (part.numpy() for part in sde.marginal(tf.constant([last, 1.0], tf.float64)))
    mean, deviation = MEANS[LABELS.numpy()], DEVIATIONS[LABELS.numpy()][:, None]
    ratio = np.sqrt(((alpha * deviation) ** 2 + sigma**2) / ((begun * deviation) ** 2 + sigma_begun**2))
    np.testing.assert_allclose(found, alpha * mean + ratio * (X - begun * mean), rtol=0, atol=2e-5)


def test_scale_1_draws_the_law_of_the_class_by_a_stochastic_sampler():
    """Sample for sample those that the class's own score gives; the class's mean and deviation, to the step's order."""
    sde, count, label = VP(), 2_000, 0
    sampler = samplers.make("dpm_solver_sde", sde, 30, grid="log_snr")
    seeds, x, given = start(tf.range(count), (label,), 3)
    own = sampler(DENSITY.classes[label].score_fn(sde), x, seeds).x.numpy()
    for guidance in ways(sde, 1.0).values():
        found = sampler(DENSITY.labelled_score_fn(sde), x, seeds, guidance, given).x.numpy()
        np.testing.assert_allclose(found, own, rtol=0, atol=2e-4)
    assert np.all(np.abs(own.mean(axis=0) - MEANS[label]) < 4.0 * DEVIATIONS[label] / np.sqrt(count))
    # 30 steps of order 2 leave the deviation within 1 %, besides the error of a sample's deviation.
    assert np.all(np.abs(own.std(axis=0) / DEVIATIONS[label] - 1.0) < 0.01 + 4.0 / np.sqrt(2.0 * count))


@pytest.mark.parametrize(
    ("guidance", "cost"),
    [
        (classes.ClassifierFree(2, 0.0), 1),
        (classes.ClassifierFree(2, 1.0), 1),
        (classes.ClassifierFree(2, 3.0), 2),
        (classes.ByClassifier(DENSITY.logits_fn(VP()), 3.0), 1),
    ],
)
def test_evaluations_are_counted_as_they_cost(guidance, cost):
    """Also those of the denoising at the end, which follows the guided score; the rows of a batch tell the cost."""
    rows = []

    def score_fn(x, t, labels=None):
        rows.append(x.shape[0])
        return DENSITY.labelled_score_fn(VP())(x, t, labels)

    seeds, x, given = start(tf.range(4), (0, 1), 0)
    found = samplers.make("heun", VP(), 3)(score_fn, x, seeds, guidance, given)
    np.testing.assert_array_equal(found.evaluations, [cost * (3 * 2 + 1)] * 4)
    assert rows == [4 * cost] * 3, "traced once per evaluation of a step, and at the end"


def test_evaluations_of_a_sampler_that_chooses_its_steps_are_counted_as_they_cost():
    seeds, x, given = start(tf.range(4), (0, 1), 0)
    sampler = samplers.make("probability_flow", VP(), rtol=1e-1, atol=1e-1)
    found = sampler(DENSITY_SCORE, x, seeds, GUIDANCE["classifier-free"], given).evaluations.numpy()
    assert np.all(found % 2 == 0) and np.all(found > 20)


def test_the_denoising_at_the_end_follows_the_guided_score():
    sde, guidance = VP(), classes.ClassifierFree(2, 2.0)
    seeds, x, given = start(tf.range(4), (0, 1), 0)
    make = {name: samplers.make("ddim", sde, 4, denoise=name == "with", last_time=0.3) for name in ("with", "without")}
    ended, noisy = (make[name](DENSITY.labelled_score_fn(sde), x, seeds, guidance, given).x for name in make)
    guided = guidance.score(Counted(DENSITY.labelled_score_fn(sde)), sde, given)
    np.testing.assert_allclose(ended, score.denoise(guided, sde, noisy, tf.fill([4], 0.3)), atol=1e-6)


@pytest.mark.parametrize(
    ("method", "way"),
    [("ancestral", "classifier"), ("ancestral", "classifier-free"), ("probability_flow", "classifier-free")],
)
def test_a_row_does_not_depend_on_its_batch(method, way):
    sde = VP()
    steps = {"num_steps": 6} if method == "ancestral" else {"rtol": 1e-2, "atol": 1e-2}
    sampler = samplers.make(method, sde, **steps)

    def draw(block):
        drawn_by = blocks.BlockSampler(
            sampler,
            DENSITY_SCORE,
            lambda numbers: start(numbers, (1, 0, 1), 5),
            block=block,
            strategy=tf.distribute.get_strategy(),
            guidance=GUIDANCE[way],
        )
        return drawn_by.draw_rows(6)

    whole = draw(6)
    part = draw(4)
    np.testing.assert_allclose(part["x"], whole["x"], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(part["evaluations"], whole["evaluations"])


def test_samples_take_the_labels_in_turn_and_start_as_samples_without_classes():
    seeds, x, (labels,) = start(tf.range(7), (3, 0, 8), 1)
    np.testing.assert_array_equal(labels, [3, 0, 8, 3, 0, 8, 3])
    plain = blocks.start_samples(tf.range(7), VP().prior_sample, (2,), run_seed=1)
    np.testing.assert_array_equal(seeds, plain[0])
    np.testing.assert_array_equal(x, plain[1])
    assert labels.dtype == tf.int32
    np.testing.assert_array_equal(start(tf.range(4, 7), (3, 0, 8), 1)[2][0], labels[4:])
    np.testing.assert_array_equal(classes.Chosen((3, 0, 8)).of_rows(7), labels)
    assert classes.NO_CLASSES.of_rows(7) is None
    assert classes.NO_CLASSES.start(tf.range(2), VP().prior_sample, (2,), run_seed=1)[2] == ()


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf"), "2"])
def test_impossible_scales_are_refused(scale):
    for make in (lambda: classes.ClassifierFree(2, scale), lambda: classes.ByClassifier(lambda x, t: x, scale)):
        with pytest.raises(ValueError, match="finite and at least 0: .*Received: "):
            make()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "one or more integers"),
        ([1.5], "one or more integers"),
        ([[1]], "one or more integers"),
        ([0, 10], "There are 10 classes: give labels 0 to 9. Received: 10"),
        ([-1], "Received: -1"),
    ],
)
def test_impossible_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        classes.check_labels(labels, 10)
    assert classes.check_labels(np.array([3, 3, 9]), 10) == (3, 3, 9)


@pytest.mark.parametrize(
    ("labels", "scale", "network", "message"),
    [
        ([1], 1.0, {"num_classes": None}, "no classes. Give --classifier=DIR, .*train_classifier --noisy"),
        ([9], 1.0, {"num_classes": 9}, "labels 0 to 8. Received: 9"),
        ([1], -1.0, {"num_classes": 9}, "at least 0"),
        ([1], 2.0, {"num_classes": 9, "label_dropout": 0.0}, "give --guidance_scale=1. Received: 2"),
    ],
)
def test_what_a_network_cannot_draw_is_refused(labels, scale, network, message):
    with pytest.raises(ValueError, match=message):
        classes.of_network(labels, scale, **network)


def test_labels_and_scale_are_part_of_what_determines_samples():
    found = classes.of_network([2, 0], 2.0, num_classes=3)
    assert found.key == {"labels": [2, 0], "guidance_scale": 2.0} and found.labels == (2, 0)
    assert found.guidance == classes.ClassifierFree(3, 2.0)
    assert classes.of_network([1], 1.0, num_classes=3, label_dropout=0.0).key["guidance_scale"] == 1.0
