"""`bitfold.sklearn.ClickClassifier`: what scikit-learn asks of an estimator, and mixed frames."""

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from bitfold import BitfoldError
from bitfold.sklearn import ClickClassifier

# What scikit-learn checks and this estimator does not do, with the reason.
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "a row of weight 0 still takes a place in its "
    "batch, and a row of weight 2 one place, so the steps are others than without or with two rows",
}
SMALL = {"method": "full", "width": 4, "hidden": (16,), "random_state": 3}


def frame(rows: int = 600) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 12, rows), rng.integers(0, 9, rows)
    price = rng.lognormal(size=rows)
    clicked = (np.sin(user * 1.7) + np.cos(item * 2.3) + rng.normal(size=rows) / 3) > 0
    table = pd.DataFrame(
        {
            "user": [f"u{value}" for value in user],
            "item": pd.Categorical([f"i{value}" for value in item]),
            "member": user % 2 == 0,
            "price": np.where(user == 3, np.nan, price),
        }
    )
    return table, np.where(clicked, "yes", "no")


def test_scikit_learns_own_checks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks fit on purpose what warns
        done = check_estimator(
            ClickClassifier(**SMALL), expected_failed_checks=EXPECTED, on_skip=None, on_fail=None
        )
    failed = {each["check_name"]: repr(each["exception"]) for each in done
              if each["status"] == "failed"}  # fmt: skip
    assert failed == {}
    assert {each["check_name"] for each in done if each["status"] == "xfail"} == set(EXPECTED)
    assert sum(each["status"] == "passed" for each in done) > 50


def test_a_mixed_frame_is_learned_and_scored_alike_in_every_library() -> None:
    table, labels = frame()
    model = ClickClassifier(**SMALL).fit(table, labels)
    assert list(model.classes_) == ["no", "yes"]
    assert model.run_.schema.field_names == ["user", "item", "member"]
    assert model.run_.schema.numeric_names == ["price"]
    assert list(model.feature_names_in_) == ["user", "item", "member", "price"]
    assert model.score(table, labels) > 0.85
    scores = model.predict_proba(table)
    np.testing.assert_array_equal(scores.sum(1), 1)
    plain = pl.DataFrame({name: table[name].tolist() for name in table})
    np.testing.assert_array_equal(model.predict_proba(plain), scores)
    for other in (pl.from_pandas(table), pa.Table.from_pandas(table, preserve_index=False)):
        again = ClickClassifier(**SMALL).fit(other, labels)
        np.testing.assert_allclose(again.predict_proba(other), scores, atol=1e-6)


def test_it_works_in_pipelines_folds_and_searches() -> None:
    table, labels = frame(300)
    inner = Pipeline([("same", FunctionTransformer()), ("click", ClickClassifier(**SMALL))])
    scores = cross_val_score(inner, table, labels, cv=2, scoring="roc_auc", error_score="raise")
    assert scores.min() > 0.8
    search = GridSearchCV(
        inner, {"click__epochs": [1, 4], "click__method": ["full"]}, cv=2, error_score="raise"
    ).fit(table, labels)
    assert search.best_params_["click__epochs"] == 4
    assert search.predict(table.head(3)).shape == (3,)


def test_a_fitted_classifier_is_pickled_without_its_folder() -> None:
    table, labels = frame(200)
    model = ClickClassifier(**SMALL).fit(table, labels)
    scores = model.predict_proba(table)
    stored = pickle.dumps(model)
    place = model.run_.path
    del model
    again = pickle.loads(stored)
    assert not place.exists()
    np.testing.assert_array_equal(again.predict_proba(table), scores)
    assert clone(again).get_params() == again.get_params()
    with pytest.raises(NotFittedError):
        clone(again).predict(table)


def test_the_same_seed_gives_the_same_scores_and_weights_count() -> None:
    table, labels = frame(300)
    one, two = (ClickClassifier(**SMALL).fit(table, labels).predict_proba(table) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = ClickClassifier(**SMALL | {"random_state": np.random.RandomState(1)})
    assert (other.fit(table, labels).predict_proba(table) != one).any()
    weight = np.where(labels == "yes", 20.0, 1.0)
    heavy = ClickClassifier(**SMALL).fit(table, labels, sample_weight=weight)
    assert heavy.predict_proba(table)[:, 1].mean() > one[:, 1].mean() + 0.1


def test_validation_chooses_the_epoch() -> None:
    table, labels = frame()
    model = ClickClassifier(**SMALL, validation_fraction=0.2, epochs=3).fit(table, labels)
    assert model.run_.metrics["rows"]["valid"] > 60
    assert model.run_.metrics["best_epoch"] in (1, 2, 3)


@pytest.mark.parametrize(
    ("words", "labels", "said"),
    [
        ({"fields": ["usr"]}, None, "did you mean 'user'"),
        ({"budget": "3 elephants"}, None, "budget"),
        ({"validation_fraction": 1.5}, None, "validation_fraction"),
        ({"options": {"epoch": 3}}, None, "did you mean 'epochs'"),
        ({}, [0, 1, 2], "Only binary classification"),
        ({}, [1, 1, 1], "one class"),
        ({}, [0.1, 0.7, 0.3], "continuous"),
    ],
)
def test_mistakes(words: dict[str, Any], labels: list[float] | None, said: str) -> None:
    table, right = frame(60)
    y = right if labels is None else np.resize(labels, 60)
    with pytest.raises(ValueError, match=said):
        ClickClassifier(**SMALL | words).fit(table, y)


def test_columns_that_scoring_needs_are_named() -> None:
    table, labels = frame(100)
    model = ClickClassifier(**SMALL).fit(table, labels)
    with pytest.raises(ValueError, match="price"):
        model.predict(table.drop(columns="price"))
    with pytest.raises(BitfoldError, match="options"):
        ClickClassifier(**SMALL, options={"epochs": 3}).fit(table, labels)
