"""The four figures of Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6, 2005.

Figures 1 and 2 compare score matching with maximum likelihood where both are available; 3 and 4 show an overcomplete
model of natural images, whose likelihood is unavailable. Differences from the paper: minima are found by L-BFGS rather
than gradient descent, there are more runs, and the patches come from the photographs that scikit-learn embeds. The law
of the mixing matrix and the wrong density of figure 2 are our choices.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ncsn_tf import pictures
from ncsn_tf.classical.ica import MAXIMUM_LIKELIHOOD, SCORE_MATCHING, ScoreMatchingICA
from ncsn_tf.classical.overcomplete import OvercompleteICA
from ncsn_tf.data import patches as patch_data
from ncsn_tf.data.images import ImageSource
from ncsn_tf.reproduction.figure import Figure

SIZES = (500, 1000, 2000, 4000, 8000, 16000)
"""The paper's sample sizes."""

LOGISTIC, LAPLACIAN = "logistic", "laplacian"
ORTHOGONAL, NORMAL = "orthogonal", "normal"


# Figures 1 and 2: precision of the estimated unmixing matrix


def figure1(**options: Any) -> Figure:
    """Figure 1: errors of both estimators of W against the sample size, for logistic sources as the model assumes.

    Args:
      **options: those of `estimation_errors`: seed, runs, sizes, dimensions, mixing.
    """
    numbers = estimation_errors(LOGISTIC, **options)
    return Figure(numbers, draw_errors(numbers), _caption(numbers, "logistic sources, as the model assumes"))


def figure2(**options: Any) -> Figure:
    """Figure 2: the same for a wrong density: the sources are Laplacian, and the model assumes logistic ones.

    The paper calls its density slightly misspecified; Laplacian sources of unit variance are our choice.

    Args:
      **options: those of `estimation_errors`: seed, runs, sizes, dimensions, mixing.
    """
    numbers = estimation_errors(LAPLACIAN, **options)
    return Figure(numbers, draw_errors(numbers), _caption(numbers, "Laplacian sources, assumed to be logistic"))


def estimation_errors(
    sources: str,
    *,
    seed: int = 0,
    runs: int = 100,
    sizes: Sequence[int] = SIZES,
    dimensions: int = 4,
    mixing: str = ORTHOGONAL,
) -> dict[str, Any]:
    """Estimates W from mixtures x = A s by score matching and by maximum likelihood, on the same data.

    The choice of A matters: score matching weights errors by W W', maximum likelihood does not. With a rotation A the
    data are white, as is usual before independent component analysis, and W W' = I. With normal entries, score matching
    loses precision, and if the density is also wrong, its estimate does not converge to A^-1.

    Args:
      sources: "logistic" or "laplacian", of unit variance.
      seed: a non-negative integer.
      runs: data sets per size, each with its own sources, matrix A and search start; the paper uses 11. A hundred took
        4 to 5 minutes on 2 CPU cores shared with other work.
      sizes: sample sizes, at least two.
      dimensions: the dimensions of s and x; the paper's 4 by default.
      mixing: "orthogonal", A a random rotation, or "normal", A with standard normal entries.

    Returns:
      JSON-able: the options; for each estimator the median, quartiles and mean of the error (see `unmixing_error`) for
      each size, the slope of the median on log-log axes, how many estimates give two rows to one source and how many
      searches were cut short; and for each size the ratios, score matching to maximum likelihood, of medians and means.

    Raises:
      ValueError: for unknown sources or mixing, no runs, or fewer than two different sizes.
    """
    if sources not in (LOGISTIC, LAPLACIAN) or mixing not in (ORTHOGONAL, NORMAL):
        raise ValueError(
            f"Sources are {LOGISTIC!r} or {LAPLACIAN!r}, mixing is {ORTHOGONAL!r} or {NORMAL!r}. "
            f"Received: {sources!r}, {mixing!r}."
        )
    if runs < 1 or len(set(sizes)) < 2:
        raise ValueError(
            f"A curve needs at least 1 run and two different sizes. Received: runs={runs}, sizes={list(sizes)}."
        )
    found = {
        method: [[_one_error(method, sources, mixing, dimensions, size, [seed, size, run]) for run in range(runs)]
                 for size in sizes]
        for method in (SCORE_MATCHING, MAXIMUM_LIKELIHOOD)
    }  # fmt: skip
    numbers: dict[str, Any] = {"sources": sources, "mixing": mixing, "dimensions": dimensions, "runs": runs}
    numbers |= {"seed": seed, "sizes": [int(size) for size in sizes]}
    numbers |= {method: _summary(np.array(results), sizes) for method, results in found.items()}
    first, second = numbers[SCORE_MATCHING], numbers[MAXIMUM_LIKELIHOOD]
    for key in ("median", "mean"):
        numbers[f"ratio_of_{key}s"] = [a / b for a, b in zip(first[key], second[key], strict=True)]
    return numbers


