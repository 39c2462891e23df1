"""Computes the statistics that samples are compared with: python -m launch.reference_statistics --data_name=cifar10

Writes to --output, by default into the cache where launch.evaluate looks first, an .npz with mu and sigma, as other
programs read it, the count, the features, and where they come from: dataset and checksum, split, preparation, the
feature network's hash and resize, versions, device, command. --data_name with the flags beside it names images as
config.data does, --workdir the images of a run.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import dataclasses
import pathlib
import tempfile

from absl import flags

from .flags import cli, data, evaluator, paths, run

_IMAGES = data.define()
_EVALUATOR = evaluator.define()
_WORKDIR = paths.define("workdir", None, "A run whose training images are used, in place of --data_name.")
_SPLIT = flags.DEFINE_string("split", "train", "train, held_out, or a part of one: train[:10000].")
_OUTPUT = paths.define("output", None, "The .npz to write; by default into the cache.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Images at a time; bounds the memory.", 1)
_KEEP = flags.DEFINE_bool("keep_features", True, "Write the features too, which KID, precision and recall need.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read the flags, the data and the network; compute and write nothing.")


def main() -> None:
    """Computes statistics."""
    from ncsn_tf.config import build
    from ncsn_tf.data.names import DIGITS
    from ncsn_tf.evaluation import names, references
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        _IMAGES.refuse_without_name()
        if not _KEEP.value and _OUTPUT.value is None:
            raise ValueError("Statistics without features go into a file of their own: give --output.")
        if (_WORKDIR.value is None) == (_IMAGES.name.value is None):
            raise ValueError("Give either --data_name or --workdir, to say which images to use.")
        if _WORKDIR.value is not None:
            directory = RunDirectory(_WORKDIR.value)
            builder = build.Builder(directory.config())
            source, preparation = builder.load_images(_SPLIT.value), builder.preparation
            if _SPLIT.value == "train":
                directory.check_images(source.describe())
            kind = builder.evaluation.features
        else:
            source, preparation = _IMAGES.load(_SPLIT.value), _IMAGES.preparation()
            kind = names.CLASSIFIER if _IMAGES.name.value == DIGITS else names.INCEPTION
        network = _EVALUATOR.feature_network(kind, source.name, dry=_DRY_RUN.value)
        if network is None:
            print("Dry run: would train the classifier of the digits, and write the statistics of its features")
            return
        network.check_shape(source.shape)
        path = references.cached_path(network, source) if _OUTPUT.value is None else pathlib.Path(_OUTPUT.value)
        if path.suffix != ".npz" or path.is_dir():
            raise ValueError(f"--output is an .npz file to write. Received: {path}.")
        if _OUTPUT.value is not None and path.exists():
            raise ValueError(f"{path} exists. Remove it, or give another --output.")
        print(f"{len(source)} images {source.shape} of {source.name}, {_SPLIT.value}; {network.kind} {network.path}")
        if _DRY_RUN.value:
            print(f"Dry run: would write {path}")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass  # minutes of work should not end at a folder that is not writable
        with evaluator.progress() as show:
            found = references.compute(
                network,
                source,
                split=_SPLIT.value,
                preparation=preparation,
                batch_size=_BATCH_SIZE.value,
                on_batch=lambda rows: show("features", rows),
            )
        found = dataclasses.replace(found, about={**(found.about or {}), **run.environment()})
        found.save(path, features=_KEEP.value)
    print(f"Statistics: {path}")


def entry_point() -> None:
    """Entry point of `ncsn-reference-statistics`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
