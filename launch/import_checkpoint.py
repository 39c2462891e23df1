"""Turns a PyTorch checkpoint of the authors' programs into a run that launch.sample draws from.

python -m launch.import_checkpoint --torch_checkpoint=checkpoint_24.pth --image_size=32 --workdir=runs/ncsnpp
python -m launch.import_checkpoint --torch_checkpoint=checkpoint.pth --config=configs/mnist.py --image_size=28
    --workdir=runs/mnist

It reads NCSN (ermongroup/ncsn), NCSNv2 (ermongroup/ncsnv2), and NCSN++, DDPM++ and DDPM (yang-song/score_sde_pytorch),
and tells them apart by their tensors. What these do not tell is taken from --model_config, the authors' configuration
as a JSON file, else from the published models of the family, which is printed. --config gives the rest of the run's
configuration (data, training, sampler), and the noise levels of an NCSN, whose checkpoints have none. The weights may
be anywhere in the file; where it holds raw and averaged ones, the averaged are taken, unless --weights=raw is given.
launch.train continues the run. Needs torch: pip install 'ncsn_tf[torch]'.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from .flags import cli, config, paths, size

if TYPE_CHECKING:
    from ncsn_tf.config.build import Builder
    from ncsn_tf.interop.checkpoints import Checkpoint

_CONFIG = config.define("What the checkpoint does not tell: data, training, sampler. By default as was published.")
_MODEL_CONFIG = paths.define("model_config", None, "A JSON file with the authors' configuration, or its model section.")
_CHECKPOINT = paths.define("torch_checkpoint", None, "The .pth file that an authors' program wrote.", required=True)
_WEIGHTS = flags.DEFINE_enum("weights", None, ("raw", "average"), "By default the averaged ones if there are any.")
_IMAGE_SIZE = size.define("image_size", "The size of the images, if no configuration gives it.")
_WORKDIR = paths.define("workdir", None, "The run's directory, which is created.", required=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Read and check everything, write nothing.")


def main() -> None:
    """Imports a checkpoint."""
    from ncsn_tf.cluster import strategies
    from ncsn_tf.config import build
    from ncsn_tf.interop import loading
    from ncsn_tf.training.checkpoints import Checkpoints
    from ncsn_tf.training.run_directory import RunDirectory

    with cli.usage_errors():
        directory = RunDirectory(_WORKDIR.value)
        if directory.path.exists() and any(directory.path.iterdir()):
            raise ValueError(f"{directory.path} is not empty. Give a --workdir that does not exist yet.")
        given = None if _CONFIG.value is None else config.resolved(_CONFIG.value.to_dict())
        checkpoint = loading.read_checkpoint(_CHECKPOINT.value, _MODEL_CONFIG.value, _WEIGHTS.value, _IMAGE_SIZE.value)
        shape = (*_image_size(checkpoint, given), checkpoint.network.channels)
        content = _content(checkpoint, given, shape)
        builder = build.Builder(content)
        compared = given is None or _check_data(builder, shape)
    _report(checkpoint, content, shape)
    if not compared:
        print(f"Data: {content['data']['name']} is not here yet, and was not compared with the images' shape.")
    if _DRY_RUN.value:
        print(f"Dry run: would write into {directory.path}")
        return
    with cli.usage_errors():
        trainer = builder.trainer(strategies.create("one_device"), shape)
        for network in (trainer.network, trainer.average):
            network.set_weights(checkpoint.network.get_weights())
        dataset = {"name": content["data"]["name"], "images": 0, "shape": list(shape), "checksum": None}
        directory.open(content, dataset, devices=strategies.describe(trainer.strategy))
        path = Checkpoints(directory.checkpoints, trainer, keep=1).save()
    print(f"Checkpoint: {path}")
    run = shlex.quote(str(directory.path))
    print(f"Sample: python -m launch.sample --workdir={run}")
    print(f"Continue training: python -m launch.train --workdir={run}")


def _image_size(checkpoint: "Checkpoint", given: Mapping[str, Any] | None) -> tuple[int, int]:
    """The size of the images from the flag, the authors' configuration, or ours, which must not differ."""
    told = {
        "--image_size": _IMAGE_SIZE.value,
        "the checkpoint or --model_config": checkpoint.image_size,
        "config.data.image_size": given and given["data"]["image_size"],
    }
    found = {name: (size, size) if isinstance(size, int) else tuple(size) for name, size in told.items() if size}
    if not found:
        raise ValueError(f"The size of the images of this {checkpoint.family} is unknown. Give --image_size.")
    if len(set(found.values())) > 1:
        sizes = ", ".join(f"{name} has {height}x{width}" for name, (height, width) in found.items())
        raise ValueError(f"The size of the images must be one: {sizes}. Leave out what is wrong.")
    height, width = next(iter(found.values()))
    return height, width


