"""A click model as a scikit-learn classifier.

`ClickClassifier` takes a frame of mixed columns, or an array, and trains as `bitfold.train` does.
It works in `Pipeline`, `cross_val_score` and `GridSearchCV`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    from bitfold.runs.run import Run

LABEL, WEIGHT = "label", "weight"
BUCKETS = "buckets:32"
"""What becomes of numeric columns where there are no others: embeddings need something to embed."""

SMALLEST_BATCH, STEPS = 16, 100
"""Without a batch size a small table has about so many steps an epoch, and batches no smaller."""


class ClickClassifier(ClassifierMixin, BaseEstimator):
    """A binary classifier whose embeddings fit in a byte budget.

    Args:
        fields: categorical columns; None takes every column that holds no floating-point numbers.
        numeric: columns of numbers; None takes the other columns.
        method: embedding method; `bitfold.methods()` lists them.
        budget: bytes of the embeddings, `"64MiB"`, or a ratio to the full table, `"10x"`.
        width: numbers in an embedding vector.
        network: the network above the embeddings.
        hidden: sizes of its hidden layers.
        epochs: passes over the rows.
        batch_size: rows in a step; None takes a hundredth of the rows, 16 to 2048.
        lr: learning rate.
        validation_fraction: share of the rows that chooses the best epoch and ends the training
            early; 0 trains on all rows to the end.
        random_state: seed of weights and order; an int, a `RandomState` or None.
        options: any other option of `bitfold.train`, such as `{"multi": {"tags": "|"}}`.

    Attributes:
        classes_: the two classes, sorted.
        run_: the trained `bitfold.Run`.
        n_features_in_, feature_names_in_: columns seen in `fit`.

    Where all columns are numeric, their values are put into quantile buckets, which are embedded;
    `options={"numeric_transform": "buckets:8"}` says how many. A frame's columns have names, and
    those of `fields` must be there in `predict_proba`; an array's are called `x0`, `x1`, ...
    Missing values (None, NaN) are values of their own.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"user": ["a", "b", "c", "d"] * 50, "price": [1.0, 2.5] * 100})
        >>> model = ClickClassifier(method="full", width=4, hidden=(8,), epochs=2)
        >>> model.fit(frame, [0, 1, 1, 0] * 50).predict_proba(frame.head(3)).shape
        (3, 2)
    """

    def __init__(
        self,
        *,
        fields: Sequence[str] | None = None,
        numeric: Sequence[str] | None = None,
        method: str = "auto",
        budget: str | int | None = None,
        width: int = 16,
        network: str = "deepfm",
        hidden: Sequence[int] = (128, 64),
        epochs: int = 8,
        batch_size: int | None = None,
        lr: float = 2e-3,
        validation_fraction: float = 0.0,
        random_state: Any = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.fields = fields
        self.numeric = numeric
        self.method = method
        self.budget = budget
        self.width = width
        self.network = network
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.options = options

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ClickClassifier":  # noqa: N803
        """Train on a frame or array `X` of `n` rows and labels `y` of two classes.

        Raises:
            ValueError: rows, labels or options that cannot be.
        """
        from bitfold.api import train

        columns = self._columns(X, reset=True)
        labels = self._labels(y, len(next(iter(columns.values()))))
        rows = len(labels)
        fields, numeric = self._kinds(columns)
        data = {name: columns[name] for name in (*fields, *numeric)}
        label, weight = (_free(name, columns) for name in (LABEL, WEIGHT))
        data[label] = labels
        share, seed = self._share(), self._seed()
        settings: dict[str, Any] = {
            "label": label,
            "fields": fields,
            "numeric": numeric,
            "split": f"random:{1 - share!r},{share!r},0",
            "split_seed": seed,
            "seed": seed,
            "method": self.method,
            "budget": self.budget,
            "width": self.width,
            "network": self.network,
            "hidden": list(self.hidden),
            "epochs": self.epochs,
            "batch_size": self.batch_size or max(SMALLEST_BATCH, min(2048, rows // STEPS)),
            "lr": self.lr,
        }
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, np.empty((rows, 0)), dtype=np.float64)
            data[weight] = weights
            settings["weight"] = weight
        for name in self.options or {}:
            if name in settings:
                raise BitfoldError(
                    f"options says {name}, which has an argument of its own",
                    got=f"options={{{name!r}: ...}}",
                    expected="other options of bitfold.train",
                )
        if not fields:
            settings["numeric_transform"] = BUCKETS
        self.run_ = train(data, progress=False, **settings | dict(self.options or {}))
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Probabilities `[n, 2]` of the two classes, in the order of `classes_`."""
        check_is_fitted(self, "run_")
        columns = self._columns(X, reset=False)
        schema = self.run_.schema
        wanted = dict.fromkeys((*schema.config.fields, *schema.config.numeric))
        data = {name: columns[name] for name in (wanted or columns) if name in columns}
        clicked = self.run_.predict(data).astype(np.float64)
        return np.stack([1 - clicked, clicked], axis=1)

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """The likelier class of each row, `[n]`."""
        likelier = self.predict_proba(X).argmax(axis=1)
        chosen: npt.NDArray[Any] = self.classes_[likelier]
        return chosen

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: two classes, text, missing values."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The parameters and the run's files: no tensors are pickled."""
        state: dict[str, Any] = dict(super().__getstate__())
        run: Run | None = state.pop("run_", None)
        if run is not None:
            files = [file for file in sorted(run.path.iterdir()) if file.is_file()]
            state["_files"] = {file.name: file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bring the run back, in a temporary folder that lives as long as the run."""
        from bitfold.api import temporary_run

        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            self.run_ = temporary_run(files)

    def _columns(self, X: Any, *, reset: bool) -> dict[str, Any]:  # noqa: N803
        """Columns by name; scikit-learn's own checks of shapes and names come first."""
        if hasattr(X, "column_names") and hasattr(X, "column"):  # an Arrow table
            import polars as pl

            X = pl.DataFrame(X)  # noqa: N806
        if hasattr(X, "columns") and not isinstance(X, np.ndarray):
            validate_data(self, X, reset=reset, skip_check_array=True)
            names = [str(name) for name in X.columns]
            if len(X) == 0:
                raise ValueError(f"found a frame with 0 row(s), shape={X.shape}; 1 or more needed")
            return {name: X[column] for name, column in zip(names, X.columns, strict=True)}
        array = validate_data(
            self, X, reset=reset, dtype=None, ensure_all_finite=False, ensure_min_features=1
        )
        if array.dtype.kind == "c":
            raise ValueError("Complex data not supported")
        return {f"x{place}": array[:, place] for place in range(array.shape[1])}

    def _labels(self, y: Any, rows: int) -> npt.NDArray[np.int64]:
        from sklearn.utils import column_or_1d

        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        values = column_or_1d(y, warn=True)
        check_classification_targets(values)
        if len(values) != rows:
            raise ValueError(f"Found input variables with inconsistent numbers of samples: "
                             f"{rows} rows and {len(values)} labels")  # fmt: skip
        kind = type_of_target(values, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is "
                             f"{kind}.")  # fmt: skip
        self.classes_, labels = np.unique(values, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only: {self.classes_[0]!r}; two are needed")
        return labels.astype(np.int64)

    def _kinds(self, columns: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """The names of fields and numeric columns."""
        numbers = [name for name, column in columns.items() if _is_float(column)]
        said = [*(self.fields or ()), *(self.numeric or ())]
        for name in said:
            if name not in columns:
                from bitfold.errors import unknown_name

                raise unknown_name("column", name, columns)
        fields, numeric = self.fields, self.numeric
        if fields is None:
            fields = [name for name in columns if name not in (numeric or numbers)]
        if numeric is None:
            numeric = [name for name in columns if name in numbers and name not in fields]
        return list(fields), list(numeric)

    def _share(self) -> float:
        share = self.validation_fraction
        if not 0 <= share < 1:
            raise BitfoldError(
                "validation_fraction is out of range", got=share, expected="0 to below 1"
            )
        return float(share)

    def _seed(self) -> int:
        """One number of `random_state`, the same within a fit."""
        from sklearn.utils import check_random_state

        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def _is_float(column: Any) -> bool:
    kind = str(getattr(column, "dtype", "")).lower()
    return kind.startswith(("float", "decimal", "double"))


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name that no column has."""
    while name in taken:
        name = f"_{name}"
    return name


__all__ = ["ClickClassifier"]
