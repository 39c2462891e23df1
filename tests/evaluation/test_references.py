"""Reference statistics: written, read back, and refused if they do not belong to the samples."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import references
from ncsn_tf.evaluation.features import Features
from ncsn_tf.evaluation.references import ReferenceStatisticsError
from tests.support.tiny import random_pixels

SHAPE = (4, 5, 1)
SOURCE = ImageSource("path/to noise", random_pixels(30, *SHAPE))
PREPARATION = {"image_size": None, "center_crop": None, "channels": None}


@dataclasses.dataclass
class StandIn:
    """A feature network with 5 features, the means of the columns, scaled to [0, 1]."""

    fingerprint: str = "a" * 64
    resize: str = "none"
    kind: str = "classifier"
    width: int = 5

    def describe(self):
        return {"kind": self.kind, "sha256": self.fingerprint, "resize": self.resize}

    def check_shape(self, shape):
        if tuple(shape) != SHAPE:
            raise ValueError(f"Received: images {shape}.")

    def __call__(self, images):
        means = (images.mean(axis=(1, 3)) / 255.0).astype(np.float32)
        return Features(means, means)


NETWORK: Any = StandIn()


def computed(network: Any = NETWORK, source=SOURCE, split="train"):
    return references.compute(network, source, split=split, preparation=PREPARATION, batch_size=7)


# Computed and stored


def test_the_statistics_are_mean_and_covariance_of_the_features():
    rows = []
    found = references.compute(
        NETWORK, SOURCE, split="train", preparation=PREPARATION, batch_size=7, on_batch=rows.append
    )
    values = SOURCE.images.astype(np.float64).mean(axis=(1, 3)) / 255
    assert sum(rows) == found.moments.count == 30
    assert found.features is not None and found.features.dtype == np.float32
    np.testing.assert_allclose(found.features, values, rtol=1e-6)
    np.testing.assert_allclose(found.moments.mean, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.moments.covariance, np.cov(values, rowvar=False), rtol=1e-5, atol=1e-8)
    assert found.about == {
        "dataset": SOURCE.describe(),
        "split": "train",
        "preparation": PREPARATION,
        "feature_network": NETWORK.describe(),
    }


def test_statistics_are_read_back_unchanged(tmp_path):
    made = computed()
    path = tmp_path / "new" / "statistics.npz"
    made.save(path)
    found = references.load(str(path))
    assert found.moments.count == 30 and found.about == made.about
    np.testing.assert_array_equal(found.moments.mean, made.moments.mean)
    np.testing.assert_array_equal(found.moments.covariance, made.moments.covariance)
    np.testing.assert_array_equal(found.features, made.features)
    assert found.check(NETWORK, SHAPE, SOURCE.describe()) == []
    assert [file.name for file in path.parent.iterdir()] == ["statistics.npz"]
    # Other programs expect these two arrays.
    with np.load(path) as archive:
        assert archive["mu"].shape == (5,) and archive["sigma"].shape == (5, 5)


def test_features_may_be_left_out(tmp_path):
    computed().save(tmp_path / "small.npz", features=False)
    found = references.load(tmp_path / "small.npz")
    assert found.features is None and found.moments.count == 30
    found.save(tmp_path / "again.npz")
    assert references.load(tmp_path / "again.npz").features is None


def test_a_file_of_another_program_is_used_with_a_warning(tmp_path):
    np.savez(tmp_path / "theirs.npz", mu=np.arange(5, dtype=np.float32), sigma=np.eye(5, dtype=np.float32))
    found = references.load(tmp_path / "theirs.npz")
    assert found.moments.count == 0 and found.features is None and found.about is None
    assert found.moments.mean.dtype == found.moments.covariance.dtype == np.float64
    (warning,) = found.check(NETWORK, SHAPE, SOURCE.describe())
    assert "record neither their images nor their network" in warning
    # Writing it again adds nothing.
    found.save(tmp_path / "ours.npz")
    again = references.load(tmp_path / "ours.npz")
    assert again.moments.count == 0 and again.about is None


def test_asymmetry_from_rounding_in_float32_is_removed(tmp_path):
    sigma = np.eye(5, dtype=np.float32)
    sigma[0, 1] = 5e-7
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(5, np.float32), sigma=sigma)
    covariance = references.load(tmp_path / "theirs.npz").moments.covariance
    assert covariance[0, 1] == covariance[1, 0] == pytest.approx(2.5e-7)


def test_statistics_of_another_width_are_refused_even_without_a_record(tmp_path):
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(ReferenceStatisticsError, match="have 6 features, the classifier of the samples has 5"):
        references.load(tmp_path / "theirs.npz").check(NETWORK, SHAPE, None)


def test_statistics_of_images_prepared_differently_are_refused():
    model = {**SOURCE.describe(), "checksum": 1}
    found = computed()
    assert len(found.check(NETWORK, SHAPE, model, PREPARATION)) == 1
    with pytest.raises(
        ReferenceStatisticsError, match="prepared differently .*'center_crop': None.*'center_crop': 140"
    ):
        found.check(NETWORK, SHAPE, model, {**PREPARATION, "center_crop": 140})
    assert found.check(NETWORK, SHAPE, SOURCE.describe(), {**PREPARATION, "center_crop": 4}) == [], "the same images"


def test_the_cache_distinguishes_networks_and_data(monkeypatch, tmp_path):
    monkeypatch.setenv("NCSN_TF_CACHE", str(tmp_path))
    other: Any = StandIn(fingerprint="b" * 64)
    resized: Any = StandIn(resize="bilinear")
    pixels = SOURCE.images.copy()
    pixels[7, 1, 2] ^= 1
    paths = [
        references.cached_path(NETWORK, SOURCE),
        references.cached_path(other, SOURCE),
        references.cached_path(resized, SOURCE),
        references.cached_path(NETWORK, ImageSource(SOURCE.name, pixels)),
        references.cached_path(NETWORK, ImageSource(SOURCE.name, SOURCE.images[:20])),
        references.cached_path(NETWORK, ImageSource("other", SOURCE.images)),
    ]
    assert len(set(paths)) == 6
    assert paths[0] == references.cached_path(NETWORK, ImageSource(SOURCE.name, SOURCE.images.copy()))
    assert all(path.parent == tmp_path / "statistics" and path.suffix == ".npz" for path in paths)
    assert paths[0].name.startswith("to_noise_"), "the name tells people which dataset it is"


# Errors: statistics of other images or another network


def dataset(**changes):
    return {**SOURCE.describe(), **changes}


def test_statistics_by_another_network_are_refused():
    other: Any = StandIn(fingerprint="b" * 64, kind="inception")
    with pytest.raises(
        ReferenceStatisticsError, match=r"another feature network \(classifier aaaaaaaaaaaa\).*inception bbbbbbbb"
    ):
        computed().check(other, SHAPE, dataset())


def test_statistics_of_images_resized_differently_are_refused():
    other: Any = StandIn(resize="bicubic")
    with pytest.raises(ReferenceStatisticsError, match=r"resized differently \(none\) from the samples \(bicubic\)"):
        computed().check(other, SHAPE, dataset())


def test_statistics_of_another_shape_are_refused():
    with pytest.raises(
        ReferenceStatisticsError, match=r"of images \(4, 5, 1\) of path/to noise; the samples are \(4, 5, 3\)"
    ):
        computed().check(NETWORK, (4, 5, 3), dataset())


def test_statistics_of_another_dataset_are_refused():
    with pytest.raises(ReferenceStatisticsError, match="of path/to noise, the model was trained on cifar10"):
        computed().check(NETWORK, SHAPE, dataset(name="cifar10", checksum=1))
    # The checksum decides: the name of the same images may differ.
    assert computed().check(NETWORK, SHAPE, dataset(name="elsewhere")) == []


def test_another_part_of_the_dataset_gives_a_warning():
    part = dataset(images=20, checksum=1)
    (warning,) = computed(split="held_out").check(NETWORK, SHAPE, part)
    checksum = SOURCE.describe()["checksum"]
    assert f"of 30 images of path/to noise (held_out, checksum {checksum}), the model was trained on 20 of 1" in warning


def test_without_a_model_only_the_shape_is_checked():
    assert computed().check(NETWORK, SHAPE, None) == []
    with pytest.raises(ReferenceStatisticsError, match="the samples are"):
        computed().check(NETWORK, (8, 8, 1), None)


def test_images_that_the_network_does_not_take_are_refused():
    with pytest.raises(ValueError, match="Received: images"):
        computed(source=ImageSource("noise", random_pixels(9, 5, 4, 1)))
    with pytest.raises(ValueError, match="at least 2 rows.*Received: 1"):
        computed(source=ImageSource("noise", SOURCE.images[:1]))


# Errors: damaged files


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(ReferenceStatisticsError, match="There are no statistics .*launch.reference_statistics"):
        references.load(tmp_path / "missing.npz")
    computed().save(tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 255
    np.save(tmp_path / "array.npy", np.eye(3))
    damaged = {"cut": content[:-50], "flipped": bytes(flipped), "empty": b"", "text": b"mu and sigma"}
    damaged["array"] = (tmp_path / "array.npy").read_bytes()
    for name, broken in damaged.items():
        (tmp_path / f"{name}.npz").write_bytes(broken)
        with pytest.raises(ReferenceStatisticsError, match=rf"{name}.npz cannot be read as .npz"):
            references.load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("name", ["features", "pool_3", "activations"])
@pytest.mark.parametrize("shape", [(30, 5), (30, 1, 1, 5)])
def test_features_of_another_program_give_the_moments(tmp_path, name, shape):
    values = np.random.default_rng(0).normal(size=(30, 5))
    np.savez(tmp_path / "theirs.npz", **{name: values.reshape(shape)})
    found = references.load(tmp_path / "theirs.npz")
    assert found.moments.count == 30 and found.about is None
    np.testing.assert_allclose(found.features, values, rtol=1e-6)
    np.testing.assert_allclose(found.moments.mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.moments.covariance, np.cov(values, rowvar=False), atol=1e-6)


@pytest.mark.parametrize(
    "values", [np.zeros((1, 5)), np.zeros(5), np.full((3, 5), np.nan), np.zeros((3, 5), int), np.zeros((3, 2, 2, 5))]
)
def test_features_that_give_no_moments_are_refused(tmp_path, values):
    np.savez(tmp_path / "theirs.npz", pool_3=values)
    with pytest.raises(ReferenceStatisticsError, match=r"pool_3 must be finite floats \[N, D\]"):
        references.load(tmp_path / "theirs.npz")


@pytest.mark.parametrize(
    ("samples", "real", "differ"),
    [
        ({"JPEG": 296}, {"PNG": 296}, True),
        ({"PNG": 10}, {"JPEG": 296}, True),
        ({}, {"JPEG": 296}, True),
        ({"JPEG": 5, "PNG": 5}, {"PNG": 9}, True),
        ({"JPEG": 3}, {"JPEG": 296}, False),
        ({"PNG": 3}, {}, False),
        ({"TIFF": 3}, {"PNG": 9, "BMP": 1}, False),
        ({"JPEG": 3}, None, False),
    ],
)
def test_lossy_compression_of_one_side_is_a_caveat(samples, real, differ):
    about = {**(computed().about or {})}
    about["dataset"] = {**about["dataset"], **({} if real is None else {"formats": real})}
    if real is None:
        del about["dataset"]["formats"]
    assert bool(dataclasses.replace(computed(), about=about).compare_formats(samples)) == differ


@pytest.mark.parametrize("names", [("mu",), ("sigma",), ("count",), ()])
def test_mu_and_sigma_are_needed(tmp_path, names):
    np.savez(tmp_path / "part.npz", **{name: np.eye(2) for name in names})
    with pytest.raises(
        ReferenceStatisticsError,
        match=rf"hold `mu` and `sigma`.*part.npz holds \[{', '.join(map(repr, sorted(names)))}",
    ):
        references.load(tmp_path / "part.npz")


ABOUT = {
    "dataset": SOURCE.describe(),
    "split": "train",
    "preparation": PREPARATION,
    "feature_network": NETWORK.describe(),
}


def without(*path):
    content = json.loads(json.dumps(ABOUT))
    place = content
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return json.dumps(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": np.zeros(4)}, r"\(4,\) and \(5, 5\)"),
        ({"mu": np.zeros((1, 5))}, "mean"),
        ({"sigma": np.ones(5)}, r"covariance \[D, D\]"),
        ({"sigma": np.float64(1.0)}, r"covariance \[D, D\]"),
        ({"sigma": np.ones((5, 5, 1))}, r"covariance \[D, D\]"),
        ({"mu": np.array([0, 0, np.nan, 0, 0])}, "finite"),
        ({"sigma": np.diag([1, 1, np.inf, 1, 1])}, "finite"),
        ({"sigma": np.diag([1, 1, -0.5, 1, 1])}, "eigenvalues range from -0.5 to 1"),
        ({"sigma": np.eye(5) + 3.0 * (np.ones((5, 5)) - np.eye(5))}, "eigenvalues range from -2"),
        ({"mu": np.zeros(5) + 1j}, "mu must hold real numbers, not complex128"),
        ({"sigma": np.eye(5) + 1j}, "sigma must hold real numbers"),
        ({"sigma": np.triu(np.ones((5, 5)))}, "symmetric"),
        ({"mu": np.array(list("abcde"))}, "no usable statistics"),
        ({"count": np.array(1)}, "at least 2 rows"),
        ({"count": np.array(-5)}, "at least 2 rows"),
        ({"count": np.array([30, 30])}, "no usable statistics"),
        ({"count": np.array(29)}, r"features \(30, 5\) do not fit count 29"),
        ({"features": np.zeros((30, 4))}, r"features \(30, 4\) do not fit count 30 and mu \(5,\)"),
        ({"features": np.zeros(30)}, r"features \(30,\) do not fit"),
        ({"features": np.full((30, 5), np.nan, np.float32)}, "finite floats. Received: float32"),
        ({"features": np.full((30, 5), "a")}, "finite floats. Received: <U1"),
        ({"about": np.array("{")}, "no usable statistics"),
        ({"about": np.array("[]")}, "no usable statistics"),
        ({"about": np.array("7")}, "no usable statistics"),
        ({"about": np.array(json.dumps({**ABOUT, "dataset": dataset(shape=None)}))}, "no usable statistics"),
        ({"about": np.array(without("split"))}, "split"),
        *(({"about": np.array(without("dataset", key))}, key) for key in ("name", "images", "shape", "checksum")),
        *(({"about": np.array(without("feature_network", key))}, key) for key in NETWORK.describe()),
    ],
)
def test_impossible_values_are_refused(tmp_path, changes, message):
    computed().save(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(tmp_path / "bad.npz", **{**arrays, **changes})
    with pytest.raises(ReferenceStatisticsError, match=f"bad.npz.*{message}"):
        references.load(tmp_path / "bad.npz")
