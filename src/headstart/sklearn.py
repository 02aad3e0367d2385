"""A finished run as a transformer of scikit-learn's: pictures in, representations out::

    from headstart.sklearn import Embedder
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(Embedder("runs/photos"), LogisticRegression()).fit(paths, labels)

It passes scikit-learn's own checks of estimators, as far as they apply to pictures.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from headstart.engine.device import choose
from headstart.use.load import Run, load


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Representations h of pictures by a finished run, for pipelines of scikit-learn's.

    Nothing is learned: `fit` opens the run. A copy (`clone`, a grid search's) opens it again.

    Args:
        run: a run folder, or an opened run.
        batch_size: pictures that go through the backbone at once.
        device: auto, cpu, cuda, cuda:N or mps.

    Attributes:
        run_: the opened run.
        n_features_out_: the length of h.
    """

    def __init__(self, run: str | Path | Run, *, batch_size: int = 512, device: str = "auto") -> None:
        self.run = run
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Open the run. Raises headstart.records.errors.InputError when it is none, or has no backbone."""
        self.run_ = self.run if isinstance(self.run, Run) else load(self.run)
        self.n_features_out_ = int(self.run_.backbone.num_features)  # type: ignore[arg-type]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Representations float32 (N, num_features), a row a picture, in the order of X.

        Args:
            X: picture files (a list, an array or a pandas column of N paths), or pictures in memory as
                `headstart.load(...).preprocess` takes them: PIL pictures, or arrays (N, S, S, 3).

        Raises headstart.records.errors.InputError for what is no picture, as `Run.embed` does.
        """
        check_is_fitted(self)
        if hasattr(X, "to_numpy"):
            X = X.to_numpy()
        if isinstance(X, np.ndarray) and X.dtype.kind in "UO":
            X = X.ravel().tolist()
        return self.run_.embed(X, batch_size=self.batch_size, compute=choose(self.device))

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn may expect: pictures, or names of them, in place of a table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags
