"""The flags that say how images are evaluated: by which feature network, and against which statistics."""

import contextlib
import dataclasses
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from ncsn_tf.evaluation import names

from . import paths, run

if TYPE_CHECKING:
    from ncsn_tf.data.images import ImageSource
    from ncsn_tf.evaluation.evaluator import Evaluator
    from ncsn_tf.evaluation.features import FeatureNetwork


@dataclasses.dataclass(frozen=True)
class EvaluatorFlags:
    """The flags of the evaluator, defined."""

    features: flags.FlagHolder
    inception_path: flags.FlagHolder
    classifier_path: flags.FlagHolder
    reference: flags.FlagHolder

    def feature_network(self, default: str, data_name: str, *, dry: bool = False) -> "FeatureNetwork | None":
        """The feature network of the flags; None in a dry run that would have to train it.

        Args:
          default: the kind, where no flag gives it.
          data_name: the dataset; the digits' classifier is trained when it is first needed, in seconds.
          dry: train nothing.

        Raises:
          ValueError: if the flags contradict each other, or the network is unavailable.
        """
        from ncsn_tf.data.names import DIGITS
        from ncsn_tf.evaluation import classifier, features

        kinds = {
            self.features.value,
            names.INCEPTION if self.inception_path.value else None,
            names.CLASSIFIER if self.classifier_path.value else None,
        }
        kinds.discard(None)
        if len(kinds) > 1:
            raise ValueError("--features, --inception_path and --classifier_path ask for different networks; give one.")
        kind = kinds.pop() if kinds else default
        if kind == names.INCEPTION:
            return features.load_inception(self.inception_path.value)
        if self.classifier_path.value is not None:
            return features.load_classifier(self.classifier_path.value)
        if data_name == DIGITS:
            path = features.cache_directory() / "classifiers" / DIGITS
            if dry and not path.exists():
                return None
            return features.load_classifier(classifier.ensure_digits(path, run.environment))
        raise ValueError(
            f"There is no classifier of {data_name!r} yet. If its images have labels (in a folder: a subfolder per "
            f"class), train one with launch.train_classifier --data_name={shlex.quote(data_name)} --output=DIR and the "
            "run's --image_size, --center_crop and --channels, and give --classifier_path=DIR. Without labels, use "
            "--features=inception."
        )

    def evaluator(
        self,
        shape: tuple[int, int, int],
        default: str,
        preparation: Mapping[str, Any],
        train: "ImageSource | None" = None,
        held_out: "ImageSource | None" = None,
        *,
        dry: bool = False,
    ) -> "Evaluator | None":
        """The evaluator of samples; None in a dry run that would have to compute the real images' statistics.

        Args:
          shape: (H, W, C) of the samples.
          default: the feature network's kind, where neither a flag nor the statistics give it.
          preparation: how the real images were prepared, for the record.
          train: the model's training images; without them --reference must be given, and no copies are looked for.
          held_out: images that were not trained on; None likewise.
          dry: check everything that can be checked without computing.

        Raises:
          ValueError: if something is unavailable or does not fit.
        """
        from ncsn_tf.evaluation import evaluator, references

        given = references.load(self.reference.value) if self.reference.value is not None else None
        if train is None and given is None:
            raise ValueError("Against which images? Give --workdir, --data_name, or statistics by --reference.")
        if train is not None and train.shape != tuple(shape):
            raise ValueError(
                f"The real images are {train.shape}, the samples {tuple(shape)}. Give --data_name with --image_size or "
                "--channels that make them equal; a distance would measure the resizing."
            )
        about = (given.about or {}) if given is not None else {}
        name = train.name if train is not None else about.get("dataset", {}).get("name", "")
        network = self.feature_network(about.get("feature_network", {}).get("kind", default), name, dry=dry)
        if network is None:
            return None
        network.check_shape(shape)
        if given is None:
            if dry or train is None:
                return None
            with progress() as show:
                given = evaluator.cached_reference(
                    network, train, split="train", preparation=preparation, progress=show
                )
        return evaluator.Evaluator(
            network,
            given,
            shape=shape,
            dataset=train.describe() if train is not None else None,
            preparation=preparation if train is not None else None,
            train=train,
            held_out=held_out,
        )


def define() -> EvaluatorFlags:
    """Defines --features, --inception_path, --classifier_path and --reference."""
    return EvaluatorFlags(
        features=flags.DEFINE_enum(
            "features",
            None,
            names.FEATURE_KINDS,
            "The feature network: TF-GAN's Inception, or a classifier of the dataset's classes; by default the run's.",
        ),
        inception_path=paths.define(
            "inception_path", None, "A SavedModel of TF-GAN's Inception; by default it comes from TF-Hub, once."
        ),
        classifier_path=paths.define(
            "classifier_path", None, "A classifier of launch.train_classifier; by default that of the embedded digits."
        ),
        reference=paths.define(
            "reference",
            None,
            "Statistics of real images, of launch.reference_statistics or any program's mu and sigma.",
        ),
    )


def real_images(load: "Callable[[str], ImageSource]") -> "tuple[ImageSource, ImageSource | None]":
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
def progress() -> Iterator[Callable[[str, int], None]]:
    """Yields a function of (activity, images just done) that shows a bar per activity."""
    from ncsn_tf.progress import progress_bar

    bars: dict[str, Any] = {}

    def show(activity: str, rows: int) -> None:
        if activity not in bars:
            for bar in bars.values():
                bar.close()
            bars[activity] = progress_bar(None, "image")
            bars[activity].set_description(activity, refresh=False)
        bars[activity].update(rows)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()


def check_metrics(values: list[str] | None) -> tuple[str, ...]:
    """The metrics of a flag, by default all; raises ValueError for an unknown one."""
    unknown = sorted(set(values or []) - set(names.METRICS))
    if unknown:
        raise ValueError(f"--metrics are some of {', '.join(names.METRICS)}. Received: {', '.join(unknown)}.")
    return tuple(values or names.METRICS)
