"""Latent codes of the same images by two models: alike, if both have learnt the score of the data.

The flow that encodes depends on the SDE and on the data's score alone, so that models of other architectures, trained
apart, give an image the same code up to their errors (Song et al. 2021, section 4.3 and appendix D.5).
"""

import dataclasses
import pathlib

import numpy as np

from ncsn_tf import pictures
from ncsn_tf.sde import SDE

Shape = tuple[int, int, int]
_DIMENSIONS = 100
"""The number of dimensions whose values are drawn, as in the paper."""
_IMAGES = 8


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Codes of two models side by side, each pair with a control.

    Attributes:
      correlation: float64 [N], of the two codes of one image, over dimensions.
      control: float64 [N (N - 1)], of codes of different images, one by each model.
      distance: float64 [N], |a - b| of the two codes, in units of the root mean square of |a| and |b|; the square root
        of 2 for unrelated codes.
      control_distance: float64 [N (N - 1)], the same of different images.
    """

    correlation: np.ndarray
    control: np.ndarray
    distance: np.ndarray
    control_distance: np.ndarray

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean, minimum and maximum of each attribute."""
        return {
            field.name: {
                name: float(function(getattr(self, field.name)))
                for name, function in (("mean", np.mean), ("minimum", np.min), ("maximum", np.max))
            }
            for field in dataclasses.fields(self)
        }


def compare(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Compares the codes of the same images by two models.

    Args:
      first: [N, ...], N of 2 or more, by one model.
      second: of the same shape, by the other.

    Raises:
      ValueError: for other shapes.
    """
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(
            "Two models' codes of the same images are compared, with two images or more: the control is made of codes "
            f"of different ones. Received: {first.shape} and {second.shape}."
        )
    a, b = (np.asarray(codes, np.float64).reshape(len(codes), -1) for codes in (first, second))
    norms = [np.square(codes).sum(axis=1) for codes in (a, b)]
    total = norms[0][:, None] + norms[1][None]
    # |a - b|^2 = |a|^2 + |b|^2 - 2 ab, over half of the sum; rounding may take it below 0.
    distances = np.sqrt(np.maximum(2.0 * (total - 2.0 * a @ b.T) / total, 0.0))
    correlations = _standardised(a) @ _standardised(b).T
    others = ~np.eye(len(a), dtype=bool)
    return Comparison(np.diag(correlations), correlations[others], np.diag(distances), distances[others])


def _standardised(codes: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1."""
    centred = codes - codes.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def check_comparable(first: tuple[Shape, SDE], second: tuple[Shape, SDE]) -> None:
    """Raises ValueError unless two models, each (shape of an image, SDE), give codes of one meaning."""
    if first != second:
        raise ValueError(
            "Codes are comparable between runs on images of one shape with one SDE; give another run. "
            f"Received: {first[0]} with {first[1]}, and {second[0]} with {second[1]}."
        )


def save(path: pathlib.Path, images: list[np.ndarray], first: np.ndarray, second: np.ndarray) -> None:
    """Writes `draw` of the same arguments to a file, a PNG."""
    pictures.save_figure(path, draw(images, first, second))


def draw(images: list[np.ndarray], first: np.ndarray, second: np.ndarray) -> "pictures.Figure":
    """The picture of a comparison: images and codes, then values and differences of the codes' dimensions.

    Args:
      images: three arrays uint8 [N, H, W, C], the rows above: the originals and both models' codes as pictures.
      first: [N, ...], the codes of one model.
      second: the codes of the other.
    """
    with pictures.drawn(9.0, 6.5) as figure:
        places = figure.add_gridspec(2, 2, height_ratios=(3, 2))
        axes = figure.add_subplot(places[0, :])
        count = min(_IMAGES, len(first))
        grid = pictures.tile(np.concatenate([row[:count] for row in images]), columns=count)
        axes.imshow(grid, interpolation="nearest")
        middles = [(row + 0.5) * len(grid) / 3.0 for row in range(3)]
        axes.set_yticks(middles, ["original", "code of A", "code of B"])
        axes.set_xticks([])
        left, right = (figure.add_subplot(places[1, column]) for column in range(2))
        a, b = (np.asarray(codes, np.float64).reshape(len(codes), -1) for codes in (first, second))
        for codes, name, line in ((a, "A", "-"), (b, "B", "--")):
            left.plot(codes[0, :_DIMENSIONS], line, label=f"model {name}", linewidth=1.0)
        left.set(xlabel="dimension", ylabel="code of the first image")
        differences = (a - b).ravel(), (a - np.roll(b, 1, axis=0)).ravel()
        edges = np.histogram_bin_edges(np.concatenate(differences), 60).tolist()
        for values, name in zip(differences, ("the same image", "different images"), strict=True):
            right.hist(values, bins=edges, density=True, alpha=0.6, label=name)
        right.set(xlabel="difference of A and B by dimension", ylabel="density")
        for each in (left, right):
            each.legend(fontsize="small")
    return figure