def _check_data(builder: "Builder", shape: tuple[int, int, int]) -> bool:
    """Whether the training images are here; raises ValueError if they have another shape than the network's."""
    builder.forbid_download()
    try:
        found = builder.load_images("train").shape
    except (OSError, ValueError, RuntimeError, AssertionError):  # the data may well come later
        return False
    if found != shape:
        raise ValueError(
            f"The network is for images of {shape}, and {builder.data_name} has {found}. Give the --config of its "
            "data, with data.image_size and data.channels if they are to be changed."
        )
    return True


def _content(checkpoint: "Checkpoint", given: dict[str, Any] | None, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The run's configuration: what the checkpoint tells, and otherwise the given one, or as was published."""
    from ncsn_tf.config import sections

    content = sections.ncsn().to_dict() if given is None else given
    if "sde" not in checkpoint.sections and content["sde"]["name"] != "ve":
        raise ValueError(f"A checkpoint of {checkpoint.family} needs sde.name=ve. Received: {content['sde']['name']}.")
    if given is None:
        if not {"sde", "times"} <= checkpoint.sections.keys():
            raise ValueError(
                f"A checkpoint of {checkpoint.family} does not tell its noise levels. Give --config with them, or "
                "--model_config."
            )
        side = shape[0] if shape[0] == shape[1] else shape[:2]
        content["data"] |= {"image_size": side, "channels": shape[2] if shape[2] in (1, 3) else None}
        for name, choice, values in _published(checkpoint.sections, shape):
            _set(content, name, choice, values)
    for name, told in checkpoint.sections.items():
        _set(content, name, told["name"], told)
    return content


def _published(told: Mapping[str, Mapping[str, Any]], shape: tuple[int, int, int]):
    """Yields (section, choice or None, values) of the published models where they differ from NCSN's."""
    from ncsn_tf import noise_levels

    process, network = told["sde"]["name"], told["network"]["name"]
    if network == "ncsnv2":  # Song & Ermon 2020, appendix B
        largest, smallest = told["sde"]["sigma_max"], told["sde"]["sigma_min"]
        steps = noise_levels.STEPS_PER_LEVEL if max(shape) <= 64 else 3
        ratio = (largest / smallest) ** (1.0 / (told["times"]["num_levels"] - 1))
        epsilon = float(f"{noise_levels.epsilon_for(steps, ratio, smallest):.3g}")
        yield "optim", None, {"learning_rate": 1e-4}
        yield "sampler", "annealed_langevin", {"epsilon": epsilon, "steps_per_level": steps, "denoise": True}
    elif network == "unet":  # Song et al. 2021, appendices C, G and H
        exploding = process == "ve"
        yield "optim", None, {"learning_rate": 2e-4, "warmup_steps": 5_000, "clip_norm": 1.0}
        yield "ema", None, {"decay": 0.999 if exploding else 0.9999}
        yield "objective", "denoising", {"per_dimension": not exploding}
        last, variance = (1e-5, "posterior") if exploding else (1e-3, "transition" if process == "vp" else "posterior")
        yield "sampler", "ancestral", {"last_time": last, "variance": variance}


def _set(content: dict[str, Any], section: str, choice: str | None, values: Mapping[str, Any]) -> None:
    """Sets values of a section in place; what the configuration does not say of this choice has its default."""
    from ncsn_tf.config import sections

    given = content.get(section, {})
    kept = given if isinstance(given, dict) and given.get("name", choice) == choice else {}
    content[section] = {**sections.section(section, choice).to_dict(), **kept, **values}
    if choice is not None:
        content[section]["name"] = choice


def _report(checkpoint: "Checkpoint", content: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
    network = checkpoint.network
    print(f"{checkpoint.family} of width {network.filters}, images {shape}: {network.count_params():,} parameters")
    other = f"; --weights={checkpoint.also} takes the others" if checkpoint.also else ""
    print(f"Weights: {checkpoint.weights}{other}")
    told = ", ".join(f"{name} {content[name]['name']}" for name in ("times", "output", "condition"))
    print(f"Process: {_written(content['sde'])}; {told}")
    print(f"Sampler: {_written(content['sampler'])}")
    if _CONFIG.value is None:
        print(f"Data: {content['data']['name']}, which a checkpoint does not tell. Give --config if they are others.")
    if checkpoint.assumed:
        print(f"Assumed, as in the published models of {checkpoint.family}: {', '.join(checkpoint.assumed)}")


def _written(section: Mapping[str, Any]) -> str:
    return f"{section['name']} ({', '.join(f'{key}={value}' for key, value in section.items() if key != 'name')})"


def entry_point() -> None:
    """Entry point of `ncsn-import-checkpoint`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
