"""The training step: the same on any number of replicas, resumable, and stopped by what is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import objectives, random, score, time_draws
from ncsn_tf.data import pipeline
from ncsn_tf.objectives import NonFiniteLossError
from ncsn_tf.score import EnergyModel, ScoreModel
from ncsn_tf.training.optimizers import LossScale, ReducedAdam, SkippingAdam
from tests.support.tiny import BATCH, SDE, SOURCE, TIMES, TinyNetwork, batches, make, run


@pytest.fixture(scope="module")
def reference():
    trainer = make()
    return trainer, run(trainer, 6)


def test_a_step_is_adam_on_the_mean_loss(reference):
    """The first loss, gradient norm and update, from the pieces and with Adam written out."""
    trainer = make()
    before = trainer.network.get_weights()
    batch = next(iter(pipeline.training_batches(SOURCE, global_batch_size=BATCH, seed=0)))
    root = random.seed(0)
    level = random.integers(random.per_example(random.fold(root, random.Stream.LEVEL), batch["example"]), len(TIMES))
    z = random.normal(random.per_example(random.fold(root, random.Stream.PERTURBATION), batch["example"]), (4, 4, 1))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            objectives.annealed_denoising(trainer.model.score, SDE, batch["image"], tf.gather(TIMES, level), z)
        )
    gradients = tape.gradient(loss, trainer.network.trainable_variables)
    result = reference[1][0]
    assert result.loss == pytest.approx(float(loss), rel=1e-5)
    assert result.gradient_norm == pytest.approx(float(tf.linalg.global_norm(gradients)), rel=1e-5)
    run(trainer, 1)
    # Adam's first step is the learning rate times the gradient's sign wherever the gradient exceeds epsilon by far.
    for old, new, gradient in zip(before, trainer.network.get_weights(), gradients, strict=True):
        clear = np.abs(gradient) > 1e-4
        np.testing.assert_allclose((new - old)[clear], -1e-2 * np.sign(gradient)[clear], rtol=1e-3)


def test_bins_get_their_own_losses(reference):
    trainer = make()
    result = trainer.run(batches(trainer), 6)
    assert result.steps == 6 and result.bin_losses.shape == (4,)
    assert result.loss == pytest.approx(np.mean([r.loss for r in reference[1]]), rel=1e-5)
    assert np.nanmin(result.bin_losses) <= result.loss <= np.nanmax(result.bin_losses)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_two_replicas_train_as_one(reference, jit_compile):
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trainer = make(mirrored, jit_compile=jit_compile)
    results = run(trainer, 6)
    for ours, theirs in zip(results, reference[1], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-5)
    for ours, theirs in zip(trainer.average.get_weights(), reference[0].average.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # Adam forgives a gradient summed twice; its moments do not.
    for ours, theirs in zip(trainer.optimizer.variables, reference[0].optimizer.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-5)


def test_xla_trains_like_the_plain_graph(reference):
    results = run(make(jit_compile=True), 6)
    for ours, theirs in zip(results, reference[1], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)


OBJECTIVES = {
    "exact": (lambda f, x, t, z: objectives.annealed_exact(f, SDE, x, t, z), None),
    "swept": (lambda f, x, t, z: objectives.annealed_exact(f, SDE, x, t, z, directions_at_once=6), None),
    "sliced": (
        lambda f, x, t, z, v: objectives.annealed_sliced(f, SDE, x, t, z, v),
        lambda rows, shape: random.rademacher(rows, (2, *shape)),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_on_two_replicas_as_on_one(name):
    objective, draw_slices = OBJECTIVES[name]
    strategies = (None, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    one, two = (make(strategy, objective=objective, draw_slices=draw_slices) for strategy in strategies)
    for ours, theirs in zip(run(two, 3), run(one, 3), strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-4)


def test_an_energy_trains_through_the_adapter():
    """TinyNetwork summed over its pixels is an energy; its score is learnt by second derivatives, on two replicas."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    class Energy(TinyNetwork):
        def call(self, x, condition, labels=None, dropout_seeds=None):
            return tf.reduce_sum(super().call(x, condition), axis=(1, 2, 3))

    trainer = make(strategy, network=Energy, model=lambda net: EnergyModel(net, SDE, score.nearest_level(TIMES)))
    losses = [result.loss for result in run(trainer, 20)]
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_weights_without_a_gradient_are_refused():
    """A loss without a gradient, as an op without a second-order gradient gives it, must not train silently."""
    blocked = make(objective=lambda f, x, t, z: tf.stop_gradient(objectives.annealed_denoising(f, SDE, x, t, z)))
    with pytest.raises(ValueError, match="no gradient in .*kernel"):
        run(blocked, 1)


