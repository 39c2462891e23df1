"""Checks whether the metrics order images as a person would.

python -m benchmarks.corruptions --data_name=digits --picture=docs/evaluation_digits.png

The reference is the training images of a dataset. The samples are its held-out images and corrupted versions of them:
with increasing blur, with increasing noise, with fewer and fewer classes; also images of uniform noise, and images of
the training set itself, which no distance of distributions distinguishes from a perfect model. Prints a Markdown
table with one row per set, reports for each series whether FID and KID grow from step to step, and exits with code 1
if one does not.

FID is biased upwards for few samples, so only sets of equal size are comparable. In all series but the last, the sets
have as many images as are held out (at most --num_samples). In the last, all sets, including that of all classes,
have as many images as the smallest of them.

The nearness of images to the training set is measured in pixels, on the first 1,000 of each set: the probability that
an image is nearer to it than a held-out image is. Noise and choices of images come from fixed seeds.

KID and the nearest neighbours take most of the time, which grows with the reference: with --num_reference=10000 it
takes minutes on a busy machine, with all of CIFAR-10 several times as long.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags

from launch.flags import cli, data, evaluator

_IMAGES = data.define()
_EVALUATOR = evaluator.define()
_METRICS = flags.DEFINE_list("metrics", None, "Some of inception_score, fid, fid_infinity, kid, precision, recall.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "Largest number of held-out images; by default all.", 2)
_NUM_REFERENCE = flags.DEFINE_integer("num_reference", None, "Largest number of training images; by default all.", 20)
_BLURS = flags.DEFINE_list("blurs", ["0.5", "1", "1.5", "2"], "Standard deviations of Gaussian blurs, in pixels.")
_NOISES = flags.DEFINE_list("noises", ["0.05", "0.1", "0.2", "0.4"], "Deviations of the noise; images span [0, 1].")
_PICTURE = flags.DEFINE_string("picture", None, "A PNG to write, one row per set, of some of its images.")

_KEPT = (9, 7, 5, 3, 1)
"""The numbers of classes to keep, the first ones, where classes are dropped."""
_SEED = 0
_NEIGHBOURS_OF = 1000
_SHOWN = 12
_GROWING = ("fid", "kid")
_KID_UNIT = 1e-3


class Corrupted(NamedTuple):
    """A set of images to be measured.

    Attributes:
      series: the series of which the set is a step; "" for none. The first step of a series is the undamaged set.
      name: the row's name.
      images: uint8 [N, H, W, C].
    """

    series: str
    name: str
    images: np.ndarray


def blurred(images: np.ndarray, width: float) -> np.ndarray:
    """Convolves images with a Gaussian of standard deviation `width` pixels; beyond a border its pixels repeat."""
    from scipy import ndimage

    exact = ndimage.gaussian_filter(images.astype(np.float32), (0, width, width, 0), mode="nearest")
    return np.round(np.clip(exact, 0.0, 255.0)).astype(np.uint8)


def noised(images: np.ndarray, deviation: float, seed: int = _SEED) -> np.ndarray:
    """Adds normal noise of a standard deviation in units of the range [0, 1] of images, clips and rounds."""
    noise = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    return np.round(np.clip(images + 255.0 * deviation * noise, 0.0, 255.0)).astype(np.uint8)


def dropped(images: np.ndarray, labels: np.ndarray, kept: tuple[int, ...], seed: int = _SEED) -> list[np.ndarray]:
    """Sets of equal size, of the images of the first 1, 2, ... classes alone.

    Args:
      images: uint8 [N, H, W, C].
      labels: int [N].
      kept: for each set, how many classes are kept: those with labels below it.
      seed: of the order in which images are taken.

    Returns:
      For each of `kept` a set, all of as many images as the smallest can have.

    Raises:
      ValueError: if a set would have fewer than two images.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    rows = [order[labels[order] < classes] for classes in kept]
    size = min(map(len, rows))
    if size < 2:
        raise ValueError(f"Each set needs 2 images; take more. Received: {list(map(len, rows))} for {kept} classes.")
    return [images[chosen[:size]] for chosen in rows]


