"""What a TPU asks of every step function, as far as it can be seen without one.

XLA compiles the whole of it, every shape is known while it is traced, and nothing in it calls back into Python. A step
function that comes gets its line in `STEPS`.
"""

import re

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import random
from ncsn_tf.config import build, defaults
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.evaluation import held_out
from ncsn_tf.evaluation.generation import BlockSampler
from ncsn_tf.guidance import inpainting, interpolation
from ncsn_tf.samplers import driver, langevin
from ncsn_tf.score import denoise
from ncsn_tf.training.optimizers import LossScale, SkippingAdam
from tests.support import tiny

# Shapes that TensorFlow computes from constants while it compiles: in the loops of its vectorized_map, of broadcasts.
CONSTANT_AFTER_ALL = re.compile(r"/pfor/|/BroadcastGradientArgs$|^PartitionedCall")
HOST_CALLBACK = re.compile(r"PyFunc|NumpyFunction|Print|HostCallback|ScopedAllocator", re.IGNORECASE)


def training_step(**levers):
    trainer = tiny.make(jit_compile=True, **levers)
    return lambda batch: trainer._global_step(batch, tf.constant(0.0)), [next(tiny.batches(trainer))]


def scaled_training_step():
    return training_step(
        loss_scale=LossScale(), optimizer=lambda: SkippingAdam(1e-2, global_clipnorm=1.0), accumulation=4
    )


def sliced_training_step():
    from ncsn_tf import objectives

    return training_step(
        objective=lambda f, x, t, z, v: objectives.annealed_sliced(f, tiny.SDE, x, t, z, v),
        draw_slices=lambda rows, shape: random.rademacher(rows, (2, *shape)),
    )


def network_training_step():
    """The real network, rematerialised, in bfloat16."""
    config = defaults.ncsn().to_dict()
    config["network"] |= {"filters": 2, "dtype": "mixed_bfloat16", "rematerialise": True}
    config["training"] |= {"batch_size": 4, "jit_compile": True}
    config["data"]["name"] = "noise"
    builder = build.Builder(config)
    strategy = tf.distribute.get_strategy()
    trainer = builder.trainer(strategy, (8, 8, 1))
    source = ImageSource("noise", tiny.random_pixels(8, 8, 8, 1))
    batch = next(iter(builder.batches(source, strategy, 0)))
    return lambda batch: trainer._global_step(batch, tf.constant(0.0)), [batch]


def evaluation_step():
    trainer = tiny.make()
    batch = next(iter(pipeline.evaluation_batches(tiny.SOURCE, batch_size=8)))
    return lambda batch: trainer._held_out_batch(batch), [batch]


def probing_step():
    trainer = tiny.make()
    batch = next(iter(pipeline.evaluation_batches(tiny.SOURCE, batch_size=8)))
    return lambda batch: trainer._probe(batch), [batch]


def sampling():
    trainer = tiny.make()
    step = langevin.Langevin(langevin.annealed(tiny.SDE, 2e-5))
    schedule = tf.constant(driver.dwell(tiny.TIMES, 3))
    rows = tf.constant(np.arange(8).reshape(4, 2), tf.int32)

    def draw(rows):
        x = driver.uniform_prior(rows, tiny.SHAPE)
        x, _, _ = driver.integrate(step, trainer.score_model.score, x, schedule, rows)
        return denoise(trainer.score_model.score, tiny.SDE, x, tf.fill([4], tiny.TIMES[-1]))

    return draw, [rows]


def block_of_samples():
    """What every replica draws for an evaluation."""
    trainer = tiny.make()
    step = langevin.Langevin(langevin.annealed(tiny.SDE, 2e-5))
    sampler = driver.Sampler(step, trainer.score_model.score, driver.dwell(tiny.TIMES, 3), segments=4)
    strategy = tf.distribute.get_strategy()
    blocks = BlockSampler(strategy, sampler, driver.uniform_prior, tiny.SHAPE, run_seed=0, block=4)
    return blocks._draw, [tf.constant(1)]


def inpainting_level():
    """A level of inpainting, and of a path between two samples."""
    trainer = tiny.make()
    rows = tf.constant(np.arange(8).reshape(4, 2), tf.int32)
    known = tf.constant(np.arange(64).reshape(4, *tiny.SHAPE) % 2 == 0)
    step = langevin.Langevin(langevin.annealed(tiny.SDE, 2e-5), interpolation.noise(2))
    sampler = driver.Sampler(
        step,
        trainer.score_model.score,
        driver.dwell(tiny.TIMES, 3),
        condition=inpainting.condition(tiny.SDE),
    )
    prior = interpolation.uniform_prior(2)
    return lambda rows: sampler.in_graph(prior(rows, tiny.SHAPE), rows, (tf.zeros([4, *tiny.SHAPE]), known))[0], [rows]


def loss_by_level():
    trainer = tiny.make()
    batch = next(iter(pipeline.evaluation_batches(tiny.SOURCE, batch_size=8)))
    measured = trainer.score_model.score, tiny.SDE, tiny.TIMES, random.seed(0)
    return lambda batch: held_out.sums_by_level(*measured, batch), [batch]


STEPS = {
    "train": training_step,
    "train, sliced": sliced_training_step,
    "train, every lever": scaled_training_step,
    "train, the real network": network_training_step,
    "evaluate": evaluation_step,
    "check weights": probing_step,
    "sample and denoise": sampling,
    "samples to evaluate": block_of_samples,
    "inpaint and interpolate": inpainting_level,
    "held-out loss by level": loss_by_level,
}


def nodes(concrete):
    """(name, type, output shapes) of every operation, those of functions within included."""
    graph = concrete.graph.as_graph_def(add_shapes=True)
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        yield node.name, node.op, node.attr["_output_shapes"].list.shape


@pytest.mark.parametrize("name", STEPS)
def test_every_step_function_compiles_with_static_shapes_and_no_callback(name):
    function, arguments = STEPS[name]()
    compiled = tf.function(function, jit_compile=True, autograph=False)
    concrete = compiled.get_concrete_function(*arguments)
    seen = list(nodes(concrete))
    assert len(seen) > 50
    assert [(node, kind) for node, kind, _ in seen if HOST_CALLBACK.search(kind)] == []
    dynamic = [
        (node, kind)
        for node, kind, shapes in seen
        if any(shape.unknown_rank or any(dim.size < 0 for dim in shape.dim) for shape in shapes)
        and not CONSTANT_AFTER_ALL.search(node)
    ]
    assert dynamic == []
    results = [value.numpy() for value in tf.nest.flatten(compiled(*arguments))]
    assert all(np.isfinite(value).all() for value in results)
