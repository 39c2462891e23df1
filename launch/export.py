"""Exports a trained run as a SavedModel: python -m launch.export --workdir=runs/digits

It answers without this library; docs/serving.md says how to call it. The averaged weights go into a new numbered
version below --output, by default the run's export/, where TF Serving looks for them; half a version is never visible.
"""

import pathlib
import time

from absl import flags

from launch.flags import cli
from launch.flags import run as trained

_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "In what the weights are stored.")
_VERSION = flags.DEFINE_integer("version", None, "The version's number; by default the next.", 1)


def main() -> None:
    """Exports."""
    from ncsn_tf.serving import export

    with cli.user_mistakes():
        run = trained.open_run()
        builder = run.builder
        folder = pathlib.Path(trained.OUTPUT.value or run.directory.path / "export")
        print(f"Step {run.step} of {run.directory.path}, images {run.shape}, weights in {_DTYPE.value}")
        if trained.DRY_RUN.value:
            print(f"Dry run: would write into {folder}")
            return
        about = {
            "dataset": builder.data_name,
            "image": {"shape": run.shape, "range": [0.0, 1.0]},
            "sigmas": builder.sigmas.tolist(),
            "step": run.step,
            "dtype": _DTYPE.value,
            "config": run.directory.config(),
            **trained.record(run),
        }
        begun = time.perf_counter()
        path = export.save(run.served_model(_DTYPE.value), folder, about, _VERSION.value)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{size / 2**20:.1f} MiB in {time.perf_counter() - begun:.0f} s\nSavedModel: {path}")


def run() -> None:
    """Entry point of `ncsn-export`."""
    cli.run(main)


if __name__ == "__main__":
    run()
