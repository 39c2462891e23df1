"""Figures 1 and 2 of Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6, 2005.

They compare score matching with maximum likelihood where both are available; figures 3 and 4 are in
`hyvarinen_2005_overcomplete`. Differences from the paper: minima are found by L-BFGS rather than gradient descent, and
there are more runs. The law of the mixing matrix and the wrong density of figure 2 are our choices.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ncsn_tf import pictures
from ncsn_tf.classical.ica import MAXIMUM_LIKELIHOOD, SCORE_MATCHING, ScoreMatchingICA
from ncsn_tf.reproduction.figure import Figure

SIZES = (500, 1000, 2000, 4000, 8000, 16000)
"""The paper's sample sizes."""

LOGISTIC, LAPLACIAN = "logistic", "laplacian"
ORTHOGONAL, NORMAL = "orthogonal", "normal"


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
