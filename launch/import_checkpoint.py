"""Turns an official PyTorch checkpoint of NCSN into a run that launch.sample can use and launch.train continues.

python -m launch.import_checkpoint --config=configs/mnist.py --torch_checkpoint=checkpoint.pth --image_size=28
    --workdir=runs/imported

The configuration gives everything but the network's width, its number of levels and the image channels, which are read
from the tensors. The weights may be anywhere in the file; where it holds raw and averaged ones, the averaged are taken,
unless --weights=raw says otherwise. Needs torch: pip install 'ncsn_tf[torch]'.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import shlex
from typing import Any

from absl import flags

from .flags import cli, config, paths, size

_CONFIG = config.define("The configuration that the checkpoint was trained with.", required=True)
_CHECKPOINT = paths.define("torch_checkpoint", None, "The .pth file that ermongroup/ncsn wrote.", required=True)
_WEIGHTS = flags.DEFINE_enum("weights", None, ("raw", "average"), "By default the averaged ones if there are any.")
_IMAGE_SIZE = size.define("image_size", "The size of the images.", required=True)
_WORKDIR = paths.define("workdir", None, "The run's directory, which is created.", required=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read and check everything, write nothing.")


def main() -> None:
    """Imports a checkpoint."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import build
    from ncsn_tf.interop import ncsn
    from ncsn_tf.training.checkpoints import Checkpoints
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        given = _IMAGE_SIZE.value
        height, width = (given, given) if isinstance(given, int) else given
        directory = RunDirectory(_WORKDIR.value)
        if directory.path.exists() and any(directory.path.iterdir()):
            raise ValueError(f"{directory.path} is not empty. Give a --workdir that does not exist yet.")
        checkpoint = ncsn.read_checkpoint(_CHECKPOINT.value, _WEIGHTS.value)
        official = checkpoint.network
        content = config.resolved(_CONFIG.value.to_dict())
        _set(content, "network", "ncsn", filters=official.filters)
        _set(content, "times", "levels", num_levels=official.num_levels)
        builder = build.Builder(content)
        checkpoint.check_sigmas(builder.sigmas)
        shape = (height, width, official.channels)
        trainer = builder.trainer(strategies.create("one_device"), shape)
        for network in (trainer.network, trainer.average):
            network.set_weights(official.get_weights())
    print(
        f"NCSN of width {official.filters}, {official.num_levels} levels, images {shape}: "
        f"{official.count_params():,} parameters"
    )
    other = f"; --weights={checkpoint.also} takes the others" if checkpoint.also else ""
    print(f"Weights: {checkpoint.weights}{other}")
    if _DRY_RUN.value:
        print(f"Dry run: would write into {directory.path}")
        return
    with cli.usage_errors():
        dataset = {"name": content["data"]["name"], "images": 0, "shape": list(shape), "checksum": None}
        directory.open(content, dataset, devices=strategies.describe(trainer.strategy))
        path = Checkpoints(directory.checkpoints, trainer, keep=1).save()
    print(f"Checkpoint: {path}")
    run = shlex.quote(str(directory.path))
    print(f"Sample: python -m launch.sample --workdir={run}")
    print(f"Continue training: python -m launch.train --workdir={run}")


def _set(content: dict[str, Any], section: str, choice: str, **values: int) -> None:
    """Sets values of a section in place; what the configuration does not say of this choice has its default."""
    from ncsn_tf.config import sections

    given = content.get(section, {})
    kept = given if isinstance(given, dict) and given.get("name", choice) == choice else {}
    content[section] = {**sections.section(section, choice).to_dict(), **kept, "name": choice, **values}


def entry_point() -> None:
    """Entry point of `ncsn-import-checkpoint`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
