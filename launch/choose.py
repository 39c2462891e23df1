"""Chooses noise levels and step size from the data: python -m launch.choose --config=configs/digits.py

Applies Techniques 1, 2 and 4 of Song & Ermon 2020 to the training images of a configuration with the VE SDE: the
largest noise level is the largest distance between two images, the number of levels follows from their dimension, and
the step size of annealed Langevin dynamics from both. Prints each choice with its reason and, as the last line, all of
them as arguments of launch.train for the same --config. Writes nothing. docs/noise_levels.md has examples.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import copy
from typing import TYPE_CHECKING, Any

from absl import flags

from .flags import cli, config, paths

if TYPE_CHECKING:
    from ncsn_tf.data.distances import Distance
    from ncsn_tf.data.images import ImageSource

_CONFIG = config.define("For example configs/digits.py, or digits.", required=True)
_DATA_DIR = paths.define("data_dir", None, "Where TFDS datasets are prepared: config.data.data_dir.", remote=True)
_SAMPLE = flags.DEFINE_integer("sample", None, "Compare this many images, drawn at random; by default all.", 2)
_SEED = flags.DEFINE_integer("seed", 0, "The seed of that draw.", 0, 2**31 - 1)
_SIGMA_MIN = flags.DEFINE_float("sigma_min", None, "The smallest level; by default the configuration's.")
_OVERLAP = flags.DEFINE_float("overlap", None, "The overlap of neighbouring levels, 0 to 0.9973; by default 0.567.")
_STEPS = flags.DEFINE_integer("steps_per_level", None, "Steps per level; by default 5.", 1)
_MAX_EVALUATIONS = flags.DEFINE_integer(
    "max_evaluations", None, "The most evaluations of the score per sample, in place of --steps_per_level.", 1
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read the configuration and the data; compute nothing.")


def main() -> None:
    """Chooses noise levels."""
    from ncsn_tf import noise_levels
    from ncsn_tf.config import build, sections

    with cli.usage_errors():
        content = config.resolved(_CONFIG.value.to_dict())
        if _DATA_DIR.value is not None:
            content.setdefault("data", {})["data_dir"] = _DATA_DIR.value
        techniques = _techniques(sections.check_keys(content))
        builder = build.Builder(content)
        if _DRY_RUN.value:
            builder.forbid_download()
        source = builder.load_images("train")
        print(f"{source.name}: {len(source)} training images {source.shape}")
        if _DRY_RUN.value:
            print(f"Dry run: would compare {_SAMPLE.value or len(source)} of them")
            return
        distance = _largest_distance(source)
        choice = noise_levels.choose(
            distance.value,
            source.images[0].size,
            sigma_min=content["sde"]["sigma_min"] if _SIGMA_MIN.value is None else _SIGMA_MIN.value,
            overlap=noise_levels.OVERLAP if _OVERLAP.value is None else _OVERLAP.value,
            steps_per_level=_STEPS.value,
            max_evaluations=_MAX_EVALUATIONS.value,
            denoise=4 in techniques and builder.sampler_options.denoise,
        )
        decisions = [decision for decision in choice.decisions() if decision.technique in techniques]
        arguments = [argument for decision in decisions for argument in decision.overrides()]
        if 4 in techniques and content["sampler"]["num_levels"] is not None:
            arguments.append("--config.sampler.num_levels=None")  # the step size is for a walk through all levels
        build.Builder(_changed(content, arguments))  # what is printed is accepted
    for decision in decisions:
        values = ", ".join(f"{key}={value!r}" for key, value in decision.values.items())
        print(f"Technique {decision.technique}: {values}\n  {decision.reason}")
        if decision.technique == 1:
            print(f"  {distance.basis()}")
    print(f"Arguments of launch.train:\n{' '.join(arguments)}")


def _techniques(names: dict[str, str]) -> tuple[int, ...]:
    """The techniques that apply to a configuration, given the choices of its sections.

    Raises:
      ValueError: if none applies, and for flags of a technique that does not.
    """
    process, grid, walk = names["sde"], names["times"], names["sampler"]
    if process != "ve":
        raise ValueError(
            "Noise levels are chosen for the VE SDE, whose largest one depends on the data. Those of other SDEs are "
            f"the same for all data. Received: config.sde.name={process}."
        )
    if grid == "levels" and walk == "annealed_langevin":
        return 1, 2, 4
    if _STEPS.value is not None or _MAX_EVALUATIONS.value is not None:
        raise ValueError(
            "--steps_per_level and --max_evaluations need times.name=levels and sampler.name=annealed_langevin. "
            f"Received: config.times.name={grid}, config.sampler.name={walk}."
        )
    if grid != "levels" and _OVERLAP.value is not None:
        raise ValueError(f"--overlap needs times.name=levels. Received: config.times.name={grid}.")
    return (1, 2) if grid == "levels" else (1,)


def _largest_distance(source: "ImageSource") -> "Distance":
    from ncsn_tf.data import distances
    from ncsn_tf.progress import progress_bar

    with progress_bar(_SAMPLE.value or len(source), "image") as bar:
        return distances.largest_distance(source.images, sample=_SAMPLE.value, seed=_SEED.value, on_images=bar.update)


def _changed(content: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """The configuration with the values of some arguments."""
    from ncsn_tf.config import sections

    changed = copy.deepcopy(content)
    for argument in arguments:
        path, _, text = argument.removeprefix("--config.").partition("=")
        sections.override(changed, path, text)
    return changed


def entry_point() -> None:
    """Entry point of `ncsn-choose`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
