"""Figures 3 and 4 of Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6, 2005.

They show an overcomplete model of natural images, whose likelihood is unavailable. Differences from the paper: the
minimum is found by L-BFGS rather than gradient descent, and the patches come from the photographs that scikit-learn
embeds.
"""

import dataclasses
from typing import Any

import numpy as np

from ncsn_tf import pictures
from ncsn_tf.classical.overcomplete import OvercompleteICA
from ncsn_tf.data import patches as patch_data
from ncsn_tf.data.images import ImageSource
from ncsn_tf.reproduction.figure import Figure


@dataclasses.dataclass(frozen=True)
class Trained:
    """An overcomplete model of whitened patches.

    Attributes:
      model: the fitted estimator.
      whitening: the map from pixels to the space of the model.
      options: the options of the training, JSON-able.
    """

    model: OvercompleteICA
    whitening: patch_data.Whitening
    options: dict[str, Any]

    @property
    def images(self) -> np.ndarray:
        """The filters in pixel space, V' w_k, [m, size, size]."""
        return _as_images(self.model.filters_ @ self.whitening.matrix)

    @property
    def random_filters(self) -> np.ndarray:
        """The same number of random unit vectors of the same space, for comparison, [m, d]."""
        rows = np.random.default_rng([self.options["seed"], 1]).standard_normal(self.model.filters_.shape)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def overcomplete(
    *,
    source: ImageSource | None = None,
    patches: int = 50_000,
    size: int = 8,
    filters: int = 200,
    dimensions: int | None = None,
    tol: float = 2e-3,
    max_iter: int = 1000,
    seed: int = 0,
) -> Trained:
    """Trains the model of figures 3 and 4; by default, 200 iterations take 2.5 minutes on 2 CPU cores.

    As in section 3.3, the local mean of each patch is removed, and patches are whitened without loss of dimensions.

    Args:
      source: the images; scikit-learn's two photographs by default.
      patches: how many patches.
      size: their side, in pixels.
      filters: m, at least the whitened dimension.
      dimensions: principal components to keep; all, size^2 - 1, by default.
      tol: the largest component of the gradient at which training ends.
      max_iter: the maximum number of iterations.
      seed: the seed of patches and filters, a non-negative integer.

    Raises:
      ValueError: for sizes and counts that are incompatible with each other or with the images.
    """
    source = patch_data.sample_images() if source is None else source
    pixels = patch_data.remove_local_mean(patch_data.extract(source, size=size, count=patches, seed=seed))
    whitening = patch_data.Whitening.of(pixels, dimensions)
    model = OvercompleteICA(filters, tol=tol, max_iter=max_iter, random_state=seed).fit(whitening.apply(pixels))
    options = {"images": source.name, "patches": patches, "size": size, "filters": filters, "seed": seed}
    return Trained(model, whitening, options | {"dimensions": model.n_features_in_})


def figure3(trained: Trained | None = None, **options: Any) -> Figure:
    """Figure 3: the filters of an overcomplete model of natural images, in pixel space.

    Args:
      trained: the result of `overcomplete`, which figure 4 can share.
      **options: the options of `overcomplete`, if `trained` is None.
    """
    trained = trained or overcomplete(**options)
    numbers = describe_filters(trained)
    area, orientation = numbers["area"], numbers["orientation"]
    caption = (
        f"{len(trained.model.filters_)} filters learnt by score matching from {trained.options['patches']} whitened "
        "patches, each scaled to its own largest weight; grey is 0. In the median they cover "
        f"{area['learnt']['50%']:.2f} of a patch and random ones {area['random']['50%']:.2f}, and have the "
        f"orientation {orientation['learnt']['50%']:.2f} and random ones {orientation['random']['50%']:.2f}."
    )
    return Figure(numbers, draw_filters(trained.images), caption)


