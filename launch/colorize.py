"""Gives grey images colours with a trained run: python -m launch.colorize --workdir=runs/cifar10

The run's images have 3 channels; what is given of an image is the mean of them at each pixel. Writes into --output, by
default a folder under the run's colorization/:
  colorization.png   one row per image: grey, its completions, original, as in Song et al. 2021, Figure 4
  colorization.npz   samples (uint8 [N, K, H, W, 3]), samples_float, original (uint8), measured (float32 [N, H, W, 1])
  about.json         everything that is needed to repeat it, the peak signal-to-noise ratio, and how well grey is kept

Every device draws (--strategy and the flags beside it). After a kill the same command resumes from the last batch.
"""

if not __package__:
    __import__("flags.started_as_file")  # ends with the line that says how a launcher is started

from .flags import cli, measured, restoration, run

_FLAGS = run.define()
_MEASURED = measured.define(_FLAGS, restoration.define(_FLAGS))


def main() -> None:
    """Colorizes images."""
    _MEASURED.restore("colorization", "grey")


def entry_point() -> None:
    """Entry point of `ncsn-colorize`."""
    cli.run(main)


if __name__ == "__main__":
    entry_point()
