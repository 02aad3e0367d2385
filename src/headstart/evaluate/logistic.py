"""Logistic regression on fixed features, fitted the two ways the probes need (paper 3.6; docs/evaluation.md).

Comes in: features and labels on one device. Goes out: weights (F, C) and biases (C,) of a linear classifier.
`lbfgs` finds the minimum of scikit-learn's objective; `sgd` repeats the authors' training step by step.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPOCHS, BATCH, LR, PATIENCE, FACTOR, THRESHOLD = 50, 32, 1e-3, 10, 0.1, 1e-4
"""The authors' training of a linear probe (paper 3.6; docs/the-paper.md); the last three are ReduceLROnPlateau's."""


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (F, r) in columns along which the rows of `x` (n, F) vary, and mean squares (r,) along them.

    r = min(n, F). Fitting on `x @ directions` gives the same classifier as on `x`: the penalty of `lbfgs` does not
    change under rotation, and no weight grows in a direction that no row has.
    """
    values, directions = _eigen(x.T @ x / len(x))
    r = min(x.shape)
    return directions[:, -r:], values[-r:].clamp_min(0)


def _eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., F) from the smallest, and eigenvectors (..., F, F) in columns, of symmetric matrices.

    LAPACK does not converge on every float32 matrix with many equal eigenvalues, such as those of constant features;
    then it is asked again in float64, where singular vectors are the same but come by another way.
    """
    with contextlib.suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        return torch.linalg.eigh(gram)
    exact = gram.double().cpu()
    try:
        values, vectors = torch.linalg.eigh(exact)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        vectors, values, _ = torch.linalg.svd(exact)
        values, vectors = values.flip(-1), vectors.flip(-1)
    return values.to(gram), vectors.to(gram)


def lbfgs(
    x: Tensor,
    y: Tensor,
    classes: int,
    C: float,
    start: tuple[Tensor, Tensor] | None = None,
    mean_squares: Tensor | None = None,
    max_iter: int = 300,
) -> tuple[Tensor, Tensor]:
    """Minimise C * sum of cross-entropies + |W|^2 / 2 (biases free), scikit-learn's `LogisticRegression`.

    Args:
        x: features (D, n, F), of D independent problems of one size, fitted together.
        y: labels (D, n) in 0 ... classes - 1.
        start: weights and biases of a neighbouring C to begin at.
        mean_squares: (F,) of features distributed as `x`, along their principal axes. It changes the path and not the
            minimum. Fewer rows than features bring their own axes.

    Returns:
        Weights (D, F, classes) and biases (D, classes).
    """
    D, n, _ = x.shape
    given, axes = x, None
    # float32 leaves weights exact to about 1e-3. A small problem costs nothing in float64 and comes out exact, and to
    # tell a GPU of its hundreds of steps takes longer than a CPU needs to compute them.
    exact = x.numel() <= 2**22
    if exact:
        x, y = x.cpu().double(), y.cpu()
    if n < x.shape[2]:
        # Weights never leave what the rows span: a fit moves n coordinates there, and no features.
        axes, x, mean_squares = _own_axes(x)
    if start is None:
        u, b = x.new_zeros(D, x.shape[2], classes), x.new_zeros(D, classes)
    else:
        weights, b = (part.to(x, copy=True) for part in start)
        u = weights if axes is None else axes.mT @ weights
    penalty = 1 / (C * n)
    # At uniform probabilities the Hessian is (X'X/n) (x) (I - 11'/c)/c + penalty: nearly the identity in units of
    # `scale` along the principal axes, so that correlated features cost no extra iterations.
    scale = x.new_ones(x.shape[2], 1)
    if mean_squares is not None:
        scale = (mean_squares.to(x) / classes + penalty).rsqrt()[..., None]
    u = u / scale
    targets = F.one_hot(y, classes).to(x.dtype)
    optimizer = torch.optim.LBFGS(
        [u, b],
        max_iter=max_iter,
        history_size=20,
        tolerance_grad=1e-6 if exact else 3e-5,
        tolerance_change=1e-12 if exact else 1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        w = scale * u
        log_p = torch.log_softmax(torch.baddbmm(b[:, None], x, w), dim=2)
        # Probabilities that underflow are denormal numbers, which make a CPU's products ten times slower.
        error = torch.threshold_(log_p.exp(), 1e-20, 0).sub_(targets).div_(n)
        u.grad = scale * torch.baddbmm(w, x.mT, error, beta=penalty)
        b.grad = error.sum(1)
        return penalty / 2 * (w * w).sum() - (log_p * targets).sum() / n

    optimizer.step(loss)
    weights = scale * u if axes is None else axes @ (scale * u)
    return weights.to(given), b.to(given)


def _own_axes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Principal axes (D, F, n) of the rows of each of `x` (D, n, F), n < F; the rows along them (D, n, n), and mean
    squares there (D, n)."""
    basis, rows = torch.linalg.qr(x.mT)
    values, turned = _eigen(rows @ rows.mT)
    return basis @ turned, rows.mT @ turned, values.clamp_min(0) / x.shape[1]


class SgdFit(NamedTuple):
    """What `sgd` kept: the epoch (from 1) of the lowest validation loss, that loss, weights and biases."""

    epoch: int
    val_loss: float
    weights: Tensor
    biases: Tensor


def sgd(
    x: Tensor,
    y: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    start: tuple[Tensor, Tensor],
    order: Callable[[int], Tensor],
) -> SgdFit | None:
    """Plain minibatch SGD with the authors' schedule and checkpoint rule (paper 3.6; docs/the-paper.md).

    The learning rate falls by FACTOR when the last minibatch's training loss has not come below
    (1 - THRESHOLD) times its best for more than PATIENCE epochs, as torch's ReduceLROnPlateau does; the
    weights of the lowest validation loss are kept.

    The gradient of softmax cross-entropy is written out, and the bias is a weight on a constant feature: the
    same steps to rounding, at four kernels a step. Call it with CPU tensors: for thousands of steps this
    small, a GPU's launches take longer than the CPU's arithmetic.

    Args:
        x, y, x_val, y_val: features (n, F) float32 and labels (n,) of training and validation.
        start: initial weights (F, C) and biases (C,).
        order: epoch (from 0) -> permutation of range(n); the last partial batch is kept.

    Returns:
        The kept fit, or None when no epoch's validation loss was finite.
    """
    w = torch.cat([start[0], start[1][None]])
    x, x_val = (torch.cat([part, part.new_ones(len(part), 1)], dim=1) for part in (x, x_val))
    targets = F.one_hot(y, w.shape[1]).to(w.dtype)
    best: SgdFit | None = None
    lowest_val = lowest_train = float("inf")
    bad_epochs = 0
    lr = LR
    for epoch in range(EPOCHS):
        permutation = order(epoch)
        batches = zip(x[permutation].split(BATCH), targets[permutation].split(BATCH), strict=True)
        for features, target in batches:
            logits = features @ w
            error = torch.softmax(logits, dim=1).sub_(target)
            w.addmm_(features.T, error, alpha=-lr / len(features))
        train_loss = F.cross_entropy(logits, y[permutation[-len(logits) :]]).item()
        val_loss = F.cross_entropy(x_val @ w, y_val).item()
        if val_loss < lowest_val:
            lowest_val = val_loss
            best = SgdFit(epoch + 1, val_loss, w[:-1].clone(), w[-1].clone())
        if train_loss < lowest_train * (1 - THRESHOLD):
            lowest_train, bad_epochs = train_loss, 0
        else:
            bad_epochs += 1
        if bad_epochs > PATIENCE:
            lr, bad_epochs = lr * FACTOR, 0
    return best
