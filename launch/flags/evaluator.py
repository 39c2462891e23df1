"""The flags that say how images are judged, by which feature network and against what; import it to have them."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

_FEATURES = flags.DEFINE_enum(
    "features",
    None,
    ["inception", "classifier"],
    "What images are compared by: TF-GAN's Inception, or a classifier of the dataset's classes; by default the run's.",
)
_INCEPTION = flags.DEFINE_string(
    "inception_path", None, "A SavedModel of TF-GAN's Inception; by default it comes from TF-Hub, once."
)
_CLASSIFIER = flags.DEFINE_string(
    "classifier_path", None, "A classifier of launch.train_classifier; by default that of the embedded digits."
)
_REFERENCE = flags.DEFINE_string(
    "reference", None, "Statistics of real images, of launch.reference_statistics or any program's mu and sigma."
)
_METRICS = flags.DEFINE_list("metrics", None, "Some of inception_score, fid, fid_infinity, kid, precision, recall.")


def feature_network(default: str, data_name: str):
    """The feature network of the flags.

    Args:
      default: the kind, where no flag says it.
      data_name: the dataset; the digits' classifier is trained at first need, in seconds.

    Raises:
      ValueError: if the flags contradict each other, or the network is not to be had.
    """
    from ncsn_tf.data.names import DIGITS
    from ncsn_tf.evaluation import classifier, features

    kinds = {_FEATURES.value, "inception" if _INCEPTION.value else None, "classifier" if _CLASSIFIER.value else None}
    kinds.discard(None)
    if len(kinds) > 1:
        raise ValueError("--features, --inception_path and --classifier_path ask for different networks; give one.")
    kind = kinds.pop() if kinds else default
    if kind == features.INCEPTION:
        return features.load_inception(_INCEPTION.value)
    if _CLASSIFIER.value is not None:
        return features.load_classifier(_CLASSIFIER.value)
    if data_name == DIGITS:
        path = features.cache_directory() / "classifiers" / DIGITS
        return features.load_classifier(classifier.ensure_digits(path))
    raise ValueError(
        f"There is no classifier of {data_name!r} yet. Train one with launch.train_classifier --data_name={data_name} "
        "--output=DIR, and give --classifier_path=DIR."
    )


def judge(
    shape: tuple[int, int, int],
    default: str,
    preparation: Mapping[str, Any],
    train: Any = None,
    held_out: Any = None,
    *,
    dry: bool = False,
):
    """What samples are held against; None of a dry run that would have to compute the real images' statistics.

    Args:
      shape: (H, W, C) of the samples.
      default: the feature network's kind, where neither a flag nor the statistics say it.
      preparation: how the real images were prepared, for the record.
      train: the model's training images; without them --reference must be given, and no copies are looked for.
      held_out: images that were not trained on; None likewise.
      dry: check everything that can be checked without computing.

    Raises:
      ValueError: if something is not to be had or does not fit.
    """
    from ncsn_tf.evaluation import references, report

    given: Any = references.load(_REFERENCE.value) if _REFERENCE.value is not None else None
    if train is None and given is None:
        raise ValueError("Against which images? Give --workdir, --data_name, or statistics by --reference.")
    if train is not None and train.shape != tuple(shape):
        raise ValueError(
            f"The real images are {train.shape}, the samples {tuple(shape)}. Give --data_name with --image_size or "
            "--channels that make them equal; a distance would measure the resizing."
        )
    about = (given.about or {}) if given is not None else {}
    name = train.name if train is not None else about.get("dataset", {}).get("name", "")
    network = feature_network(about.get("feature_network", {}).get("kind", default), name)
    network.check_shape(shape)
    reference: Any = given
    if train is not None and given is None:
        if dry:
            return None
        with progress() as show:
            reference = report.cached_reference(network, train, split="train", preparation=preparation, progress=show)
    return report.Judge(
        network,
        reference,
        shape=shape,
        dataset=train.describe() if train is not None else None,
        preparation=preparation if train is not None else None,
        train=train,
        held_out=held_out,
    )


def metrics() -> tuple[str, ...]:
    """The metrics of the flags; raises ValueError for an unknown one."""
    from ncsn_tf.evaluation import measure

    names = tuple(_METRICS.value or measure.NAMES)
    unknown = sorted(set(names) - set(measure.NAMES))
    if unknown:
        raise ValueError(f"--metrics are some of {', '.join(measure.NAMES)}. Received: {', '.join(unknown)}.")
    return names


def real_images(load) -> tuple:
    """Training and held-out images by a function of the split; where none are held out, None and a warning."""
    train, held_out = load("train"), None
    try:
        held_out = load("held_out")
    except ValueError as error:
        warnings.warn(
            f"No copies are looked for, since there are no held-out images to compare with: {error}", stacklevel=2
        )
    if held_out is not None and held_out.shape != train.shape:
        warnings.warn(
            f"No copies are looked for: the held-out images are {held_out.shape}, the training images {train.shape}.",
            stacklevel=2,
        )
        held_out = None
    return train, held_out


@contextlib.contextmanager
def progress() -> Iterator:
    """Yields a function of (what is done, images just done) that shows it as a bar for each thing."""
    from ncsn_tf.training.summaries import progress_bar

    bars: dict[str, Any] = {}

    def show(what: str, rows: int) -> None:
        if what not in bars:
            for bar in bars.values():
                bar.close()
            bars[what] = progress_bar(None, "image")
            bars[what].set_description(what, refresh=False)
        bars[what].update(rows)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