def test_slices_belong_to_the_example_and_the_step():
    """The sliced loss of the first batch, from the pieces."""
    objective, draw_slices = OBJECTIVES["sliced"]
    trainer = make(objective=objective, draw_slices=draw_slices)
    batch = next(iter(pipeline.training_batches(SOURCE, global_batch_size=BATCH, seed=0)))

    def rows(stream):
        return random.per_example(random.fold(random.seed(0), stream), batch["example"])

    t = tf.gather(TIMES, random.integers(rows(random.Stream.LEVEL), len(TIMES)))
    z = random.normal(rows(random.Stream.PERTURBATION), (4, 4, 1))
    v = random.rademacher(rows(random.Stream.SLICES), (2, 4, 4, 1))
    expected = tf.reduce_mean(objective(trainer.model.score, batch["image"], t, z, v))
    assert run(trainer, 1)[0].loss == pytest.approx(float(expected), rel=1e-5)


def test_the_average_follows_its_recursion_with_warm_up():
    trainer = make(decay=0.5)
    average = [w.copy() for w in trainer.network.get_weights()]
    for n in range(1, 8):
        run(trainer, 1)
        d = min(0.5, (1 + n) / (10 + n))
        average = [a + (1 - d) * (w - a) for a, w in zip(average, trainer.network.get_weights(), strict=True)]
    for ours, expected in zip(trainer.average.get_weights(), average, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_an_impossible_decay_is_refused(decay):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        make(decay=decay)


def test_the_first_loss_that_is_not_finite_stops_the_loop_and_is_reported():
    def poisoned(score_fn, x, t, z):
        losses = objectives.annealed_denoising(score_fn, SDE, x, t, z)
        return losses / tf.cast(trainer.optimizer.iterations.value != 3, tf.float32)

    trainer = make(objective=poisoned)
    with pytest.raises(NonFiniteLossError, match="Step 4 is not finite"):
        trainer.run(batches(trainer), 20)
    assert trainer.step == 4


def held_out(trainer, batch_size):
    batches = pipeline.evaluation_batches(SOURCE, batch_size=batch_size)
    return trainer.held_out_loss(iter(batches), int(batches.cardinality()))


def test_held_out_loss_weights_examples_and_is_repeatable():
    trainer = make()
    loss, by_bin = held_out(trainer, 16)
    again, _ = held_out(trainer, 40)
    assert loss == pytest.approx(again, rel=1e-5), "padding or batch size leaked into the held-out loss"
    assert by_bin.shape == (4,) and by_bin.min() <= loss <= by_bin.max()
    run(trainer, 2)
    assert held_out(trainer, 40)[0] != again


def test_held_out_loss_is_the_same_on_two_replicas():
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trainer = make(two)

    distributed, number = pipeline.distributed_evaluation_batches(SOURCE, two, batch_size=16, limit=40)
    assert number == 3
    loss, by_bin = trainer.held_out_loss(iter(distributed), number)
    expected, expected_by_bin = held_out(make(), 16)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(by_bin, expected_by_bin, rtol=1e-5)


# Levers: they change memory and time, not the step.


@pytest.mark.parametrize("parts, replicas, jit_compile", [(2, 1, False), (8, 1, True), (2, 2, False), (4, 2, True)])
def test_accumulated_gradients_are_those_of_the_whole_batch(reference, parts, replicas, jit_compile):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else None
    trainer = make(strategy, accumulation=parts, jit_compile=jit_compile)
    for ours, theirs in zip(run(trainer, 6), reference[1], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-5)
    for ours, theirs in zip(trainer.optimizer.variables, reference[0].optimizer.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "options, said", [({"accumulation": 3}, r"accumulation=3.*\[1, 2, 4, 8\]"), ({"batch_size": 0}, "batch of 0")]
)
def test_indivisible_batches_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)
    with pytest.raises(ValueError, match="batch of 7 cannot be divided among 2 replicas"):
        make(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), batch_size=7)


