"""Inpainting against the conditional Gaussian in closed form; what is known stays; a row is an island."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import score, times
from ncsn_tf.guidance import inpainting
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.sde import VE
from tests.support.oracles import standard_error_of_variance

SDE = VE(sigma_max=1.0, sigma_min=0.15)
TIMES = times.uniform(6)
EPSILON = 0.02
STEP = langevin.Langevin(langevin.annealed(SDE, EPSILON))
MEAN, COVARIANCE = 0.4, np.array([[0.09, 0.072], [0.072, 0.09]])
KNOWN = np.array([True, False]).reshape(1, 1, 2, 1)


def pair_score(x, t):
    """The exact score of two correlated pixels, N(m, S + sigma^2 I)."""
    sigma = SDE.marginal(t)[1][:, None, None]
    precision = tf.linalg.inv(tf.constant(COVARIANCE, tf.float32) + sigma**2 * tf.eye(2))
    return tf.reshape(-tf.linalg.matvec(precision, tf.reshape(x, [-1, 2]) - MEAN), tf.shape(x))


def sampler(reference="level", score_fn=pair_score, steps=40, **options):
    condition = inpainting.condition(SDE, reference)
    options = {"segments": len(TIMES), **options}
    return driver.Sampler(STEP, score_fn, driver.dwell(TIMES, steps), condition=condition, **options)


def complete(made, images, known, **options):
    options = {"run_seed": 0, **options}
    return np.concatenate(
        [samples.x.numpy() for samples in inpainting.complete(made, driver.uniform_prior, images, known, **options)]
    )


@pytest.mark.parametrize("reference", inpainting.REFERENCES)
def test_the_unknown_follows_its_conditional_law(reference):
    """Mean and variance of x_2 | x_1 as Langevin steps of this size have them, for one y a level and for one a step."""
    given, count, sigma = 0.9, 6000, 0.15
    images = np.full([1, 1, 2, 1], given, np.float32)
    x = complete(sampler(reference, jit_compile=True), images, KNOWN, completions=count, batch_size=count)
    (c11, c12), (_, c22) = COVARIANCE + sigma**2 * np.eye(2)
    slope, conditional = c12 / c11, c22 - c12**2 / c11
    shrink = 1.0 - EPSILON / (2.0 * conditional)
    own = EPSILON / (1.0 - shrink**2)
    followed = (1.0 - shrink) ** 2 / (1.0 - shrink**2) if reference == "step" else 1.0
    variance = own + followed * (slope * sigma) ** 2
    unknown = x[:, 0, 1, 0].astype(np.float64)
    assert abs(unknown.mean() - (MEAN + slope * (given - MEAN))) < 4.0 * np.sqrt(variance / count)
    assert abs(unknown.var(ddof=1) - variance) < 4.0 * standard_error_of_variance(variance, count)


@pytest.mark.parametrize("reference", inpainting.REFERENCES)
def test_what_is_known_walks_under_the_noise_of_its_level_and_comes_back_exactly(reference):
    images = np.random.default_rng(0).random([400, 4, 4, 3], np.float32)
    known = np.zeros([400, 4, 4, 1], bool)
    known[:, :, :2] = True
    frames = []
    made = sampler(reference, score_fn=lambda x, t: tf.zeros_like(x), steps=1, segments=len(TIMES))
    x = complete(made, images, known, batch_size=400, on_frame=lambda first, level, x: frames.append(x.numpy()))
    np.testing.assert_array_equal(x[:, :, :2], images[:, :, :2])
    assert np.all(x[:, :, 2:] != images[:, :, 2:])
    for frame, sigma in zip(frames, SDE.marginal(TIMES)[1].numpy(), strict=True):
        noise_of_known = (frame - images)[:, :, :2].ravel()
        assert abs(noise_of_known.mean()) < 4.0 * sigma / np.sqrt(noise_of_known.size)
        assert abs(noise_of_known.var() / sigma**2 - 1.0) < 4.0 * np.sqrt(2.0 / noise_of_known.size)
    parts = [(frame - images)[:, :, :2].ravel() for frame in frames]
    together = np.corrcoef(parts) - np.eye(len(parts))
    assert np.abs(together).max() < 5.0 / np.sqrt(parts[0].size), "levels must draw noises of their own"


def test_one_noisy_reference_lasts_a_level_or_a_step():
    for reference, alike in (("level", True), ("step", False)):
        frames = []
        made = driver.Sampler(
            STEP,
            lambda x, t: tf.zeros_like(x),
            driver.dwell(TIMES[-2:], 2),
            segments=4,
            condition=inpainting.condition(SDE, reference),
        )
        images = np.full([2, 1, 2, 1], 0.5, np.float32)
        complete(made, images, np.repeat(KNOWN, 2, 0), on_frame=lambda _, __, x, seen=frames: seen.append(x.numpy()))
        seen = [frame[:, 0, 0, 0] for frame in frames]
        assert (seen[0] == seen[1]).all() == alike and (seen[2] == seen[3]).all() == alike
        assert (seen[1] != seen[2]).all() and seen[0][0] != seen[0][1]


def test_a_completion_depends_on_seed_image_and_its_number_alone():
    images = np.random.default_rng(1).random([3, 1, 2, 1], np.float32)
    known = np.repeat(KNOWN, 3, 0)
    made = sampler(steps=3)
    whole = complete(made, images, known, completions=2)
    assert len(np.unique(whole[:, 0, 1, 0])) == 6
    for options in ({"batch_size": 4}, {"batch_size": 1}):
        np.testing.assert_allclose(complete(made, images, known, completions=2, **options), whole, atol=2e-6)
    np.testing.assert_allclose(
        complete(made, images[1:], known[1:], completions=2, first_image=1), whole[2:], atol=2e-6
    )
    np.testing.assert_allclose(complete(made, images, known, completions=5)[::5], whole[::2], atol=2e-6)
    np.testing.assert_allclose(
        complete(sampler(steps=3, jit_compile=True), images, known, completions=2), whole, atol=5e-6
    )
    assert not np.allclose(complete(made, images, known, completions=2, run_seed=1)[:, 0, 1], whole[:, 0, 1])
    hidden = images.copy()
    hidden[:, :, 1] = np.nan
    np.testing.assert_array_equal(complete(made, hidden, known, completions=2), whole)


def test_it_ends_with_a_denoising_step_where_the_sampler_does():
    made = sampler(steps=2, finish=lambda score_fn, x, t: score.denoise(score_fn, SDE, x, t))
    samples = next(
        inpainting.complete(made, driver.uniform_prior, np.full([1, 1, 2, 1], 0.5, np.float32), KNOWN, run_seed=0)
    )
    assert samples.evaluations == 2 * len(TIMES) + 1
    assert samples.x[0, 0, 0, 0] == 0.5


IMAGES = np.full([2, 4, 4, 1], 0.5, np.float32)
HALF = np.zeros([2, 4, 4, 1], bool)
HALF[:, :2] = True


@pytest.mark.parametrize(
    ("images", "known", "message"),
    [
        (IMAGES[:0], HALF[:0], "Images are floats"),
        (IMAGES[0], HALF[0], "Images are floats"),
        ((IMAGES * 255).astype(np.uint8), HALF, "uint8"),
        (IMAGES * 255, HALF, "127.5"),
        (IMAGES - 1.0, HALF, "-0.5"),
        (np.full_like(IMAGES, np.nan), HALF, "NaN"),
        (IMAGES, HALF[:1], r"\(1, 4, 4, 1\)"),
        (IMAGES, HALF.astype(np.float32), "float32"),
        (IMAGES, HALF[:, :3], r"\(2, 3, 4, 1\)"),
        (IMAGES, np.zeros_like(HALF), "image 0 knows no pixel"),
        (IMAGES, np.ones_like(HALF), "image 0 knows every pixel"),
    ],
)
def test_what_is_no_image_or_no_mask_is_refused(images, known, message):
    with pytest.raises(ValueError, match=message):
        inpainting.check(images, known)


def test_numbers_and_references_out_of_range_are_refused():
    with pytest.raises(ValueError, match="completions=0"):
        complete(sampler(), IMAGES, HALF, completions=0)
    with pytest.raises(ValueError, match="level or step"):
        inpainting.condition(SDE, "always")
