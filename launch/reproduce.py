"""Reproduces a figure of a paper: python -m launch.reproduce --paper=song_ermon_2019 --figure=3

Writes PAPER_figure_N.png, the picture, and PAPER_figure_N.json, its numbers, into --output. Figures and flags:

  song_ermon_2019  1  sliced score matching on images with and without a little noise   --data_name --steps
                   2  a learnt score beside the data's, error by density region         --steps
                   3  mode weights of exact, Langevin and annealed Langevin samples      --num_samples
                   4  walks of annealed Langevin dynamics from a trained run  --workdir --checkpoint --num_samples
  hyvarinen_2005   1  ICA, score matching against maximum likelihood over sample sizes  --runs
                   2  the same with a misspecified density                              --runs
                   3  filters of overcomplete ICA on natural image patches              --data_name --patches
                   4  their largest dot products                                        --data_name --patches

All take --seed. --data_name, with --data_dir and --image_size, names images as config.data does.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import dataclasses
import tempfile
import time
from typing import Any

from absl import flags

from .flags import cli, paths, run, size

_PAPERS = ("song_ermon_2019", "hyvarinen_2005")
_PAPER = flags.DEFINE_enum("paper", _PAPERS[0], _PAPERS, "The paper.")
_FIGURE = flags.DEFINE_integer("figure", None, "The figure's number, 1 to 4.", 1, 4, required=True)
_OUTPUT = paths.define("output", None, "The folder to write into, by default figures; created if it does not exist.")
_SEED = flags.DEFINE_integer("seed", 0, "The seed of everything random.", 0, 2**31 - 1)
_DATA_NAME = paths.define_dataset("data_name", "'digits', a TFDS dataset, or a path to images, TFRecords or arrays.")
_DATA_DIR = paths.define("data_dir", None, "Where TFDS datasets are prepared.", remote=True)
_IMAGE_SIZE = size.define("image_size", "Resize the images.")
_STEPS = flags.DEFINE_integer("steps", None, "Training steps.", 1)
_RUNS = flags.DEFINE_integer("runs", None, "Data sets for each sample size.", 1)
_PATCHES = flags.DEFINE_integer("patches", None, "How many patches to learn from.", 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "Samples of each sampler, or walks to show.", 1)
_WORKDIR = paths.define("workdir", None, "The trained run.")
_CHECKPOINT = flags.DEFINE_integer("checkpoint", None, "The checkpoint's step; by default the newest.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read the flags and the data, compute nothing, write nothing.")

_IMAGES = ("data_name", "data_dir", "image_size")
_READ = {
    ("song_ermon_2019", 1): (*_IMAGES, "steps"),
    ("song_ermon_2019", 2): ("steps",),
    ("song_ermon_2019", 3): ("num_samples",),
    ("song_ermon_2019", 4): ("workdir", "checkpoint", "num_samples"),
    ("hyvarinen_2005", 1): ("runs",),
    ("hyvarinen_2005", 2): ("runs",),
    ("hyvarinen_2005", 3): (*_IMAGES, "patches"),
    ("hyvarinen_2005", 4): (*_IMAGES, "patches"),
}


def main() -> None:
    """Reproduces the figure."""
    from ncsn_tf import files
    from ncsn_tf.objectives import NonFiniteLossError
    from ncsn_tf.reproduction import hyvarinen_2005, song_ermon_2019_sampling, song_ermon_2019_training

    functions = {
        ("song_ermon_2019", 1): song_ermon_2019_training.figure1,
        ("song_ermon_2019", 2): song_ermon_2019_training.figure2,
        ("song_ermon_2019", 3): song_ermon_2019_sampling.figure3,
        ("song_ermon_2019", 4): song_ermon_2019_sampling.figure4,
        ("hyvarinen_2005", 1): hyvarinen_2005.figure1,
        ("hyvarinen_2005", 2): hyvarinen_2005.figure2,
        ("hyvarinen_2005", 3): hyvarinen_2005.figure3,
        ("hyvarinen_2005", 4): hyvarinen_2005.figure4,
    }
    which = (_PAPER.value, _FIGURE.value)
    name = f"{_PAPER.value}_figure_{_FIGURE.value}"
    with cli.usage_errors():
        output = files.local_path(_OUTPUT.value or "figures")
        options = _options(which)
        if output.exists() and not output.is_dir():
            raise ValueError(f"{output} is a file. Give another --output.")
        if not _DRY_RUN.value:
            output.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=output):
                pass  # an hour's work should not end at a folder that is not writable
    described = ", ".join(
        f"{key}={getattr(value, 'name', getattr(value, 'path', value))}" for key, value in options.items()
    )
    print(f"Figure {_FIGURE.value} of {_PAPER.value}: {described}")
    if _DRY_RUN.value:
        print(f"Dry run: would write {output / name}.png and {output / name}.json")
        return
    begun = time.perf_counter()
    try:
        with cli.usage_errors():  # the figures check their own options before they compute
            figure = functions[which](**options)
            figure = dataclasses.replace(figure, numbers=run.environment() | figure.numbers)
            picture, numbers = figure.save(output, name)
    except NonFiniteLossError as error:
        cli.fail(error, cli.FAILURE)
    print(figure.caption)
    print(f"{time.perf_counter() - begun:.0f} seconds. Picture: {picture}. Numbers: {numbers}")


def _options(which: tuple[str, int]) -> dict:
    """The keyword arguments of the figure's function, from the flags that it reads.

    Raises:
      ValueError: for a flag that the figure does not read, a missing run, or images that cannot be read.
    """
    from ncsn_tf.data import images
    from ncsn_tf.training import checkpoints
    from ncsn_tf.training.run_directory import RunDirectory

    choices = (_DATA_NAME, _DATA_DIR, _IMAGE_SIZE, _STEPS, _RUNS, _PATCHES, _NUM_SAMPLES, _WORKDIR, _CHECKPOINT)
    given: dict[str, Any] = {flag.name: flag.value for flag in choices if flag.value is not None}
    for name in given:
        if name not in _READ[which]:
            readers = ", ".join(f"{paper} {number}" for (paper, number), read in _READ.items() if name in read)
            raise ValueError(f"--{name} has no effect on figure {which[1]} of {which[0]}; it belongs to {readers}.")
    options: dict[str, Any] = {
        "seed": _SEED.value,
        **{name: value for name, value in given.items() if name not in _IMAGES},
    }
    if "data_name" in given:
        options["source"] = images.load(
            given["data_name"], "train", data_dir=given.get("data_dir"), image_size=given.get("image_size")
        )
    elif "data_dir" in given or "image_size" in given:
        raise ValueError("--data_dir and --image_size belong to --data_name, which is not given.")
    if which == ("song_ermon_2019", 4):
        if "workdir" not in options:
            raise ValueError("Figure 4 shows the samples of a trained run: give its --workdir.")
        directory = RunDirectory(options.pop("workdir"))
        directory.config()
        checkpoints.find(directory.checkpoints, options.get("checkpoint"))
        options = {"directory": directory, **options}
    return options


def entry_point() -> None:
    """Entry point of `ncsn-reproduce`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
