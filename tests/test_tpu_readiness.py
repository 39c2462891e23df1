"""The demands of a TPU on every step function, as far as they can be checked without one.

XLA compiles the whole of it, every shape is known while it is traced, and nothing in it calls back into Python. A new
step function gets its line in `STEPS`.
"""

import re

import numpy as np
import pytest
import tensorflow as tf

from ncsn_tf import objectives, random
from ncsn_tf.config import build, sections
from ncsn_tf.data import pipeline
from ncsn_tf.data.images import ImageSource
from ncsn_tf.densities.empirical import Empirical
from ncsn_tf.densities.normal import Normal
from ncsn_tf.evaluation import held_out, score_error
from ncsn_tf.guidance import (
    classes,
    classifiers,
    denoising,
    inpainting,
    interpolation,
    measurements,
    restoring,
    starts,
)
from ncsn_tf.samplers import blocks, driver, methods
from ncsn_tf.samplers.adaptive_flow import AdaptiveFlow
from ncsn_tf.score import denoise, expand
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
    return training_step(
        objective=lambda f, x, t, z, v: objectives.annealed_sliced(f, tiny.SDE, x, t, z, v),
        draw_slices=lambda rows, shape: random.rademacher(rows, (2, *shape)),
    )


def network_training_step():
    """The real network, rematerialised, in bfloat16."""
    config = sections.ncsn().to_dict()
    config["network"] |= {"filters": 2, "dtype": "mixed_bfloat16", "rematerialise": True}
    config["training"] |= {"batch_size": 4, "jit_compile": True}
    config["data"]["name"] = "noise"
    builder = build.Builder(config)
    strategy = tf.distribute.get_strategy()
    trainer = builder.trainer(strategy, (8, 8, 1))
    source = ImageSource("noise", tiny.random_pixels(8, 8, 8, 1))
    batch = next(iter(builder.batches(source, strategy, 0)))
    return lambda batch: trainer._global_step(batch, tf.constant(0.0)), [batch]


def unet_training_step():
    """A U-Net of every kind of layer, with dropout, FIR filters and classes, at times of low discrepancy."""
    config = sections.ncsn().to_dict()
    small = {"filters": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "num_classes": 10}
    for name, choice in {"network": "unet", "times": "log_normal", "condition": "sigma"}.items():
        config[name] = sections.section(name, choice).to_dict()
    config["network"] |= small
    config["times"]["low_discrepancy"] = True
    config["sampler"]["epsilon"] = 1e-6
    config["training"] |= {"batch_size": 2, "jit_compile": True}
    config["data"]["name"] = "digits"
    builder = build.Builder(config)
    strategy = tf.distribute.get_strategy()
    trainer = builder.trainer(strategy, (8, 8, 1))
    batch = next(iter(builder.batches(builder.load_images("train"), strategy, 0)))
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
    """Samples with a final denoising, from the numbers that a replica draws."""
    score_fn = tiny.make().model.score
    sampler = tiny.sampler(3, finish=denoise)

    def draw(numbers):
        seeds, x, _ = blocks.start_samples(numbers, driver.uniform_prior, tiny.SHAPE, run_seed=0)
        samples = sampler(score_fn, x, seeds)
        return samples.x, samples.evaluations

    return draw, [tf.range(4)]


def sampling_from_noise_to_data():
    """Every method that walks from noise to data, three steps each, on Gaussian data."""

    def score_fn(x, t):
        return -x / expand(0.25 + tiny.SDE.marginal(t)[1] ** 2, x)

    def draw(numbers):
        seeds, x, _ = blocks.start_samples(numbers, tiny.SDE.prior_sample, tiny.SHAPE, run_seed=0)
        samplers = [methods.make(name, tiny.SDE, 3) for name in methods.STEPS]
        samplers += [methods.make("heun", tiny.SDE, 3, churn=1.0), AdaptiveFlow(tiny.SDE, last_time=1e-3)]
        samplers += [methods.make("adaptive_sde", tiny.SDE)]
        return [sampler(score_fn, x, seeds).x for sampler in samplers]

    return draw, [tf.range(4)]


