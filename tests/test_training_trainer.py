"""The training step: the same on any number of replicas, resumable, honest about what is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import objectives, seeds
from ncsn_tf.data import pipeline
from ncsn_tf.score import EnergyModel
from ncsn_tf.training.trainer import NonFiniteLossError
from tests.tiny import BATCH, SDE, SOURCE, TIMES, batches, make, run


@pytest.fixture(scope="module")
def reference():
    trainer = make()
    return trainer, run(trainer, 6)


def test_a_step_is_adam_on_the_mean_loss(reference):
    """The first loss, gradient norm and update, from the pieces and with Adam written out."""
    trainer = make()
    before = trainer.network.get_weights()
    batch = next(iter(pipeline.training_batches(SOURCE, global_batch_size=BATCH, seed=0)))
    root = seeds.seed(0)
    level = seeds.integers(seeds.per_example(seeds.fold(root, seeds.Stream.LEVEL), batch["example"]), len(TIMES))
    z = seeds.normal(seeds.per_example(seeds.fold(root, seeds.Stream.PERTURBATION), batch["example"]), (4, 4, 1))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            objectives.annealed_denoising(trainer.score_model.score, SDE, batch["image"], tf.gather(TIMES, level), z)
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


def test_levels_get_their_own_losses(reference):
    trainer = make()
    result = trainer.run(batches(trainer), 6)
    assert result.steps == 6 and result.level_losses.shape == (4,)
    assert result.loss == pytest.approx(np.mean([r.loss for r in reference[1]]), rel=1e-5)
    assert np.nanmin(result.level_losses) <= result.loss <= np.nanmax(result.level_losses)


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


def test_xla_trains_as_the_plain_graph(reference):
    results = run(make(jit_compile=True), 6)
    for ours, theirs in zip(results, reference[1], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)


OBJECTIVES = {
    "exact": (lambda f, x, t, z: objectives.annealed_exact(f, SDE, x, t, z), None),
    "swept": (lambda f, x, t, z: objectives.annealed_exact(f, SDE, x, t, z, directions_at_once=6), None),
    "sliced": (
        lambda f, x, t, z, v: objectives.annealed_sliced(f, SDE, x, t, z, v),
        lambda rows, shape: seeds.rademacher(rows, (2, *shape)),
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

    def adapter(network, sde, times):
        return EnergyModel(lambda x, level: tf.reduce_sum(network(x, level), axis=(1, 2, 3)), sde, times)

    trainer = make(strategy, adapter=adapter)
    losses = [result.loss for result in run(trainer, 20)]
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_weights_without_a_gradient_are_refused():
    """What a missing second-order gradient looks like from outside must not train in silence."""
    blocked = make(objective=lambda f, x, t, z: tf.stop_gradient(objectives.annealed_denoising(f, SDE, x, t, z)))
    with pytest.raises(ValueError, match="no gradient in .*kernel"):
        run(blocked, 1)


def test_slices_belong_to_the_example_and_the_step():
    """The sliced loss of the first batch, from the pieces."""
    objective, draw_slices = OBJECTIVES["sliced"]
    trainer = make(objective=objective, draw_slices=draw_slices)
    batch = next(iter(pipeline.training_batches(SOURCE, global_batch_size=BATCH, seed=0)))

    def rows(stream):
        return seeds.per_example(seeds.fold(seeds.seed(0), stream), batch["example"])

    t = tf.gather(TIMES, seeds.integers(rows(seeds.Stream.LEVEL), len(TIMES)))
    z = seeds.normal(rows(seeds.Stream.PERTURBATION), (4, 4, 1))
    v = seeds.rademacher(rows(seeds.Stream.SLICES), (2, 4, 4, 1))
    expected = tf.reduce_mean(objective(trainer.score_model.score, batch["image"], t, z, v))
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


def test_the_first_loss_that_is_not_finite_stops_the_loop_and_is_named():
    def poisoned(score_fn, x, t, z):
        losses = objectives.annealed_denoising(score_fn, SDE, x, t, z)
        return losses / tf.cast(trainer.optimizer.iterations.value != 3, tf.float32)

    trainer = make(objective=poisoned)
    with pytest.raises(NonFiniteLossError, match="Step 4 is not finite"):
        trainer.run(batches(trainer), 20)
    assert trainer.step == 4


def test_held_out_loss_weighs_examples_and_repeats():
    trainer = make()
    loss, by_level = trainer.held_out_loss(pipeline.evaluation_batches(SOURCE, batch_size=16))
    again, _ = trainer.held_out_loss(pipeline.evaluation_batches(SOURCE, batch_size=40))
    assert loss == pytest.approx(again, rel=1e-5), "padding or batch size leaked into the held-out loss"
    assert by_level.shape == (4,) and by_level.min() <= loss <= by_level.max()
    run(trainer, 2)
    assert trainer.held_out_loss(pipeline.evaluation_batches(SOURCE, batch_size=40))[0] != again
