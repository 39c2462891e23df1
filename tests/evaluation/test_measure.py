"""All metrics of one set of samples: their values, computed independently, their names and their caveats."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial import distance

from ncsn_tf.evaluation import frechet, manifolds, scores
from ncsn_tf.evaluation.features import Features
from ncsn_tf.evaluation.measure import Measurement, class_accuracy, measure
from ncsn_tf.evaluation.moments import Moments
from ncsn_tf.evaluation.names import METRICS
from ncsn_tf.evaluation.references import ReferenceStatistics

WIDTH, SAMPLES, IMAGES = 6, 300, 240


def gaussian(rows, seed, shift=0.0, width=WIDTH):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((width, width))
    return (generator.standard_normal((rows, width)) @ mixing + shift).astype(np.float32)


def features_of(rows, seed=0, shift=0.5, width=WIDTH, classes=10):
    logits = 2.0 * np.random.default_rng(seed + 7).standard_normal((rows, classes)).astype(np.float32)
    return Features(gaussian(rows, seed, shift, width), logits)


def reference_of(rows, seed=1, width=WIDTH, features=True):
    values = gaussian(rows, seed, width=width)
    return ReferenceStatistics(Moments.of(values), values if features else None, None)


FEATURES, REFERENCE = features_of(SAMPLES), reference_of(IMAGES)


@pytest.fixture(scope="module")
def found():
    measurements, absent = measure(FEATURES, REFERENCE, "inception")
    assert absent == []
    assert [one.name for one in measurements] == list(METRICS)
    return {one.name: one for one in measurements}


# Values


def test_fid_is_the_frechet_distance_of_two_gaussians(found):
    ours, theirs = (np.asarray(rows, np.float64) for rows in (FEATURES.pooled, REFERENCE.features))
    a, b = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    shift = ours.mean(axis=0) - theirs.mean(axis=0)
    expected = shift @ shift + np.trace(a + b - 2.0 * scipy.linalg.sqrtm(a @ b).real)
    assert found["fid"].value == pytest.approx(expected, rel=1e-8)
    assert (found["fid"].num_samples, found["fid"].num_reference) == (SAMPLES, IMAGES)
    assert found["fid"].standard_error is None and found["fid"].deviation is None


def test_fid_at_infinity_is_extrapolated(found):
    expected = frechet.extrapolated(FEATURES.pooled, REFERENCE.moments)
    assert expected is not None
    assert found["fid_infinity"].value == expected.value
    assert found["fid_infinity"].standard_error == expected.standard_error > 0.0
    assert (found["fid_infinity"].num_samples, found["fid_infinity"].num_reference) == (SAMPLES, IMAGES)


def score_of(logits):
    """The exponential of the mean Kullback-Leibler divergence to the mean distribution."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    p /= p.sum(axis=1, keepdims=True)
    return math.exp(np.sum(p * (np.log(p) - np.log(p.mean(axis=0))), axis=1).mean())


def test_the_inception_score_is_a_mean_over_ten_parts(found):
    one = found["inception_score"]
    assert (one.value, one.deviation) == scores.inception_score(FEATURES.logits, 10)
    parts = np.random.default_rng(0).permutation(SAMPLES).reshape(10, 30)  # as `scores` shuffles
    expected = [score_of(FEATURES.logits[part]) for part in parts]
    assert one.value == pytest.approx(np.mean(expected), rel=1e-6)
    assert one.deviation == pytest.approx(np.std(expected), rel=1e-4)
    assert found["inception_score"].num_reference is None
    flat = Features(FEATURES.pooled, np.zeros((SAMPLES, 10), np.float32))
    (uniform,), _ = measure(flat, REFERENCE, "inception", metrics=["inception_score"])
    assert (uniform.value, uniform.deviation) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))


