"""Figure 7 of Song et al. 2021: two models, trained apart, give an image the same latent code."""

from collections.abc import Sequence
from typing import Any

from ncsn_tf import flow_jobs
from ncsn_tf.evaluation import encodings, identifiability
from ncsn_tf.evaluation.evaluator import Progress
from ncsn_tf.reproduction import song_2021_cells as cells
from ncsn_tf.reproduction.figure import Figure
from ncsn_tf.reproduction.song_2021_table_2 import SOLVER, SPLIT
from ncsn_tf.runs import TrainedRun

IMAGES = 16


def check(runs: Sequence[TrainedRun], num_images: int) -> None:
    """Raises ValueError for what `figure7` refuses."""
    if len(runs) != 2:
        raise ValueError(f"Figure 7 compares the codes of two runs: give --run twice. Received: {len(runs)}.")
    if num_images < 2:
        raise ValueError("Codes of different images are the control: give --num_images=2 or more.")
    identifiability.check_comparable(*((run.shape, run.builder.sde) for run in runs))
    if runs[0].checksum() == runs[1].checksum():
        raise ValueError("Both runs have the same weights: give two that were trained apart.")


def figure7(
    *,
    runs: Sequence[TrainedRun],
    batch_size: int,
    seed: int,
    num_images: int = IMAGES,
    progress: Progress = lambda activity, rows: None,
) -> Figure:
    """Figure 7: the first dimensions of an image's code by both models, and differences of codes with a control.

    The held-out images are those of the first run, dequantized, with one noise for both models. The control of the
    differences is the code of the next image by the other model.

    Args:
      runs: two, with weights, with one SDE and images of one shape.
      batch_size: images at a time; bounds the memory.
      seed: the seed of the dequantization.
      num_images: two or more.
      progress: called with an activity and the number of images just done.

    Raises:
      ValueError: for another number of runs, runs that cannot be compared, or fewer than two images.
      NotConvergedError: if the solver does not converge for an image.
    """
    check(runs, num_images)
    pixels = flow_jobs.images(runs[0], SPLIT, num_images)
    images = encodings.floats(pixels, seed)
    options: dict[str, Any] = {"batch_size": min(batch_size, len(images)), "options": SOLVER, "on_rows": progress}
    first, second = (flow_jobs.codec(run, **options).encode(images)[0] for run in runs)
    found = identifiability.compare(first, second)
    rows = [pixels, *(encodings.shown(codes, runs[0].builder.sde) for codes in (first, second))]
    numbers = {
        "runs": [cells.about(run) for run in runs],
        "seed": seed,
        "images": len(pixels),
        "split": SPLIT,
        **SOLVER,
        **found.summary(),
    }
    correlation, control = (numbers[name]["mean"] for name in ("correlation", "control"))
    caption = (
        "Images and their codes by two models; the first dimensions of one code by both; and differences of codes of "
        f"the same image beside those of different images. Codes of one image correlate by {correlation:.3f} on "
        f"average, those of different images by {control:.3f}."
    )
    return Figure(numbers, identifiability.draw(rows, first, second), caption)