def corrupted(held_out: np.ndarray, labels: np.ndarray, num_classes: int, train: np.ndarray) -> list[Corrupted]:
    """All sets that are measured."""
    generator = np.random.default_rng(_SEED)
    sets = [Corrupted("", "held-out images", held_out)]
    sets += [Corrupted("blur", f"blur, width {width}", blurred(held_out, float(width))) for width in _BLURS.value]
    sets += [Corrupted("noise", f"noise, deviation {level}", noised(held_out, float(level))) for level in _NOISES.value]
    sets.append(Corrupted("", "uniform noise", generator.integers(0, 256, held_out.shape, np.uint8)))
    rows = generator.choice(len(train), min(len(held_out), len(train)), replace=False)
    sets.append(Corrupted("", "training images", train[rows]))
    kept = (num_classes, *(classes for classes in _KEPT if classes < num_classes))
    for classes, images in zip(kept, dropped(held_out, labels, kept), strict=True):
        name = f"{len(images)} images of {classes} class" + "es" * (classes > 1)
        sets.append(Corrupted("classes dropped", name, images))
    return sets


def grows(values: list[float]) -> bool:
    """Returns whether each value is larger than the one before."""
    return all(before < after for before, after in zip(values, values[1:], strict=False))


def _read():
    """The training images, the held-out images and the labels of the latter, as many as the flags allow."""
    from ncsn_tf.data import labels as label_data

    if _IMAGES.name.value is None:
        raise ValueError("Give --data_name, a dataset with labels: digits, mnist, cifar10.")
    if flags.FLAGS["reference"].value is not None:
        raise ValueError("The reference is the training images of --data_name: leave --reference out.")
    evaluator.check_metrics(_METRICS.value)  # refuses a wrong name before anything is computed
    classes = label_data.load(_IMAGES.name.value, "held_out", **_IMAGES.location())
    train, held_out = _IMAGES.load("train"), _IMAGES.load("held_out")
    rows = _some(len(held_out), _NUM_SAMPLES.value)
    train = dataclasses.replace(train, images=train.images[_some(len(train), _NUM_REFERENCE.value)])
    return train, held_out.images[rows], classes.values[rows], classes.num_classes


def _some(count: int, limit: int | None) -> np.ndarray:
    """At most `limit` of the numbers below `count`, ascending."""
    return np.sort(np.random.default_rng(_SEED).permutation(count)[:limit])


def main() -> None:
    """Measures."""
    from ncsn_tf.data.names import DIGITS
    from ncsn_tf.evaluation import features, measure
    from ncsn_tf.evaluation.evaluator import cached_reference
    from ncsn_tf.evaluation.names import CLASSIFIER, INCEPTION

    with cli.usage_errors():
        train, held_out, labels, num_classes = _read()
        default = CLASSIFIER if _IMAGES.name.value == DIGITS else INCEPTION
        network = _EVALUATOR.feature_network(default, train.name)
        network.check_shape(train.shape)
        with evaluator.progress() as show:
            options = {"split": "train", "preparation": _IMAGES.preparation(), "progress": show}
            reference = cached_reference(network, train, **options)
        sets = corrupted(held_out, labels, num_classes, train.images)
        if _PICTURE.value is not None:
            save_picture(pathlib.Path(_PICTURE.value), sets)
    print(f"{train.name}: {len(train)} training images as the reference, {network.kind} {network.fingerprint[:12]}\n")
    names = {name: measure.named(name, network.kind) for name in evaluator.check_metrics(_METRICS.value)}
    headings = [f"{shown} / {_KID_UNIT:g}" if name == "kid" else shown for name, shown in names.items()]
    print(_line(["images", *headings, "nearer, in pixels"]))
    print(_line(["---"] * (len(names) + 2)))
    nearness = Nearness(train.images, held_out)
    found, reasons = [], {}
    for one in sets:
        own = features.extract(network, one.images)
        measured, absent = measure.measure(own, reference, network.kind, metrics=tuple(names))
        found.append({entry.name: entry for entry in measured})
        reasons |= dict.fromkeys(absent)
        cells = [_cell(found[-1].get(shown), _KID_UNIT if name == "kid" else 1.0) for name, shown in names.items()]
        print(_line([one.name, *cells, f"{nearness.of(one.images):.3f}"]), flush=True)
    print("".join(f"\nnot measured: {reason}" for reason in reasons))
    growing = [shown for name, shown in names.items() if name in _GROWING]
    if not _verdict(sets, found, growing):
        cli.fail("A metric puts a more damaged set before a less damaged one.", cli.FAILURE)


