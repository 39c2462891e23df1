"""Adam for summed gradients, learning-rate schedules and the loss scale, against their formulae."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf.training.optimizers import LossScale, ReducedAdam, SkippingAdam, WarmUp, learning_rate

NONE = {"warmup_steps": 0, "decay": None, "decay_steps": None, "final_fraction": 0.0}


def rates(schedule, steps):
    return [float(schedule(tf.constant(step))) for step in steps]


def test_without_a_schedule_the_rate_is_a_number():
    assert learning_rate(3e-4, **NONE) == 3e-4


def test_the_warm_up_is_linear_from_its_first_to_its_last_step():
    schedule = learning_rate(2.0, **{**NONE, "warmup_steps": 4})
    np.testing.assert_allclose(rates(schedule, range(6)), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0], rtol=1e-6)


CLOSED_FORMS = {
    "cosine": lambda s: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(s, 100) / 100)),
    "linear": lambda s: 1.0 - 0.9 * min(s, 100) / 100,
    "exponential": lambda s: 0.1 ** (s / 100),
}


@pytest.mark.parametrize("decay", CLOSED_FORMS)
def test_decays_follow_their_closed_forms_under_a_warm_up(decay):
    schedule = learning_rate(3.0, warmup_steps=10, decay=decay, decay_steps=100, final_fraction=0.1)
    steps = [0, 5, 9, 10, 50, 99, 100, 150]
    expected = [3.0 * CLOSED_FORMS[decay](s) * min(1.0, (s + 1) / 10) for s in steps]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5)
    again = WarmUp.from_config(schedule.get_config())
    np.testing.assert_allclose(rates(again, steps), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"decay": "cosine"}, "decay_steps"),
        ({"decay_steps": 5}, "decay_steps"),
        ({"decay": "cosine", "decay_steps": 0}, "decay_steps"),
        ({"decay": "cosin", "decay_steps": 5}, "cosin"),
        ({"decay": "exponential", "decay_steps": 5}, "final_fraction"),
        ({"final_fraction": 1.5}, "final_fraction"),
    ],
)
def test_impossible_schedules_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        learning_rate(1.0, **{**NONE, **changes})


def adam_by_hand(gradients, rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7, start=1.0):
    """Kingma & Ba 2015, Algorithm 1, in NumPy; a gradient of None is a step that only increments the count."""
    weight, m, v = np.float64(start), 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        if gradient is None:
            continue
        m, v = beta_1 * m + (1 - beta_1) * gradient, beta_2 * v + (1 - beta_2) * gradient**2
        # Keras adds epsilon to sqrt(v) before the bias correction of the second moment, as in the paper's second form.
        weight -= rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (math.sqrt(v) + epsilon)
    return weight


def take(optimizer, weight, gradients):
    step = tf.function(lambda gradient: optimizer.apply([gradient], [weight]), autograph=False)
    for gradient in gradients:
        step(tf.constant(gradient))
    return float(weight.value)


def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    weight = keras.Variable(1.0)
    optimizer = SkippingAdam(0.1)
    taken = take(optimizer, weight, [0.5, math.inf, math.nan, -2.0])
    assert taken == pytest.approx(adam_by_hand([0.5, None, None, -2.0]), rel=1e-5)
    assert int(optimizer.iterations) == 4


def test_reduced_adam_is_adam():
    taken = take(ReducedAdam(0.1), keras.Variable(1.0), [0.5, -2.0, 3.0])
    assert taken == pytest.approx(adam_by_hand([0.5, -2.0, 3.0]), rel=1e-5)


@pytest.mark.parametrize("make", [ReducedAdam, SkippingAdam])
def test_gradients_are_not_summed_over_the_replicas(make):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        weight = keras.Variable(1.0)
        optimizer = make(0.1, epsilon=1.0)  # so that the step depends on the size of the gradient
        optimizer.build([weight])

    @tf.function(autograph=False)
    def step(gradient):
        # A copy on the replica's own device, without which Keras's reduction would fail instead of summing.
        strategy.run(lambda: optimizer.apply([tf.identity(gradient)], [weight]))

    for gradient in (0.5, -2.0):
        step(tf.constant(gradient))
    assert float(weight.value.numpy()) == pytest.approx(adam_by_hand([0.5, -2.0], epsilon=1.0), rel=1e-5)


def owner_of(name):
    """The class of Keras that defines a method of its Adam."""
    return next(base for base in keras.optimizers.Adam.__mro__ if name in vars(base))


def test_a_keras_without_the_private_method_is_refused(monkeypatch):
    monkeypatch.delattr(owner_of("_all_reduce_sum_gradients"), "_all_reduce_sum_gradients")
    with pytest.raises(RuntimeError, match=rf"in Keras {keras.__version__}, .*has no method.*Keras 3\.15\.0 is known"):
        ReducedAdam(0.1)


def test_a_keras_that_does_not_call_the_private_method_is_refused(monkeypatch):
    monkeypatch.setattr(owner_of("_backend_update_step"), "_backend_update_step", lambda *_: None)
    optimizer = ReducedAdam(0.1)
    with pytest.raises(RuntimeError, match=rf"in Keras {keras.__version__}, .*does not call _all_reduce_sum_gradients"):
        take(optimizer, keras.Variable(1.0), [0.5])


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_loss_scale_halves_doubles_and_stays_within_its_bounds(replicas):
    strategy = tf.distribute.get_strategy()
    if replicas == 2:
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        scale = LossScale(initial=4.0, interval=3)
    update = tf.function(lambda finite: scale.update(strategy, finite), autograph=False)

    def run(*outcomes):
        seen = []
        for finite in outcomes:
            update(tf.constant(finite))
            seen.append(float(scale.scale.numpy()))
        return seen

    assert run(True, True, True) == [4.0, 4.0, 8.0]
    assert run(True, True, False) == [8.0, 8.0, 4.0], "a step that overflows halves the scale"
    assert run(True, True, True) == [4.0, 4.0, 8.0], "and the count starts again"
    assert run(*[False] * 4) == [4.0, 2.0, 1.0, 1.0]
    assert bool(scale.at_its_end())
    scale.scale.assign(2.0**24)
    assert run(True, True, True)[-1] == 2.0**24
    if replicas == 2:
        assert len({float(v.numpy()) for v in strategy.experimental_local_results(scale.scale)}) == 1
