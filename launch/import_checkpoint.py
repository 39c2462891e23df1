"""Turns an official PyTorch checkpoint of NCSN into a run that launch.sample can use and launch.train continues.

python -m launch.import_checkpoint --config=configs/mnist.py --torch_checkpoint=checkpoint.pth --image_size=28
    --workdir=runs/imported

The configuration gives everything but the network's width, its number of levels and the image channels, which are read
from the tensors. Needs torch: pip install 'ncsn_tf[torch]'.
"""

from absl import flags

from .flags import cli, config

_CONFIG = config.define("The configuration that the checkpoint was trained with.", required=True)
_CHECKPOINT = flags.DEFINE_string("torch_checkpoint", None, "The .pth file that ermongroup/ncsn wrote.", required=True)
_IMAGE_SIZE = flags.DEFINE_list("image_size", None, "Side of the images, or HEIGHT,WIDTH.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory, which is created.", required=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read and check everything, write nothing.")


def main() -> None:
    """Imports a checkpoint."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import build
    from ncsn_tf.interop import ncsn
    from ncsn_tf.training.checkpoints import Checkpoints
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        height, width = _size(_IMAGE_SIZE.value)
        official = ncsn.ncsn_from_torch(_CHECKPOINT.value)
        content = _CONFIG.value.to_dict()
        content["network"] |= {"name": "ncsn", "filters": official.filters}
        content["times"] = {"name": "levels", "num_levels": official.num_levels}
        builder = build.Builder(content)
        directory = RunDirectory(_WORKDIR.value)
        if directory.path.exists() and any(directory.path.iterdir()):
            raise ValueError(f"{directory.path} is not empty. Give a --workdir that does not exist yet.")
        shape = (height, width, official.channels)
        trainer = builder.trainer(strategies.create("one_device"), shape)
        for network in (trainer.network, trainer.average):
            network.set_weights(official.get_weights())
    print(
        f"NCSN of width {official.filters}, {official.num_levels} levels, images {shape}: "
        f"{official.count_params():,} parameters"
    )
    if _DRY_RUN.value:
        print(f"Dry run: would write into {directory.path}")
        return
    with cli.usage_errors():
        dataset = {"name": content["data"]["name"], "images": 0, "shape": list(shape), "checksum": None}
        directory.open(content, dataset, devices="imported")
        path = Checkpoints(directory.checkpoints, trainer, keep=1).save()
    print(f"Checkpoint: {path}")
    print(f"Sample: python -m launch.sample --workdir={directory.path}")
    print(f"Continue training: python -m launch.train --workdir={directory.path}")


def _size(words: list[str]) -> tuple[int, int]:
    """Height and width from one or two words."""
    sides = [int(word) for word in words if word.strip().isdigit() and int(word) >= 2]
    if len(sides) != len(words) or len(sides) not in (1, 2):
        raise ValueError(f"--image_size takes one or two numbers of at least 2. Received: {','.join(words)}.")
    return sides[0], sides[-1]


def entry_point() -> None:
    """Entry point of `ncsn-import-checkpoint`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