def _verdict(sets: list[Corrupted], found: list[dict], names: list[str]) -> bool:
    """Prints for each series whether the metrics grow; returns whether all do."""
    every = True
    for series, rows in _series(sets).items():
        for name in names:
            values = [found[row][name].value for row in rows if name in found[row]]
            if len(values) < len(rows):
                print(f"{series}: {name} cannot be had for every step")
                continue
            every &= (good := grows(values))
            print(f"{series}: {name} {'grows' if good else 'DOES NOT GROW'} from step to step")
    return every


def _series(sets: list[Corrupted]) -> dict[str, list[int]]:
    """The rows of each series, the undamaged set first."""
    rows: dict[str, list[int]] = {}
    for row, one in enumerate(sets):
        if one.series:
            rows.setdefault(one.series, [] if one.series == "classes dropped" else [0]).append(row)
    return rows


class Nearness:
    """The nearness of sets of images to the training images, compared with that of the held-out images.

    Args:
      train: uint8 [N, H, W, C].
      held_out: uint8 [M, H, W, C]; the first 1,000 are taken.
    """

    def __init__(self, train: np.ndarray, held_out: np.ndarray):
        self._train = train.reshape(len(train), -1)
        self._held_out = self._nearest(held_out)

    def _nearest(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from ncsn_tf.evaluation import neighbours

        images = images[:_NEIGHBOURS_OF]
        distances, rows = neighbours.nearest(images.reshape(len(images), -1), self._train, 1)
        return distances[:, 0], rows

    def of(self, images: np.ndarray) -> float:
        """The probability that one of the images is nearer to the training images than a held-out image is."""
        from ncsn_tf.evaluation import memorisation

        distances, rows = self._nearest(images)
        held_out_distances, held_out_rows = self._held_out
        return memorisation.Comparison(distances, held_out_distances, rows, held_out_rows).probability_nearer


def _cell(entry, unit: float) -> str:
    """A value with its standard error."""
    if entry is None:
        return "-"
    text = f"{entry.value / unit:.4g}"
    if entry.standard_error is None:
        return text
    return f"{text} +- {float(f'{entry.standard_error / unit:.2g}'):g}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def save_picture(path: pathlib.Path, sets: list[Corrupted]) -> None:
    """Writes a PNG with one row per set: its name, and images spread evenly over the set."""
    from ncsn_tf import pictures

    with pictures.drawn(8.0, 0.5 * len(sets)) as picture:
        for axes, one in zip(picture.subplots(len(sets), 1, squeeze=False)[:, 0], sets, strict=True):
            rows = np.linspace(0, len(one.images) - 1, _SHOWN).astype(int)
            axes.imshow(pictures.tile(one.images[rows], columns=_SHOWN))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_ylabel(one.name, rotation="horizontal", ha="right", va="center")
            for spine in axes.spines.values():
                spine.set_visible(False)
    pictures.save_figure(path, picture)


if __name__ == "__main__":
    cli.run(main)
