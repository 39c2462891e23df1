"""Patches: their positions, their grey values and their whitening."""

import subprocess
import sys

import numpy as np
import pytest

from ncsn_tf.data import images, patches
from ncsn_tf.data.images import ImageSource
from tests.support.tiny import random_pixels

GREY = ImageSource("grey", np.arange(2 * 6 * 7, dtype=np.uint8).reshape(2, 6, 7, 1))  # every value identifies its pixel


def correlated(count=400, pixels=9, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, pixels)) @ rng.standard_normal((pixels, pixels)) + rng.standard_normal(pixels)


# Cutting


def test_all_patches_are_the_windows_of_the_images_each_once():
    found = patches.extract(GREY, size=3, count=2 * 4 * 5)
    windows = np.lib.stride_tricks.sliding_window_view(GREY.images[..., 0], (3, 3), axis=(1, 2)).reshape(-1, 9)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], windows / 255.0, rtol=1e-15)


def test_the_seed_fixes_the_patches_and_positions_are_uniform():
    first = patches.extract(GREY, size=3, count=10, seed=1)
    np.testing.assert_array_equal(patches.extract(GREY, size=3, count=10, seed=1), first)
    assert (patches.extract(GREY, size=3, count=10, seed=2) != first).any()
    corners = np.concatenate([patches.extract(GREY, size=3, count=20, seed=seed)[:, 0] for seed in range(300)])
    _, counts = np.unique(corners, return_counts=True)
    assert len(counts) == 40  # each of 40 positions is drawn for half of the seeds
    assert np.abs(counts - 150).max() < 5 * np.sqrt(300 / 4)


def test_colour_becomes_luma():
    colour = ImageSource("colour", random_pixels(1, 4, 4, 3))
    found = patches.extract(colour, size=4, count=1)
    expected = colour.images.reshape(1, 16, 3) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(255 * found - expected).max() < 0.51


def test_patches_are_cut_from_sample_images_and_datasets():
    photographs = patches.sample_images()
    assert photographs.images.shape == (2, 427, 640, 3)
    assert patches.extract(photographs, count=100).shape == (100, 64)
    assert patches.extract(images.load("digits", "held_out"), size=4, count=50).shape == (50, 16)


def test_patches_need_no_tensorflow():
    code = "import sys; from ncsn_tf.data import patches; patches.sample_images(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tensorflow" not in loaded and "sklearn" in loaded


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (GREY, {"size": 7}, r"within an image of 6x7 pixels; choose size in 1..6. Received: size=7"),
        (GREY, {"size": 0}, "Received: size=0"),
        (GREY, {"size": 3, "count": 41}, "'grey' has 40 patches of 3x3 pixels; ask for 1 to 40.*Received: count=41"),
        (GREY, {"size": 3, "count": 0}, "Received: count=0"),
        (ImageSource("two", random_pixels(1, 9, 9, 2)), {"size": 3, "count": 4}, "Only 1 and 3 channels"),
    ],
)
def test_extract_refuses(source, options, message):
    with pytest.raises(ValueError, match=message):
        patches.extract(source, **options)


# Whitening


@pytest.mark.parametrize("dimensions", [None, 4])
def test_whitened_patches_have_unit_covariance(dimensions):
    x = correlated()
    whitening = patches.Whitening.of(x, dimensions)
    z = whitening.apply(x)
    kept = dimensions or 9
    assert z.shape == (400, kept)
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(z.T @ z / 400, np.eye(kept), atol=1e-10)
    np.testing.assert_allclose(whitening.matrix @ whitening.inverse, np.eye(kept), atol=1e-10)


def test_kept_dimensions_are_those_of_greatest_variance():
    x = correlated()
    whitening = patches.Whitening.of(x, 4)
    variances = np.linalg.eigvalsh(np.cov(x, rowvar=False, bias=True))[::-1]
    restored = whitening.apply(x) @ whitening.inverse.T + whitening.mean
    assert np.sum((x - restored) ** 2) / len(x) == pytest.approx(variances[4:].sum(), rel=1e-9)
    np.testing.assert_allclose(np.sum(whitening.inverse**2, axis=0), variances[:4], rtol=1e-9)


def test_removing_the_local_mean_removes_one_dimension():
    x = patches.remove_local_mean(correlated())
    np.testing.assert_allclose(x.mean(1), 0.0, atol=1e-12)
    whitening = patches.Whitening.of(x)
    assert whitening.matrix.shape == (8, 9)
    np.testing.assert_allclose(whitening.inverse.sum(0), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("x", "dimensions", "message"),
    [
        (patches.remove_local_mean(correlated()), 9, "400 patches of 9 pixels span 8 .*Received: dimensions=9"),
        (correlated(), 0, "at least 1.*Received: dimensions=0"),
        (np.column_stack([correlated(), np.ones(400)]), 10, "span 9 dimensions: pixels are constant"),
        (np.ones((50, 9)), None, "span 0 dimensions"),
        (np.repeat(correlated(4), 9, axis=0), 9, "span 3 dimensions.*too few patches differ"),
        (correlated(5), 9, "5 patches of 9 pixels span 4"),
        (np.full((5, 9), np.nan), None, "finite matrix.*Received: shape \\(5, 9\\), 45 values not finite"),
        (np.zeros(9), None, r"matrix \[N, P\]"),
    ],
)
def test_whitening_refuses(x, dimensions, message):
    with pytest.raises(ValueError, match=message):
        patches.Whitening.of(x, dimensions)
