"""Measures features and metrics at their full size, compared with plain Keras, NumPy and SciPy.

python -m benchmarks.evaluation --rows=50000 --width=2048

First measures, in turns, the images/s of feature extraction, from bytes of 32x32x3 to features, and those of the
network alone on one batch of floats in memory: for a dataset's classifier, and for a network with Inception's layers
(Keras's InceptionV3) at 299x299. Their weights are random, which does not affect the cost.

Then writes random features and logits to files, and prints for each metric the seconds of one call, the value, and the
peak of resident memory, once for the library and once for NumPy and SciPy:

  moments             mean and covariance of the features; np.cov takes both too
  frechet distance    from two pairs of moments; scipy.linalg.sqrtm
  another distance    to the same reference, whose root is then known; SciPy's would cost as much as the first
  extrapolated        the distance at infinitely many samples with its standard error; NumPy has no counterpart
  kernel distance     over blocks of 1,000 rows
  inception score     over ten parts

Each runs in its own process, which maps the files: the pages that it has read count as its memory. `--threads` limits
both sides to the same number of threads.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import flags

from launch.flags import cli

_ROWS = flags.DEFINE_integer("rows", 50_000, "Rows of features and of logits on either side.", 20)
_WIDTH = flags.DEFINE_integer("width", 2048, "Features per row.", 2)
_CLASSES = flags.DEFINE_integer("classes", 1008, "Logits per row.", 2)
_THREADS = flags.DEFINE_integer("threads", 0, "Threads of either side's matrix products; 0 leaves the choice to them.")
_ONLY = flags.DEFINE_list("only", [], "What to measure, by name; all by default.")
_IMAGES = flags.DEFINE_integer("images", 100, "Images per batch of feature extraction.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Batches of feature extraction, of which the fastest counts.", 1)

_BLOCK = 1000
_SPLITS = 10
_NETWORKS = ("classifier", "inception")
_METRICS = ("moments", "frechet distance", "another distance", "extrapolated", "kernel distance", "inception score")


def main() -> None:
    """Writes the files and starts the processes that measure."""
    known = _NETWORKS + _METRICS
    if unknown := set(_ONLY.value) - set(known):
        cli.fail(f"What is measured is {', '.join(known)}. Received: {', '.join(sorted(unknown))}.")
    chosen = [name for name in known if name in (_ONLY.value or known)]
    with tempfile.TemporaryDirectory() as folder:
        for kind in (name for name in chosen if name in _NETWORKS):
            bare, extracted = _images_per_second(kind, pathlib.Path(folder) / kind)
            print(f"{kind}: {extracted:.4g} images/s; the bare network {bare:.4g}; {extracted / bare:.2f}", flush=True)
        metrics = [name for name in chosen if name in _METRICS]
        if not metrics:
            return
        _write(pathlib.Path(folder))
        print(f"{'':18s}{'':16s}{'seconds':>10s}{'peak GiB':>10s}{'of it the call':>16s}{'value':>16s}")
        for metric in metrics:
            for side in ("library", "NumPy and SciPy"):
                if side == "library" or metric not in ("another distance", "extrapolated"):
                    found = _run(folder, side, metric)
                    print(
                        f"{metric:18s}{side:16s}{found['seconds']:10.2f}{found['peak']:10.2f}"
                        f"{found['peak'] - found['before']:16.2f}{found['value']:16.8g}",
                        flush=True,
                    )


def _images_per_second(kind: str, path: pathlib.Path) -> tuple[float, float]:
    """The rates of the network alone and of extraction with it, the best of several batches each."""
    import keras
    import tensorflow as tf

    from ncsn_tf.evaluation import classifier, features
    from ncsn_tf.networks.classifier import Classifier

    images = np.random.default_rng(0).integers(0, 256, (_IMAGES.value, 32, 32, 3), np.uint8)
    if kind == "classifier":
        network = Classifier(10)
        network.build((None, 32, 32, 3))
        classifier.export(network, path, {"dataset": {"shape": [32, 32, 3]}})
        floats = tf.random.stateless_normal(images.shape, [0, 0])
    else:
        layers = keras.applications.InceptionV3(weights=None, classes=1008, classifier_activation=None)
        outputs = {"pool_3": layers.get_layer("avg_pool").output, "logits": layers.output}
        network = keras.Model(layers.input, outputs)
        archive = keras.export.ExportArchive()
        archive.track(network)
        signature = [tf.TensorSpec([None, 299, 299, 3], tf.float32)]
        archive.add_endpoint("serving_default", lambda x: network(x, training=False), input_signature=signature)
        archive.write_out(str(path), verbose=False)
        floats = tf.random.stateless_normal([len(images), 299, 299, 3], [0, 0])
    loaded = features.FeatureNetwork(path, kind)
    bare = tf.function(lambda x: tf.nest.flatten(network(x, training=False)), autograph=False)
    seconds = {"bare": float("inf"), "extracted": float("inf")}
    for _ in range(_ROUNDS.value + 1):  # the first traces, and is never the fastest
        for name, call in (
            ("bare", lambda: [output.numpy() for output in bare(floats)]),
            ("extracted", lambda: features.extract(loaded, images)),
        ):
            begun = time.perf_counter()
            call()
            seconds[name] = min(seconds[name], time.perf_counter() - begun)
    return len(images) / seconds["bare"], len(images) / seconds["extracted"]


def _write(folder: pathlib.Path) -> None:
    """Features like a network's: not negative, of unequal spread, and slightly different for the reference."""
    generator = np.random.default_rng(0)
    spread = np.linspace(0.1, 1.0, _WIDTH.value, dtype=np.float32)
    moments = {}
    for name, width in (("samples", _WIDTH.value), ("reference", _WIDTH.value), ("logits", _CLASSES.value)):
        shape = (_ROWS.value, width)
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
        for start in range(0, len(file), 1000):
            values = generator.standard_normal((len(file[start : start + 1000]), width), np.float32)
            if name != "logits":
                values = np.maximum(0.4 + values, 0.0) * spread ** (1.0 if name == "samples" else 1.05)
            file[start : start + 1000] = values
    # Moments for the distances, of rows enough for a full rank; the distances' cost does not depend on them.
    for name in ("samples", "reference"):
        rows = np.load(folder / f"{name}.npy", mmap_mode="r")[: 2 * _WIDTH.value]
        moments[f"{name}_mean"], moments[f"{name}_covariance"] = rows.mean(axis=0), np.cov(rows, rowvar=False)
    np.savez(folder / "moments.npz", **moments)