@pytest.mark.parametrize("replicas", [1, 2])
def test_clipping_shortens_the_global_gradient_to_the_norm(replicas):
    """Momentum-free Adam moments show the gradient: after one step m = (1 - beta_1) g."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else None
    clip = 0.25
    moments = []
    for clip_norm in (None, clip):
        trainer = make(strategy, optimizer=lambda c=clip_norm: ReducedAdam(1e-2, global_clipnorm=c))
        result = run(trainer, 1)[0]
        assert result.gradient_norm > 2 * clip, "what is reported is the norm before clipping"
        m = [v.numpy() for v in trainer.optimizer.variables if "momentum" in v.path]
        moments.append(np.concatenate([values.reshape(-1) for values in m]) / 0.1)
    assert np.linalg.norm(moments[1]) == pytest.approx(clip, rel=1e-5)
    np.testing.assert_allclose(moments[1], moments[0] * clip / np.linalg.norm(moments[0]), rtol=1e-4, atol=1e-7)


def scaled(strategy=None, initial=2.0**10, **options):
    with (strategy or tf.distribute.get_strategy()).scope():
        loss_scale = LossScale(initial)
    return make(strategy, optimizer=lambda: SkippingAdam(1e-2, epsilon=1e-8), loss_scale=loss_scale, **options)


@pytest.mark.parametrize("replicas, jit_compile", [(1, False), (1, True), (2, False)])
def test_a_power_of_two_scales_the_loss_and_changes_nothing(reference, replicas, jit_compile):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else None
    trainer = scaled(strategy, jit_compile=jit_compile)
    for ours, theirs in zip(run(trainer, 6), reference[1], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_step_that_overflows_is_skipped_and_halves_the_scale(replicas):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else None
    trainer = scaled(strategy, initial=2.0**24)

    @tf.custom_gradient
    def as_in_half_precision(losses):
        """A gradient that is infinite beyond the largest float16, as a network of that type would have it."""
        return losses, lambda upstream: tf.where(tf.abs(upstream) * BATCH > 2.0**22, np.inf, upstream)

    trainer._objective = lambda f, x, t, z: as_in_half_precision(objectives.annealed_denoising(f, SDE, x, t, z))
    before = trainer.network.get_weights()
    result = trainer.run(batches(trainer), 2)
    for ours, theirs in zip(trainer.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert trainer.step == 2 and result.skipped == 2 and float(trainer.loss_scale.scale.numpy()) == 2.0**22
    assert run(trainer, 1)[0].skipped == 0 and np.isfinite(trainer.network.get_weights()[0]).all()
    assert not np.array_equal(trainer.network.get_weights()[0], before[0])


def test_an_overflow_in_one_gradient_skips_all_gradients():
    trainer = scaled()
    gradients = trainer._gradients

    def overflowing(batch):
        (first, *others), sums = gradients(batch)
        return [first * np.inf, *others], sums

    trainer._gradients = overflowing
    before = trainer.network.get_weights()
    assert trainer.run(batches(trainer), 1).skipped == 1
    for ours, theirs in zip(trainer.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_gradient_that_no_scale_makes_finite_stops_the_run():
    root_at_zero = lambda f, x, t, z: tf.sqrt(0.0 * f(x, t)[:, 0, 0, 0])  # noqa: E731 - its slope is infinite
    trainer = scaled(initial=4.0, objective=root_at_zero)
    with pytest.raises(NonFiniteLossError, match="Step 3 is not finite"):
        trainer.run(batches(trainer), 20)


# Being asked to stop


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_request_to_stop_ends_the_loop_with_its_step(replicas):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else None
    trainer = make(strategy)
    assert not trainer.run(batches(trainer), 3).stopped
    trainer.stop.make("a test")
    result = trainer.run(batches(trainer, 3), 1000)
    assert result.stopped and result.steps == 1 and trainer.step == 4


def test_a_request_made_during_a_step_ends_the_loop_with_that_step():
    """One process looks again when the step is done; the objective makes the request in the third."""

    def asking(score_fn, x, t, z):
        made = tf.cast(trainer.optimizer.iterations.value >= 2, tf.float32)
        with tf.control_dependencies([trainer.stop.variable.assign(made)]):
            return objectives.annealed_denoising(score_fn, SDE, x, t, z)

    trainer = make(objective=asking)
    result = trainer.run(batches(trainer), 1000)
    assert result.stopped and result.steps == 3


def test_labels_and_dropout_seeds_reach_the_network_in_training_and_only_labels_elsewhere():
    """Dropout is drawn from the examples' seeds: equal examples drop the same units on any replica."""
    seen = []

    class Labelled(TinyNetwork):
        def call(self, x, condition, labels=None, dropout_seeds=None):
            seen.append((labels, dropout_seeds))
            scale = tf.cast(labels, tf.float32)[:, None, None, None]
            if dropout_seeds is not None:
                scale *= random.uniform(dropout_seeds, (1, 1, 1))
            return super().call(x, condition) * scale

    trainer = make(network=Labelled)
    data = pipeline.training_batches(SOURCE, global_batch_size=BATCH, seed=0, labels=np.arange(40) % 3)
    batch = next(iter(data))
    np.testing.assert_array_equal(batch["label"], (batch["example"].numpy() % 40) % 3)
    trainer.check_weights(batch)
    assert seen[-1][0] is not None and seen[-1][1] is None
    one = [trainer.run(iter(data), 1).loss]
    assert seen[-1][0] is not None and seen[-1][1].shape == (BATCH, 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    two = make(strategy, network=Labelled)
    distributed = pipeline.distributed_training_batches(
        SOURCE, strategy, global_batch_size=BATCH, seed=0, labels=np.arange(40) % 3
    )
    assert two.run(iter(distributed), 1).loss == pytest.approx(one[0], rel=1e-5)


def test_labels_are_dropped_at_a_rate_by_the_examples_numbers():
    """On any number of replicas the same ones, in training alone; -1 stands for no class here."""
    seen = []

    class Labelled(TinyNetwork):
        def call(self, x, condition, labels=None, dropout_seeds=None):
            tf.py_function(lambda found: seen.extend(found.numpy()), [labels], [])
            return super().call(x, condition)

    labels = np.arange(40, dtype=np.int32)
    data = pipeline.training_batches(SOURCE, global_batch_size=BATCH, seed=0, labels=labels)
    whole = make(network=Labelled, label_dropout=0.5, no_class=-1)
    whole.run(iter(data), 30)
    shown = np.concatenate([batch["label"].numpy() for batch, _ in zip(data, range(30), strict=False)])
    dropped = np.array(seen) == -1
    np.testing.assert_array_equal(np.array(seen)[~dropped], shown[~dropped])
    assert abs(dropped.mean() - 0.5) < 4.0 * 0.5 / np.sqrt(len(shown))
    seen.clear()
    whole.check_weights(next(iter(data)))
    assert -1 not in seen
    seen.clear()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    two = make(strategy, network=Labelled, label_dropout=0.5, no_class=-1)
    distributed = pipeline.distributed_training_batches(
        SOURCE, strategy, global_batch_size=BATCH, seed=0, labels=labels
    )
    two.run(iter(distributed), 1)
    np.testing.assert_array_equal(sorted(seen), sorted(np.where(dropped[:BATCH], -1, shown[:BATCH])))


def test_times_of_low_discrepancy_follow_the_places_in_the_stream():
    """The levels of each batch of eight are spread evenly over four, on any number of replicas."""
    for strategy in (None, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        trainer = make(strategy, draw=time_draws.Levels(TIMES, tuple("abcd"), 0.25), batch_size=8)
        for _ in range(3):
            assert set(trainer.run(batches(trainer, trainer.step), 1).counts) <= {1, 2, 3}


def test_training_in_continuous_time_reports_by_bin():
    draw = time_draws.Uniform(first_time=1e-5, num_bins=5)
    trainer = make(draw=draw, model=lambda net: ScoreModel(net, SDE, condition=score.nearest_level(TIMES)))
    result = trainer.run(batches(trainer), 4)
    assert result.bin_losses.shape == (5,) and result.counts.sum() == 4 * BATCH
