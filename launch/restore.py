"""Restores images from a linear measurement: python -m launch.restore --workdir=runs/digits --measurement=downsample:2

Images are measured, with noise of their own, and a trained run draws what may have been measured. Writes into --output,
by default a folder under the run's restoration/:
  restoration.png   one row per image: what is given, its completions, original
  restoration.npz   samples (uint8 [N, K, H, W, C]), samples_float, original (uint8), measured (float32 [N, ...])
  about.json        everything that is needed to repeat it, the peak signal-to-noise ratio, and how well the measurement
                    is kept

Every device draws (--strategy and the flags beside it). After a kill the same command resumes from the last batch.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

from absl import flags

from .flags import cli, measured, restoration, run

_FLAGS = run.define()
_MEASURED = measured.define(_FLAGS, restoration.define(_FLAGS))
_MEASUREMENT = flags.DEFINE_string(
    "measurement",
    "downsample:2",
    "What is given of an image: downsample:FACTOR, blur:DEVIATION, box:SIDE, grey, fourier:SHARE, or mask:left and the "
    "other masks of launch.inpaint.",
)


def main() -> None:
    """Restores images."""
    _MEASURED.restore("restoration", str(_MEASUREMENT.value))


def entry_point() -> None:
    """Entry point of `ncsn-restore`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