def _one_error(
    method: str, sources: str, mixing: str, dimensions: int, size: int, seed: list[int]
) -> tuple[float, bool, bool]:
    """Returns one estimate's error, whether two of its rows have one source, and whether its search was cut short."""
    generator = np.random.default_rng(seed)  # one per run, so both methods see the same data
    if sources == LOGISTIC:
        s = generator.logistic(scale=np.sqrt(3.0) / np.pi, size=(size, dimensions))
    else:
        s = generator.laplace(scale=np.sqrt(0.5), size=(size, dimensions))
    matrix = generator.standard_normal((dimensions, dimensions))
    if mixing == ORTHOGONAL:
        matrix = np.linalg.qr(matrix)[0]
    start = int(generator.integers(2**31))
    model = ScoreMatchingICA(method, random_state=start).fit(s @ matrix.T)
    product = model.components_ @ matrix
    doubled = len(set(np.argmax(np.abs(product), axis=1))) < dimensions
    return unmixing_error(product), doubled, not model.converged_


def unmixing_error(product: np.ndarray) -> float:
    """The paper's error of an estimate of W, from the matrix W A, [d, d] (section 3.2).

    Each row is divided by its entry of largest magnitude; the error is the sum of squares minus d. It does not depend
    on the order, the signs or the norms of the rows of W, and is a squared error: it falls as 1 / n.
    """
    rows = product / np.max(np.abs(product), axis=1, keepdims=True)
    return float(np.sum(rows**2) - len(rows))


def _summary(results: np.ndarray, sizes: Sequence[int]) -> dict[str, Any]:
    """Summarises (error, doubled, cut short) in an array [sizes, runs, 3]."""
    errors = results[..., 0]
    lower, median, upper = np.quantile(errors, [0.25, 0.5, 0.75], axis=1)
    return {
        "median": median.tolist(),
        "lower_quartile": lower.tolist(),
        "upper_quartile": upper.tolist(),
        "mean": errors.mean(axis=1).tolist(),
        "slope": float(np.polyfit(np.log10(sizes), np.log10(median), 1)[0]),
        "two_rows_one_source": results[..., 1].sum(axis=1).astype(int).tolist(),
        "searches_cut_short": results[..., 2].sum(axis=1).astype(int).tolist(),
    }


def draw_errors(numbers: dict[str, Any]) -> "pictures.Figure":
    """Draws the result of `estimation_errors`: medians as lines, quartiles as bands, and a guide of slope -1."""
    with pictures.drawn(6.0, 4.5) as picture:
        axes = picture.subplots()
        sizes = np.array(numbers["sizes"])
        styles = (
            (SCORE_MATCHING, "score matching", "tab:blue", "-"),
            (MAXIMUM_LIKELIHOOD, "likelihood", "tab:red", "--"),
        )
        for method, label, colour, line in styles:
            errors = numbers[method]
            axes.fill_between(sizes, errors["lower_quartile"], errors["upper_quartile"], color=colour, alpha=0.15, lw=0)
            axes.plot(
                sizes, errors["median"], line, marker="o", color=colour, label=f"{label}, slope {errors['slope']:.2f}"
            )
        anchor = numbers[MAXIMUM_LIKELIHOOD]["median"][0]
        axes.plot(sizes, 0.5 * anchor * sizes[0] / sizes, ":", color="grey", label="slope -1")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("sample size")
        axes.set_ylabel("squared error of W")
        axes.set_title(f"{numbers['sources'].capitalize()} sources, {numbers['mixing']} mixing, {numbers['runs']} runs")
        axes.legend()
    return picture


def _caption(numbers: dict[str, Any], what: str) -> str:
    return (
        f"Squared error of the unmixing matrix by score matching and by maximum likelihood with {what}: median and "
        f"quartiles of {numbers['runs']} runs in {numbers['dimensions']} dimensions."
    )


# Figures 3 and 4: overcomplete filters of natural images


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
