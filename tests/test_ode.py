"""Adaptive Runge-Kutta methods against SciPy, which solves each row alone, and what must hold for any row."""

import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf
import tensorflow_probability as tfp

from ncsn_tf import ode

TURN = np.array([[-1.0, 3.0], [-3.0, -0.5]])
SCIPYS = {"dormand_prince": "RK45", "bogacki_shampine": "RK23"}


def turning(y, t):
    """A damped rotation whose speed changes, with a part that is not linear."""
    turned = tf.matmul(y, tf.constant(TURN.T, y.dtype)) * tf.cos(3.0 * t)[:, None]
    return turned - y**3 / (1.0 + y**2)


def starts():
    """Five rows of quite different sizes, which need quite different numbers of steps."""
    return np.random.default_rng(0).normal(size=(5, 2)) * np.array([1.0, 10.0, 0.1, 100.0, 1.0])[:, None]


def scipys(y, start, end, method, tolerance):
    """(y, evaluations) of one row."""

    def derivative(t, y):
        return TURN @ y * np.cos(3.0 * t) - y**3 / (1.0 + y**2)

    found = scipy.integrate.solve_ivp(
        derivative, (start, end), y, method=SCIPYS[method], rtol=tolerance, atol=tolerance
    )
    return found.y[:, -1], found.nfev


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
@pytest.mark.parametrize("method", ode.METHODS)
def test_rows_take_the_steps_that_scipy_takes_for_each_alone(method, tolerance, backwards):
    ends = np.linspace(0.5, 3.0, 5)
    start, end = (ends, np.zeros(5)) if backwards else (np.zeros(5), ends)

    @tf.function
    def solved():
        options = {"rtol": tolerance, "atol": tolerance, "method": ode.METHODS[method]}
        found = ode.solve(turning, starts(), start, end, **options)
        return found.y, found.evaluations, found.converged

    found = ode.Solution(*solved())
    for row, y in enumerate(starts()):
        expected, evaluations = scipys(y, start[row], end[row], method, tolerance)
        np.testing.assert_allclose(found.y[row], expected, rtol=1e-9, atol=1e-12)
        assert found.evaluations[row] == evaluations
    assert found.check() is found


def test_a_row_does_not_depend_on_the_others():
    compiled = tf.function(lambda y: ode.solve(turning, y, 0.0, 2.0).y)
    y = tf.constant(starts(), tf.float32)
    others = tf.tensor_scatter_nd_update(y * 30.0, [[2]], y[2:3])
    np.testing.assert_array_equal(compiled(y)[2], compiled(others)[2])


def test_graphs_and_xla_give_the_same_in_float32():
    y = tf.constant(starts(), tf.float32)
    expected = ode.solve(turning, tf.cast(y, tf.float64), 0.0, 2.0, rtol=1e-9, atol=1e-9).y
    for jit_compile in (False, True):
        function = tf.function(lambda y: ode.solve(turning, y, 0.0, 2.0).y, jit_compile=jit_compile)
        np.testing.assert_allclose(function(y), expected, rtol=1e-3, atol=1e-4)


def test_tfps_solver_agrees():
    y = starts()[:1]
    solver = tfp.math.ode.DormandPrince(rtol=1e-8, atol=1e-8)
    expected = solver.solve(lambda t, y: turning(y, t[None]), tf.constant(0.0, tf.float64), y, [2.0]).states[0]
    np.testing.assert_allclose(ode.solve(turning, y, 0.0, 2.0, rtol=1e-8, atol=1e-8).y, expected, rtol=1e-6)


def test_rows_that_are_there_already_take_no_steps():
    y = starts()
    found = ode.solve(turning, y, 0.0, np.array([0.0, 1.0, 0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found.y[::2], y[::2])
    assert (found.evaluations.numpy()[::2] == 0).all() and found.converged.numpy().all()


def test_rows_of_images_have_one_step_size_each():
    """The error of a row is the root mean square over all its axes."""
    y = np.random.default_rng(1).normal(size=(3, 4, 5, 2))
    found = ode.solve(lambda y, t: -y, y, 0.0, 1.0)
    np.testing.assert_allclose(found.y, y * np.exp(-1.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("derivative", "options"),
    [
        (lambda y, t: y**2, {}),  # infinite at t = 1 / y
        (lambda y, t: tf.where(y > 2.0, np.nan, y), {}),
        (lambda y, t: y, {"max_steps": 2, "rtol": 1e-9, "atol": 1e-9}),
    ],
)
def test_rows_that_do_not_converge_are_named(derivative, options):
    y = np.array([[0.1], [1.9], [0.1], [1.9]])
    end = np.array([0.2, 3.0, 0.0, 3.0])
    found = ode.solve(derivative, y, 0.0, end, **{"rtol": 1e-3, "atol": 1e-3, **options})
    np.testing.assert_array_equal(found.converged, [not options, False, True, False])
    np.testing.assert_array_equal(np.isnan(found.y[:, 0]), ~found.converged.numpy())
    with pytest.raises(ode.NotConvergedError, match="of 4 rows did not converge: rows .*1.*3"):
        found.check()


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.ones((2, 1)), {"rtol": 0.0}, "rtol must be at least .*float64 can resolve.*Received: 0.0"),
        (np.ones((2, 1), np.float32), {"rtol": 1e-8}, "float32 can resolve, and below 1. Received: 1e-08"),
        (np.ones((2, 1)), {"rtol": 1.0}, "below 1. Received: 1.0"),
        (np.ones((2, 1)), {"atol": 0.0}, "atol must be positive and finite. Received: 0.0"),
        (np.ones((2, 1)), {"atol": np.nan}, "atol must be positive and finite. Received: nan"),
        (np.ones((2, 1)), {"max_steps": 0}, "max_steps must be at least 1. Received: 0"),
        (np.ones((2, 1), int), {}, "floats .* of 32 or 64 bits. Received: int64"),
        (np.float64(1.0), {}, "Received: float64 of shape"),
    ],
)
def test_impossible_problems_are_refused(y, options, message):
    with pytest.raises(ValueError, match=message):
        ode.solve(turning, y, 0.0, 1.0, **options)


def test_times_far_from_zero_are_reached_in_float32():
    """The first size of a zero derivative is below what float32 resolves there: it is raised, as SciPy does."""
    found = ode.solve(lambda y, t: 0.0 * y, tf.ones([2, 1]), 100.0, 200.0)
    np.testing.assert_array_equal(found.y, 1.0)
    assert found.converged.numpy().all()
