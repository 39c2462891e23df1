"""Seams: the pairs of neighbours that count, compared with pairs found by hand."""

import numpy as np

from ncsn_tf.guidance import seams


def test_pairs_across_and_inside_are_distinguished():
    # Known: the left two columns of three rows of four; across: 3 pairs; inside: 3 horizontal and 4 vertical pairs.
    known = np.zeros([1, 3, 4, 1], bool)
    known[:, :, :2] = True
    original = np.broadcast_to(0.01 * np.arange(4.0)[None, None, :, None], [1, 3, 4, 1])
    completed = original.copy()
    completed[:, :, 2:] += 0.5
    found = seams.measure(completed, original, known)
    np.testing.assert_allclose(found.across, 0.51)
    np.testing.assert_allclose(found.across_original, 0.01)
    np.testing.assert_allclose(found.inside, 0.01 * 3 / 7)
    np.testing.assert_allclose(found.inside_original, found.inside)


def test_without_pairs_the_mean_is_nan():
    known = np.array([True, False, True]).reshape(1, 1, 3, 1)
    found = seams.measure(np.zeros([1, 1, 3, 1]), np.zeros([1, 1, 3, 1]), known)
    assert found.across == 0.0 and np.isnan(found.inside)
