"""Programs on whole arrays, as they are written for NumPy: every library gets this text."""

from __future__ import annotations

from typing import Any

import numpy as np


def normal_cdf(x: Any) -> Any:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17."""
    k = 1.0 / (1.0 + 0.2316419 * np.abs(x))
    poly = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
    tail = np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi) * poly
    return np.where(x >= 0.0, 1.0 - tail, tail)


def black_scholes(spot: Any, strike: Any, years: Any, rate: float, volatility: float) -> Any:
    """Prices of calls and puts."""
    root = volatility * np.sqrt(years)
    d1 = (np.log(spot / strike) + (rate + 0.5 * volatility**2) * years) / root
    d2 = d1 - root
    paid = strike * np.exp(-rate * years)
    call = spot * normal_cdf(d1) - paid * normal_cdf(d2)
    put = paid * normal_cdf(-d2) - spot * normal_cdf(-d1)
    return call, put


def value_of_book(spot: Any, strike: Any, years: Any, rate: float, volatility: float) -> Any:
    call, put = black_scholes(spot, strike, years, rate, volatility)
    return np.sum(call) + np.sum(put)


def kernel_density(points: Any, data: Any, width: float) -> Any:
    """Log density of a sum of Gaussians around the data, at some points of the plane."""
    difference = points[:, None, :] - data[None, :, :]
    square = np.sum(difference**2, axis=-1)
    density = np.exp(-0.5 * square / width**2).sum(axis=1)
    return np.log(density / (2.0 * np.pi * width**2 * len(data)))


def mean_density(points: Any, data: Any, width: float) -> Any:
    return np.mean(kernel_density(points, data, width))


def kmeans_step(points: Any, centers: Any) -> Any:
    """One round of Lloyd's algorithm."""
    distance = ((points[:, None, :] - centers[None, :, :]) ** 2).sum(axis=2)
    nearest = distance.argmin(axis=1)
    member = (nearest[:, None] == np.arange(len(centers))[None, :]).astype(points.dtype)
    count = np.maximum(member.sum(axis=0), 1.0)
    return member.T @ points / count[:, None], nearest


def logistic_loss(weights: Any, bias: float, x: Any, y: Any, strength: float) -> Any:
    """Logistic regression with labels 0 and 1, and an L2 penalty."""
    z = x @ weights + bias
    return np.mean(np.logaddexp(0.0, z) - y * z) + strength * np.sum(weights**2)


def cross_entropy(scores: Any, labels: Any) -> Any:
    """Mean negative log probability of the labels."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return np.mean(log_total - shifted[np.arange(len(labels)), labels])


def gaussian_process(x: Any, y: Any, length: float, noise: float) -> Any:
    """Log marginal likelihood (Rasmussen and Williams, Gaussian Processes, algorithm 2.1)."""
    n = len(y)
    kernel = np.exp(-0.5 * ((x[:, None] - x[None, :]) / length) ** 2) + noise * np.eye(n)
    lower = np.linalg.cholesky(kernel)
    alpha = np.linalg.solve(lower.T, np.linalg.solve(lower, y))
    return -0.5 * y @ alpha - np.log(np.diag(lower)).sum() - 0.5 * n * np.log(2.0 * np.pi)


def principal_components(x: Any) -> Any:
    """Standard deviations along the three first principal axes, and the data projected on these."""
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / (len(x) - 1)
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(values[::-1][:3]), np.abs(centred @ vectors[:, ::-1][:, :3])


def moving_average(x: Any, window: int = 25) -> Any:
    """Means of all windows by differences of one running sum."""
    total = np.cumsum(x)
    total = np.concatenate((np.zeros(1), total))
    return (total[window:] - total[:-window]) / window


def histogram(x: Any, bins: int = 32) -> Any:
    """Counts, and means of the elements, in bins over [0, 1)."""
    place = np.clip(np.floor(x * bins), 0, bins - 1).astype(np.int64)
    hot = place[:, None] == np.arange(bins)
    count = hot.sum(axis=0)
    return count, np.where(hot, x[:, None], 0.0).sum(axis=0) / np.maximum(count, 1)


def interpolate(x: Any, knots: Any, values: Any) -> Any:
    """Piecewise linear interpolation by binary search."""
    right = np.clip(np.searchsorted(knots, x), 1, len(knots) - 1)
    left = right - 1
    share = (x - knots[left]) / (knots[right] - knots[left])
    return (1.0 - share) * values[left] + share * values[right]


def misfit(x: Any, knots: Any, values: Any) -> Any:
    return np.mean((interpolate(x, knots, values) - np.sin(x)) ** 2)


def bilinear_form(x: Any, metric: Any, y: Any) -> Any:
    """x^T M y for every pair of vectors of every batch."""
    return np.einsum("bik,kl,bjl->bij", x, metric, y)


def fir_filter(x: Any, taps: Any) -> Any:
    """A finite impulse response: a weighted sum of slices."""
    n = len(x) - len(taps) + 1
    y = np.zeros(n)
    for k in range(len(taps)):
        y += taps[k] * x[k : k + n]
    return y


def filter_power(x: Any, taps: Any) -> Any:
    return np.mean(fir_filter(x, taps) ** 2)


def sobel(image: Any) -> Any:
    """Edges of a picture: the size of its gradient."""
    p = np.pad(image, 1, mode="edge")
    dx = p[:-2, 2:] - p[:-2, :-2] + 2.0 * (p[1:-1, 2:] - p[1:-1, :-2]) + p[2:, 2:] - p[2:, :-2]
    dy = p[2:, :-2] - p[:-2, :-2] + 2.0 * (p[2:, 1:-1] - p[:-2, 1:-1]) + p[2:, 2:] - p[:-2, 2:]
    return np.hypot(dx, dy)
