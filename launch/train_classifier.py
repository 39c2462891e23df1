"""Trains a classifier of a dataset's classes, a feature network for evaluation, and writes it down:

python -m launch.train_classifier --data_name=digits --output=classifiers/digits

Writes into --output, a folder that must not be there yet or be empty, a SavedModel and
  about.json       dataset, classes, held-out accuracy, seed, steps, batch size, the input's scale, versions

--data_name is 'digits' or a TFDS dataset with labels. --data_dir, --image_size, --center_crop and --channels say how
its images are read, as config.data does; give those of the run whose samples are to be compared.

Measured with the defaults and seed 0, held-out accuracy and processor time on x86, all cores together: digits 99.7 %,
10 seconds; mnist 99.3 %, 4 minutes; cifar10 82.4 %, 12 minutes.
"""

import pathlib
import tempfile
import time
from typing import Any

from absl import flags

from launch.flags import cli

_DATA_NAME = flags.DEFINE_string("data_name", None, "'digits', or a TFDS dataset with labels.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The folder to make.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS datasets are prepared.")
_DOWNLOAD = flags.DEFINE_bool("download", False, "Let TFDS download and prepare what is not there.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Resize the images to this side.", 1)
_CENTER_CROP = flags.DEFINE_integer("center_crop", None, "Side of a square cut out before resizing.", 1)
_CHANNELS = flags.DEFINE_integer("channels", None, "1 or 3 converts.", 1, 3)
_STEPS = flags.DEFINE_integer("steps", None, "Training steps; by default as many as suit the dataset.", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images a step; by default 128, of digits 64.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of everything random.", 0, 2**31 - 1)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read the flags and the data, train nothing, write nothing.")


def main() -> None:
    """Trains a classifier."""
    from ncsn_tf.evaluation import classifier
    from ncsn_tf.training.summaries import progress_bar

    name, output = _DATA_NAME.value, pathlib.Path(_OUTPUT.value)
    with cli.user_mistakes():
        classifier.check_free(output)
        source, labels = _read(name, "train")
        held_out, held_out_labels = _read(name, "held_out")
        if not _DRY_RUN.value:
            output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=output.parent):
                pass  # minutes of work should not end at a folder that cannot be written to
    given = {"seed": _SEED.value, "steps": _STEPS.value, "batch_size": _BATCH_SIZE.value}
    options = classifier.default_training(name) | {key: value for key, value in given.items() if value is not None}
    print(f"{labels.num_classes} classes of {name}: {len(source)} images {source.shape}, {len(held_out)} held out")
    if _DRY_RUN.value:
        print(f"Dry run: would take {options['steps']} steps and write {output}")
        return
    begun = time.perf_counter()
    try:
        with progress_bar(options["steps"], "step") as bar:

            def show(step: int, loss: float) -> None:
                bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
                bar.update()

            trained = classifier.train(source.images, labels.values, labels.num_classes, log=show, **options)
    except classifier.NonFiniteLossError as error:
        cli.fail(error, cli.FAILURE)
    share = classifier.accuracy(trained, held_out.images, held_out_labels.values)
    print(f"Held-out accuracy: {share:.2%} of {len(held_out)} images, {time.perf_counter() - begun:.0f} seconds")
    about = classifier.record(source, held_out_images=len(held_out), held_out_accuracy=share, **options)
    with cli.user_mistakes():
        classifier.export(trained, output, about)
    print(f"Classifier: {output}")


def _read(name: str, split: str):
    """The images of a split and their labels; the labels first, whose lack is the commoner mistake and costs less."""
    from ncsn_tf.data import images, labels

    where: dict[str, Any] = {"data_dir": _DATA_DIR.value, "download": _DOWNLOAD.value}
    preparation: dict[str, Any] = {
        "image_size": _IMAGE_SIZE.value,
        "center_crop": _CENTER_CROP.value,
        "channels": _CHANNELS.value,
    }
    classes = labels.load(name, split, **where)
    return images.load(name, split, **where, **preparation), classes


def run() -> None:
    """Entry point of `ncsn-train-classifier`."""
    cli.run(main)


if __name__ == "__main__":
    run()
