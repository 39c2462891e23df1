"""Exports a trained run as a SavedModel: python -m launch.export --workdir=runs/digits

It answers without this library; docs/serving.md says how to call it. The averaged weights go into a new numbered
version below --output, by default the run's export/, where TF Serving looks for them; half a version is never visible.
"""

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
        # One device: what is exported is a graph, and the weights are the same on all.
        opened = _FLAGS.open(None)
        builder = opened.builder
        folder = pathlib.Path(_FLAGS.output.value or opened.directory.path / "export")
        print(f"Step {opened.step} of {opened.directory.path}, images {opened.shape}, weights in {_DTYPE.value}")
        if _FLAGS.dry_run.value:
            print(f"Dry run: would write into {folder}")
            return
        about = {
            "dataset": builder.data_name,
            "image": {"shape": opened.shape, "range": [0.0, 1.0]},
            "sigmas": builder.sigmas.tolist(),
            "step": opened.step,
            "dtype": _DTYPE.value,
            "config": opened.directory.config(),
            **_FLAGS.record(opened),
        }
        begun = time.perf_counter()
        path = export.save(opened.served_model(_DTYPE.value), folder, about, _VERSION.value)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{size / 2**20:.1f} MiB in {time.perf_counter() - begun:.0f} s\nSavedModel: {path}")


def entry_point() -> None:
    """Entry point of `ncsn-export`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