def kernel_mmd(x, y):
    """The unbiased squared maximum mean discrepancy under (x'y / D + 1)^3."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1.0) ** 3

    own = [(kernel(z, z).sum() - np.trace(kernel(z, z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return own[0] + own[1] - 2.0 * kernel(x, y).mean()


def test_kid_is_a_mean_over_ten_blocks_near_the_distance_of_all_rows(found):
    value, error = found["kid"].value, found["kid"].standard_error
    assert (value, error) == scores.kernel_distance(FEATURES.pooled, REFERENCE.features, 10)
    assert error is not None
    assert abs(value - kernel_mmd(FEATURES.pooled, REFERENCE.features)) < 4 * error
    assert (found["kid"].num_samples, found["kid"].num_reference) == (SAMPLES, IMAGES)


def test_kid_of_many_images_has_blocks_as_in_the_literature(monkeypatch):
    asked = []

    def ask(ours, theirs, blocks):
        asked.append((len(ours), len(theirs), blocks))
        return 0.0, 1.0

    monkeypatch.setattr(scores, "kernel_distance", ask)
    for samples, images in ((12_000, 11_500), (50_000, 12_000), (300, 5_000), (300, 50_000), (20, 21)):
        sides = features_of(samples, width=1), reference_of(images, width=1)
        ((found,), _) = measure(*sides, "inception", metrics=["kid"])
        assert (found.num_samples, found.num_reference) == asked[-1][:2]
    # As many blocks as the smaller side fills with 1,000 rows, at least ten, and no more rows than they hold.
    assert asked == [(12_000, 11_500, 12), (12_000, 12_000, 12), (300, 5_000, 10), (300, 10_000, 10), (20, 21, 10)]


def test_precision_and_recall_compare_equal_numbers(found):
    chosen = np.sort(np.random.default_rng(0).choice(SAMPLES, IMAGES, replace=False))
    assert len(set(chosen)) == IMAGES
    ours, theirs = FEATURES.pooled[chosen].astype(np.float64), np.asarray(REFERENCE.features, np.float64)

    def share(queries, points):
        radii = np.sort(distance.cdist(points, points), axis=1)[:, 3]  # the first is the point itself
        return np.mean((distance.cdist(queries, points) <= radii).any(axis=1))

    assert found["precision"].value == pytest.approx(share(ours, theirs), abs=1e-12)
    assert found["recall"].value == pytest.approx(share(theirs, ours), abs=1e-12)
    for name in ("precision", "recall"):
        assert (found[name].num_samples, found[name].num_reference) == (IMAGES, IMAGES)
    direct = manifolds.precision_recall(FEATURES.pooled[chosen], theirs.astype(np.float32), k=3)
    assert (found["precision"].value, found["recall"].value) == (direct.precision, direct.recall)


def test_the_larger_side_is_subsampled():
    few, many = features_of(50), reference_of(200)
    measurements, _ = measure(few, many, "inception", metrics=["precision", "recall"])
    assert [(one.num_samples, one.num_reference) for one in measurements] == [(50, 50), (50, 50)]
    alone, _ = measure(few, many, "inception", metrics=["recall"])
    assert [one.name for one in alone] == ["recall"] and alone[0].value == measurements[1].value


def test_samples_from_the_distribution_of_the_data_are_near_it():
    same = Features(gaussian(400, 3), features_of(400).logits)
    measurements, _ = measure(same, reference_of(400, seed=4), "classifier")
    by_name = {one.name: one for one in measurements}
    kid, infinity = by_name["classifier_kid"], by_name["classifier_fid_infinity"]
    assert kid.standard_error is not None and abs(kid.value) < 4 * kid.standard_error
    assert infinity.value < by_name["classifier_fid"].value
    assert by_name["classifier_precision"].value > 0.8 and by_name["classifier_recall"].value > 0.8


# Names and caveats


def test_metrics_of_a_classifier_have_names_of_their_own(found):
    said = []
    measurements, _ = measure(FEATURES, REFERENCE, "classifier", on_metric=said.append)
    names = [one.name for one in measurements]
    assert names[:3] == ["classifier_score", "classifier_fid", "classifier_fid_infinity"]
    assert not {one.name for one in measurements} & set(METRICS)
    assert ", ".join(said) == ", ".join(names)
    assert [one.value for one in measurements] == [one.value for one in found.values()]


def test_fewer_samples_than_in_the_literature_are_a_caveat(found):
    for one in found.values():
        assert one.caveats[0].startswith("300 samples; the literature uses 50000")
    plenty = Features(gaussian(50_000, 5, width=1), np.zeros((50_000, 2), np.float32))
    wanted = ["inception_score", "fid", "fid_infinity"]
    measurements, _ = measure(plenty, reference_of(100, width=1), "inception", metrics=wanted)
    assert [one.caveats for one in measurements] == [(), (), ()]
    fewer = Features(plenty.pooled[1:], plenty.logits[1:])
    (one,), _ = measure(fewer, reference_of(100, width=1), "inception", metrics=["fid"])
    assert len(one.caveats) == 1


@pytest.mark.parametrize(("samples", "images"), [(6, 7), (7, 6), (6, 6), (7, 7)])
def test_a_singular_covariance_is_a_caveat(samples, images):
    (fid,), _ = measure(features_of(samples), reference_of(images), "inception", metrics=["fid"])
    said = [line for line in fid.caveats if "singular" in line]
    expected = [f"{samples} samples"] * (samples == 6) + [f"{images} reference images"] * (images == 6)
    assert [line.split(" for 6 features")[0] for line in said] == expected


def test_unavailable_metrics_are_named_with_the_reason():
    measurements, absent = measure(features_of(19), reference_of(40, features=False), "inception")
    assert [one.name for one in measurements] == ["fid"]
    assert absent == [
        "inception_score: 19 samples are fewer than 2 in each of 10 parts",
        "fid_infinity: 19 samples are fewer than 4 for each of 6 features",
        "kid: the reference statistics hold no features",
        "precision: the reference statistics hold no features",
        "recall: the reference statistics hold no features",
    ]
    measurements, absent = measure(features_of(20), reference_of(3), "classifier", metrics=["kid", "precision"])
    assert measurements == []
    assert absent == [
        "classifier_kid: 20 samples and 3 images are fewer than 2 of each in each of 10 blocks",
        "classifier_precision: 3 images on one side have no 3 neighbours",
    ]


@pytest.mark.parametrize("rows", [20, 21, 24, 4])
def test_the_smallest_numbers_of_samples(rows):
    """At the limits, every metric that is not reported absent is measured."""
    measurements, absent = measure(features_of(rows), reference_of(rows), "inception")
    assert len(measurements) + len(absent) == 6
    assert all(math.isfinite(one.value) for one in measurements)
    assert {one.name for one in measurements} >= {"fid", "precision", "recall"}
    for name in ("inception_score", "kid"):
        assert (name in {one.name for one in measurements}) == (rows >= 20)
    assert ("fid_infinity" in {one.name for one in measurements}) == (rows >= 24)


def test_statistics_of_an_unknown_number_of_images():
    known = REFERENCE.moments
    foreign = ReferenceStatistics(Moments(0, known.mean, known.covariance), None, None)
    measurements, absent = measure(FEATURES, foreign, "inception")
    assert [one.name for one in measurements] == ["inception_score", "fid", "fid_infinity"]
    assert all(one.num_reference is None for one in measurements)
    assert not any("singular" in line for one in measurements for line in one.caveats)
    assert len(absent) == 3


def test_unknown_metrics_and_features_of_another_network_are_refused():
    with pytest.raises(ValueError, match="Metrics are inception_score, fid, .*Received: clip, fidelity"):
        measure(FEATURES, REFERENCE, "inception", metrics=["fidelity", "fid", "clip"])
    with pytest.raises(ValueError, match="have 6 features, the samples 5"):
        measure(features_of(30, width=5), REFERENCE, "inception")


def test_a_measurement_as_a_line_and_as_plain_values():
    one = Measurement("fid", 12.345678, 300, 240, deviation=0.123, standard_error=0.0456, caveats=("few",))
    assert one.describe() == ("fid 12.346 (deviation 0.12) (standard error 0.046), 300 samples against 240 images")
    assert json.loads(json.dumps(one.as_dict())) == {
        "value": 12.345678,
        "num_samples": 300,
        "num_reference": 240,
        "deviation": 0.123,
        "standard_error": 0.0456,
        "warnings": ["few"],
    }
    bare = Measurement("inception_score", 9.0, 50_000)
    assert bare.describe() == "inception_score 9, 50000 samples"
    assert bare.as_dict() == {"value": 9.0, "num_samples": 50_000, "warnings": []}


def test_class_accuracy_is_the_share_of_samples_that_are_found_in_their_class():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 1]]
    found = class_accuracy(Features(np.zeros([5, 2], np.float32), logits), np.array([0, 1, 1, 2, 0]))
    assert (found.name, found.value, found.num_samples) == ("class_accuracy", 0.6, 5)
    assert found.standard_error == pytest.approx(np.sqrt(0.6 * 0.4 / 5))
    with pytest.raises(ValueError, match="knows 3 classes. Received: samples of the class 3"):
        class_accuracy(Features(np.zeros([1, 2], np.float32), logits[:1]), np.array([3]))
