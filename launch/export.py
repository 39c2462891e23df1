"""Exports a trained run as a SavedModel: python -m launch.export --workdir=runs/digits

It answers without this library; docs/serving.md says how to call it. The averaged weights go into a new numbered
version below --output, by default the run's export/, where TF Serving looks for them; half a version is never visible.
Flags of devices, --seed and --jit_compile have no effect on what is exported and are refused.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

import dataclasses
import pathlib
import time

from absl import flags

from .flags import cli, run

_FLAGS = run.define()
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "The type in which the weights are stored.")
_VERSION = flags.DEFINE_integer("version", None, "The version's number; by default the next.", 1)


def main() -> None:
    """Exports."""
    from ncsn_tf.serving import export

    with cli.usage_errors():
        _check_flags()
        # One device: what is exported is a graph, and the weights are the same on all.
        opened = _FLAGS.open(None)
        builder = opened.builder
        model = opened.served_model(_DTYPE.value)
        folder = pathlib.Path(_FLAGS.output.value or opened.directory.path / "export")
        print(f"Step {opened.step} of {opened.directory.path}, images {opened.shape}, weights in {_DTYPE.value}")
        if _FLAGS.dry_run.value:
            print(f"Dry run: would write into {folder}")
            return
        record = _FLAGS.record(opened)
        del record["seed"]  # a request brings its own
        about = {
            "dataset": builder.data_name,
            "image": {"shape": opened.shape, "range": [0.0, 1.0]},
            "sigmas": builder.sigmas.tolist(),
            "step": opened.step,
            "dtype": _DTYPE.value,
            "config": opened.directory.config(),
            **record,
        }
        begun = time.perf_counter()
        path = export.save(model, folder, about, _VERSION.value)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{size / 2**20:.1f} MiB in {time.perf_counter() - begun:.0f} s\nSavedModel: {path}")


def _check_flags() -> None:
    """Raises ValueError if a flag is given that verbs which draw share and that has no effect here."""
    of_devices = [getattr(_FLAGS.devices, field.name) for field in dataclasses.fields(_FLAGS.devices)]
    given = [flag for flag in (_FLAGS.seed, _FLAGS.sampler.jit_compile, *of_devices) if flag.present]
    if given:
        raise ValueError(
            "An export runs on any device, without XLA, and each request brings its seeds: leave out these flags. "
            f"Received: {', '.join(f'--{flag.name}={flag.value}' for flag in given)}."
        )


def entry_point() -> None:
    """Entry point of `ncsn-export`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