def inpainting_level():
    """Inpainting, and a path between two samples."""
    images, known = np.zeros([2, *tiny.SHAPE], np.float32), np.arange(32).reshape(2, *tiny.SHAPE) % 2 == 0
    prior = interpolation.mixed_prior(driver.uniform_prior, 2)
    sampler, score_fn = tiny.sampler(3, noise=interpolation.noise(2)), tiny.make().model.score

    def draw(numbers):
        seeds, x, given = inpainting.start(numbers, images, known, prior, run_seed=0, completions=2)
        return inpainting.put_back(sampler(score_fn, x, seeds, inpainting.Inpainting(tiny.SDE), given).x, given)

    return draw, [tf.range(4)]


def sampling_of_classes():
    """Both kinds of guidance to a class, by a small classifier and by a function in the place of a network."""
    made = classifiers.make(3, 4, tiny.SHAPE, tiny.SDE, seed=0)
    ways = classes.of_network((2, 0), 2.0, num_classes=3), classes.of_classifier((2, 0), 2.0, made)
    sampler = methods.make("ddim", tiny.SDE, 2, last_time=0.1)

    def score_fn(x, t, labels=None):
        shift = 0.0 if labels is None else expand(tf.cast(labels, x.dtype), x)
        return (shift - x) / expand(0.25 + tiny.SDE.marginal(t)[1] ** 2, x)

    def draw(numbers):
        found = []
        for chosen in ways:
            seeds, x, given = chosen.start(numbers, tiny.SDE.prior_sample, tiny.SHAPE, run_seed=0)
            found.append(sampler(score_fn, x, seeds, chosen.guidance, given).x)
        return found

    return draw, [tf.range(4)]


def restoration():
    """Each method of restoration, with noise, and the measurement put back at the end."""
    measurement = measurements.downsample(tiny.SHAPE, 2)
    y = np.zeros([2, *measurement.measured_shape], np.float32)
    sampler, score_fn = methods.make("ddim", tiny.SDE, 3), tiny.make().model.score

    def draw(numbers):
        options = {"run_seed": 0, "completions": 2}
        seeds, x, given = starts.completions_of(numbers, (y,), tiny.SHAPE, tiny.SDE.prior_sample, **options)
        guidances = [method(tiny.SDE, measurement, 0.1) for method in restoring.METHODS.values()]
        return [measurement.put_back(sampler(score_fn, x, seeds, guidance, given).x, *given) for guidance in guidances]

    return draw, [tf.range(4)]


def denoising_level():
    """Images under the noise of a level, denoised from there on."""
    images = np.zeros([4, *tiny.SHAPE], np.float32)
    sampler, score_fn = tiny.sampler(3), tiny.make().model.score

    def draw(numbers, time):
        seeds, x, _ = denoising.start(numbers, time, images, tiny.SDE, run_seed=0)
        return sampler(score_fn, x, seeds, span=(2, 4)).x

    return draw, [tf.range(4), tf.constant(tiny.TIMES[2])]


def loss_by_level():
    trainer = tiny.make()
    batch = next(iter(pipeline.evaluation_batches(tiny.SOURCE, batch_size=8)))
    measured = trainer.model.score, tiny.SDE, tiny.TIMES, random.seed(0)
    return lambda batch: held_out.sums_by_level(*measured, batch), [batch]


def score_error_by_level():
    trainer = tiny.make()
    points = pipeline.to_float(tiny.SOURCE.images[:8])
    densities = Empirical(points), Normal.fit(points)
    scores = trainer.model.score, *(density.score_fn(tiny.SDE) for density in densities)
    measured = scores, tiny.SDE, tiny.TIMES, random.seed(0)
    return lambda x, examples: score_error.errors_by_level(*measured, x, examples), [tf.constant(points), tf.range(8)]


STEPS = {
    "train": training_step,
    "train, sliced": sliced_training_step,
    "train, every lever": scaled_training_step,
    "train, the real network": network_training_step,
    "train, U-Net": unet_training_step,
    "evaluate": evaluation_step,
    "check weights": probing_step,
    "sample and denoise": sampling,
    "sample from noise to data": sampling_from_noise_to_data,
    "inpaint and interpolate": inpainting_level,
    "sample classes": sampling_of_classes,
    "restore": restoration,
    "denoise from a level on": denoising_level,
    "held-out loss by level": loss_by_level,
    "score error by level": score_error_by_level,
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