def describe_filters(trained: Trained) -> dict[str, Any]:
    """Describes the training, and how localised and oriented the filters are compared with random ones; JSON-able.

    Both measures are of a filter f in pixel space. Area: (sum f^2)^2 / (P sum f^4), the share of the P pixels that a
    uniform filter of the same concentration would cover, 1 for a uniform one and about 1/3 for noise. Orientation:
    (a - b) / (a + b), a >= b being the moments of its power spectrum along its main axis of spatial frequency and
    across it: 1 for a grating, near 0 for a filter without direction.
    """
    model = trained.model
    random = _as_images(trained.random_filters @ trained.whitening.matrix)
    return trained.options | {
        "loss_start": float(model.loss_history_[0]),
        "loss_end": float(model.loss_),
        "iterations": int(model.n_iter_),
        "converged": bool(model.converged_),
        "alphas": _quantiles(model.alphas_),
        "area": {"learnt": _quantiles(_areas(trained.images)), "random": _quantiles(_areas(random))},
        "orientation": {
            "learnt": _quantiles(_orientations(trained.images)),
            "random": _quantiles(_orientations(random)),
        },
    }


def draw_filters(images: np.ndarray, columns: int = 20) -> "pictures.Figure":
    """Draws filters [m, size, size] in a grid, each scaled to its own largest weight."""
    scaled = images / np.max(np.abs(images), axis=(1, 2), keepdims=True)
    grid = pictures.tile(np.round(127.5 * (1.0 + scaled)).astype(np.uint8)[..., None], columns=columns)
    with pictures.drawn(grid.shape[1] / 80, grid.shape[0] / 80) as picture:
        axes = picture.subplots()
        axes.imshow(grid, interpolation="nearest")
        axes.set_axis_off()
    return picture


def figure4(trained: Trained | None = None, **options: Any) -> Figure:
    """Figure 4: how near each filter is to any other, in the whitened space.

    Args:
      trained: the result of `overcomplete`, which figure 3 can share.
      **options: the options of `overcomplete`, if `trained` is None.
    """
    trained = trained or overcomplete(**options)
    learnt, random = (largest_products(rows) for rows in (trained.model.filters_, trained.random_filters))
    numbers = trained.options | {"learnt": _quantiles(learnt), "random": _quantiles(random)}
    caption = (
        "Largest absolute dot product of each filter with the others in the whitened space, compared with as many "
        f"random unit vectors. The largest of all is {learnt.max():.2f}; 1 would be a filter learnt twice."
    )
    return Figure(numbers, draw_products(learnt, random), caption)


def largest_products(rows: np.ndarray) -> np.ndarray:
    """For each unit row w_i of [m, d], the largest |w_i' w_j| over the other rows, [m]."""
    products = np.abs(rows @ rows.T)
    np.fill_diagonal(products, 0.0)
    return products.max(axis=1)


def draw_products(learnt: np.ndarray, random: np.ndarray) -> "pictures.Figure":
    """Draws both histograms on the same axes, 0 to 1."""
    with pictures.drawn(6.0, 4.0) as picture:
        axes = picture.subplots()
        bins = list(np.linspace(0.0, 1.0, 51))
        axes.hist(learnt, bins, color="tab:blue", alpha=0.8, label="learnt filters")
        axes.hist(random, bins, color="black", histtype="step", label="random unit vectors")
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel("largest dot product with another filter")
        axes.set_ylabel("filters")
        axes.legend()
    return picture


def _as_images(rows: np.ndarray) -> np.ndarray:
    side = round(np.sqrt(rows.shape[1]))
    return rows.reshape(-1, side, side)


def _areas(images: np.ndarray) -> np.ndarray:
    pixels = images.reshape(len(images), -1)
    return np.sum(pixels**2, axis=1) ** 2 / (pixels.shape[1] * np.sum(pixels**4, axis=1))


def _orientations(images: np.ndarray) -> np.ndarray:
    length = 4 * images.shape[1]  # zero padding gives the spectrum between the filter's own frequencies
    power = np.abs(np.fft.fft2(images, (length, length))) ** 2
    frequency = np.fft.fftfreq(length)
    vertical, horizontal = np.meshgrid(frequency, frequency, indexing="ij")
    yy, xx, xy = (np.sum(power * a, axis=(1, 2)) for a in (vertical**2, horizontal**2, vertical * horizontal))
    return np.hypot(xx - yy, 2.0 * xy) / (xx + yy)


def _quantiles(values: np.ndarray) -> dict[str, float]:
    names = {"least": 0.0, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "most": 1.0}
    return {name: float(np.quantile(values, q)) for name, q in names.items()}
