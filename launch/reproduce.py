"""Reproduces a figure or a table of a paper: python -m launch.reproduce --paper=song_ermon_2019 --figure=3

Writes PAPER_figure_N.png, the picture, and PAPER_figure_N.json, its numbers, into --output; of a table it writes
PAPER_table_N.md, .csv and .json. Figures, tables and the flags that they read:

  song_ermon_2019  1  sliced score matching on images with and without a little noise   --data_name --steps
                   2  a learnt score beside the data's, error by density region         --steps
                   3  mode weights of exact, Langevin and annealed Langevin samples      --num_samples
                   4  walks of annealed Langevin dynamics from a trained run  --workdir --checkpoint --num_samples
  hyvarinen_2005   1  ICA, score matching against maximum likelihood over sample sizes  --runs
                   2  the same with a misspecified density                              --runs
                   3  filters of overcomplete ICA on natural image patches              --data_name --patches
                   4  their largest dot products                                        --data_name --patches
  song_2021  table 1  predictors with and without corrector, on trained runs  --ve --vp --steps --num_samples --seeds
                      --batch_size --ve_ratio --vp_ratio
             table 2  bits per dimension, and samples by the flow if asked for  --run --run ... --num_images
                      --dequantizations --probes --num_samples --seeds --batch_size
             3  the probability flow over its tolerance   --workdir --tolerances --num_samples --seeds --batch_size
             7  codes of images by two runs with one SDE  --run --run --num_images --batch_size
             9  a budget of evaluations split between predictor and corrector  --workdir --budgets --ratio
                --num_samples --seeds --batch_size

All take --seed. --data_name, with --data_dir and --image_size, names images as config.data does. Those of song_2021
measure samples as launch.evaluate does, with its --features, --classifier_path, --inception_path and --reference, and
likelihoods as launch.likelihood does. After a kill the same command resumes a table from the last cell and seed.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import contextlib
import dataclasses
import pathlib
import tempfile
import time

from absl import flags

from .flags import cli, evaluator, paths, reproduction, run

_FLAGS = reproduction.define()
_OUTPUT = paths.define("output", None, "The folder to write into, by default figures; created if it does not exist.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read the flags and the data, compute nothing, write nothing.")


def main() -> None:
    """Reproduces the figure or the table."""
    from ncsn_tf import files, ode
    from ncsn_tf.objectives import NonFiniteLossError

    with cli.usage_errors():
        which = _FLAGS.which()
        output = files.local_path(_OUTPUT.value or "figures")
        options = _FLAGS.options(which, output, dry=_DRY_RUN.value)
        if output.exists() and not output.is_dir():
            raise ValueError(f"{output} is a file. Give another --output.")
        if not _DRY_RUN.value:
            output.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=output):
                pass  # an hour's work should not end at a folder that is not writable
    title = reproduction.title(which).capitalize()
    described = ", ".join(f"{name}={value}" for name, value in _FLAGS.given(which).items())
    print(f"{title}: {', '.join(filter(None, [described, f'seed={_FLAGS.seed.value}']))}")
    name = "_".join(str(part) for part in which)
    if _DRY_RUN.value:
        ending = "png" if which[1] == "figure" else "md"
        print(f"Dry run: would write {output / name}.{ending} and {output / name}.json")
        return
    try:
        _reproduce(which, options, output, name)
    except (NonFiniteLossError, ode.NotConvergedError) as error:
        cli.fail(error, cli.FAILURE)


def _reproduce(which: reproduction.Which, options: dict, output: pathlib.Path, name: str) -> None:
    """Computes, writes, and prints what was found."""
    from ncsn_tf.reproduction.table import Table

    begun = time.perf_counter()
    with cli.usage_errors(), contextlib.ExitStack() as stack:  # the functions check their options before they compute
        if which[0] == "song_2021":
            options["progress"] = stack.enter_context(evaluator.progress())
        found = _functions()[which](**options)
        found = dataclasses.replace(found, numbers=run.environment() | found.numbers)
        shown, numbers = found.save(output, name)
    print(found.caption)
    if isinstance(found, Table):
        print(f"\n{found.text}\n")
    kind = "Table" if isinstance(found, Table) else "Picture"
    print(f"{time.perf_counter() - begun:.0f} seconds. {kind}: {shown}. Numbers: {numbers}")


def _functions() -> dict:
    """The functions of all figures and tables."""
    from ncsn_tf.reproduction import (
        hyvarinen_2005,
        hyvarinen_2005_overcomplete,
        song_2021_figure_3,
        song_2021_figure_7,
        song_2021_figure_9,
        song_2021_table_1,
        song_2021_table_2,
        song_ermon_2019_sampling,
        song_ermon_2019_training,
    )

    return {
        ("song_ermon_2019", "figure", 1): song_ermon_2019_training.figure1,
        ("song_ermon_2019", "figure", 2): song_ermon_2019_training.figure2,
        ("song_ermon_2019", "figure", 3): song_ermon_2019_sampling.figure3,
        ("song_ermon_2019", "figure", 4): song_ermon_2019_sampling.figure4,
        ("hyvarinen_2005", "figure", 1): hyvarinen_2005.figure1,
        ("hyvarinen_2005", "figure", 2): hyvarinen_2005.figure2,
        ("hyvarinen_2005", "figure", 3): hyvarinen_2005_overcomplete.figure3,
        ("hyvarinen_2005", "figure", 4): hyvarinen_2005_overcomplete.figure4,
        ("song_2021", "figure", 3): song_2021_figure_3.figure3,
        ("song_2021", "figure", 7): song_2021_figure_7.figure7,
        ("song_2021", "figure", 9): song_2021_figure_9.figure9,
        ("song_2021", "table", 1): song_2021_table_1.table1,
        ("song_2021", "table", 2): song_2021_table_2.table2,
    }


def entry_point() -> None:
    """Entry point of `ncsn-reproduce`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