def _run(folder: str, side: str, metric: str) -> dict:
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    if _THREADS.value:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            environment[name] = str(_THREADS.value)
    # Not by this module's own flags: launchers import TensorFlow, which would count as the plain side's memory too.
    command = [sys.executable, "-c", "import sys; from benchmarks import evaluation; evaluation.measure(*sys.argv[1:])"]
    command += [folder, side, metric]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        cli.fail(f"{metric} of {side} failed: {process.stderr[-400:]}", cli.FAILURE)
    return json.loads(process.stdout.splitlines()[-1])


def measure(folder: str, side: str, metric: str) -> None:
    """Prints seconds and value of one call, and the peak of memory, in GiB, before it and after, as JSON.

    Args:
      folder: where the files are.
      side: "library" or "NumPy and SciPy".
      metric: its name.
    """
    call = (_library if side == "library" else _plain)(pathlib.Path(folder), metric)
    before = _peak_gib()
    begun = time.perf_counter()
    value = call()
    found = {"seconds": time.perf_counter() - begun, "value": value, "before": before, "peak": _peak_gib()}
    print(json.dumps(found), flush=True)


def _peak_gib() -> float:
    """The largest resident set of this program so far."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux its peak starts at the size of the process that started this one.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _files(folder: pathlib.Path) -> tuple[np.ndarray, ...]:
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("samples", "reference", "logits"))


def _moments(folder: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and covariance of the samples and of the reference."""
    saved = np.load(folder / "moments.npz")
    return [(saved[f"{side}_mean"], saved[f"{side}_covariance"]) for side in ("samples", "reference")]


def _library(folder: pathlib.Path, metric: str) -> Callable[[], float]:
    """The library's metric, a function that is returned after the one-time work of a process, such as imports."""
    from ncsn_tf.evaluation import frechet, scores, tfgan
    from ncsn_tf.evaluation.moments import Moments

    tfgan.classifier_score(np.eye(2))
    samples, reference, logits = _files(folder)
    if metric == "moments":
        return lambda: float(np.trace(Moments.of(samples).covariance))
    if metric == "kernel distance":
        return lambda: scores.kernel_distance(samples, reference, -(-len(samples) // _BLOCK))[0]
    if metric == "inception score":
        return lambda: scores.inception_score(logits, _SPLITS)[0]
    ours, theirs = (Moments(len(samples), *pair) for pair in _moments(folder))
    if metric == "extrapolated":
        return lambda: getattr(frechet.extrapolated(samples, theirs), "value", np.nan)
    if metric == "frechet distance":
        return lambda: frechet.FactoredMoments(theirs).distance(ours)
    rooted = frechet.FactoredMoments(theirs)
    return lambda: rooted.distance(ours)


def _plain(folder: pathlib.Path, metric: str) -> Callable[[], float]:
    """The same formula in NumPy and SciPy, as it is commonly written."""
    import scipy.linalg

    samples, reference, logits = _files(folder)
    if metric == "moments":
        return lambda: float(np.trace(np.cov(samples, rowvar=False)))
    if metric == "kernel distance":
        return lambda: _plain_kernel_distance(samples, reference)
    if metric == "inception score":
        return lambda: _plain_inception_score(logits)
    (mean, covariance), (other_mean, other_covariance) = _moments(folder)

    def distance() -> float:
        root = scipy.linalg.sqrtm(covariance @ other_covariance)
        trace = np.trace(covariance) + np.trace(other_covariance) - 2.0 * np.trace(np.real(root))
        return float(np.sum((mean - other_mean) ** 2) + trace)

    return distance


def _plain_kernel_distance(samples: np.ndarray, reference: np.ndarray) -> float:
    """The mean over blocks of the unbiased squared discrepancy."""
    values = []
    for start in range(0, len(samples), _BLOCK):
        x, y = (np.asarray(side[start : start + _BLOCK], np.float64) for side in (samples, reference))
        within, across, theirs = ((a @ b.T / x.shape[1] + 1.0) ** 3 for a, b in ((x, x), (x, y), (y, y)))
        pairs = len(x) * (len(x) - 1)
        own = (within.sum() - np.trace(within) + theirs.sum() - np.trace(theirs)) / pairs
        values.append(own - 2.0 * across.mean())
    return float(np.mean(values))


def _plain_inception_score(logits: np.ndarray) -> float:
    """The mean over parts of exp(mean KL)."""
    values = []
    for part in np.array_split(logits, _SPLITS):
        p = np.asarray(part, np.float64)
        p = np.exp(p - p.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        values.append(np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(axis=0))), axis=1))))
    return float(np.mean(values))


if __name__ == "__main__":
    cli.run(main)
