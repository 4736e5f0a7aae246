"""`MAEImputer`: the masked autoencoder over columns as a scikit-learn transformer.

Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped,unused-ignore]
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from raymae.data.filled import coded, filled
from raymae.data.missing import hide_cells
from raymae.data.tables import Table, table_of
from raymae.errors import DataError, ModelError, ResultsError, unknown
from raymae.inference.load import KeptModel, load_model
from raymae.results.store.store import Store
from raymae.results.verdict.judge import verdict_of
from raymae.spec.space import Scalar
from raymae.spec.sweep import DataSpec
from raymae.spec.task import applies, untied
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.columns.cells import IncompleteTable
from raymae.tasks.imputation.task import Imputation
from raymae.train.epoch import evaluate
from raymae.train.trial import Report, run_trial

ARM = "mae"
DEFAULTS: dict[str, Scalar] = {
    "pretrain_lr": 4e-3, "lr": 2e-3, "weight_decay": 0.01, "warmup_epochs": 0.5, "match_cost": 0.01,
}
# of at most so many rows: sines of a number fit single rows, and more is hidden of each
FEW_ROWS = 1_000
OF_FEW: dict[str, Scalar] = {"frequencies": 0, "dropout": 0.1, "pretrain_dropout": 0.1, "mask_ratio": 0.5}
PASSES = {"pretrain_epochs": 12, "epochs": 8}  # over MANY cells; a smaller table is passed over more often
MANY, MOST = 200_000, 5  # with 20 times the passes the 442 rows of diabetes have r2 .15 in place of .22
NARROW, LEAST = 10, 0.25  # fewer columns count as so many; a larger table has fewer passes, down to this share of them
ROWS, FEWEST_ROWS = 256, 32  # of a step over NARROW columns; over more of them fewer, so that there are as many steps
LOOKS, PATIENCE = 20, 6  # evaluations of a fit on its held-out cells; so many without a better one end it
OF_THE_DATA = ("categorical", "numeric", "drop", "protocol", "missing_kind", "missing_rate", "pattern_seed")
REMEDY = "convert it to numbers, with NaN where a cell is missing, or name it in categorical"
FEWEST = 10  # observed cells a column keeps, or nothing of it is held out


class NoBetterThanMeanWarning(UserWarning):
    """On the cells that were held out, an imputer is no better than the columns' means and most frequent categories."""


class MAEImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill missing cells by a masked autoencoder over columns, trained on the observed cells of `fit`'s table.

    Numbers, dates, durations and categories (text, booleans, or columns named in `categorical`) are understood.
    Observed cells come back as they were. A category that `fit` has not met tells nothing about its row's other cells
    and is kept. A pandas frame in gives a pandas frame out.

    Args:
        settings: Parameters of the task `imputation` under the arm `mae`, as in a sweep file; what is not named is
            `DEFAULTS` and `PASSES`, of few rows `OF_FEW`, then the task's own default; of pretraining
            (`pretrain_batch_size`), what holds for fine-tuning.
        categorical: Columns of numbers that are categories, by name.
        held_out: Share of the observed cells that are kept aside while training, to choose the weights by;
            `scores_["rmse"]` is the error on them. 0 holds none out: weights and scores then go by what is seen.
        random_state: Seed, or a numpy RandomState.
        verbose: Whether `fit` prints a line at its start and after each evaluation.

    Attributes:
        scores_: Scores on held-out cells, by name; on observed ones where the table is too small to hold any out.
        config_: The configuration that was trained.
        n_features_in_: Columns.
        feature_names_in_: Their names, where the table had any.
    """

    def __init__(
        self, settings: Mapping[str, Scalar] | None = None, *, categorical: Sequence[str] = (), held_out: float = 0.05,
        random_state: int | np.random.RandomState | None = 0, verbose: bool = False,
    ) -> None:
        self.settings = settings
        self.categorical = categorical
        self.held_out = held_out
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_sweep(cls, root: str | os.PathLike[str], *, refit: bool = False, **changes: Any) -> MAEImputer:
        """An imputer with the best network that the arm `mae` of a sweep over `imputation` has kept: it is not trained.

        It fills tables with the sweep's columns. `fit` trains it anew on a table of its own, with the sweep's best
        configuration; so does scikit-learn's `clone`, which knows arguments alone.

        Args:
            root: The sweep's folder, a path or a URI.
            refit: Leave it unfitted, with the sweep's best configuration, to be fitted.
            **changes: Other arguments of the imputer.

        Raises:
            ResultsError: No sweep there, of another task, or without a completed trial of that arm.
            ModelError: The sweep has kept no model of that arm, or it is damaged.
        """
        store = Store.open(root)
        task, wanted = store.spec().task, Imputation.schema.name
        if task != wanted:
            raise ResultsError(f"{root}: an imputer needs a sweep over the task {wanted!r}, this one is over {task!r}")
        trial_id = next((arm.val.trial_id for arm in verdict_of(store).arms if arm.arm == ARM), None)
        if trial_id is None:
            raise ResultsError(f"{root}: no completed trial of the arm {ARM!r}; finish the sweep first")
        params = store.configs()[trial_id]["params"]
        imputer = cls({name: value for name, value in params.items() if name not in OF_THE_DATA}, **changes)
        return imputer if refit else imputer._loaded(root)

    def _loaded(self, root: str | os.PathLike[str]) -> MAEImputer:
        """Take the kept network of a sweep."""
        try:
            model = load_model(root, ARM, device="cpu")
            columns = [str(name) for name in model.card.state["columns"]]
            model.networks  # noqa: B018  # now rather than at the first table: a damaged file is said at once
        except (ModelError, KeyError) as error:
            told = "its card does not say its columns" if isinstance(error, KeyError) else str(error)
            raise ModelError(f"{told}\nMAEImputer.from_sweep({os.fspath(root)!r}, refit=True) has the sweep's best "
                             "configuration, to be trained by `fit`") from None
        self._kept: KeptModel | None = model
        self.config_, self.n_features_in_ = model.config, len(columns)
        self.feature_names_in_ = np.array(columns, dtype=object)
        self.scores_ = {name.removeprefix("val_"): value for name, value in model.card.scores.items()
                        if name.startswith("val_")}
        return self

    def fit(self, X: Any, y: Any = None) -> MAEImputer:
        """Train on the observed cells of a table.

        Args:
            X: (R, C) frame or array; NaN, None or NA where a cell is missing.
            y: Ignored.

        Raises:
            DataError: A column without any observed cell, one that cannot be understood, or an unknown one in
                `categorical`.
            ValueError: Unknown settings, `held_out` out of range, or an array of the wrong form.
        """
        frame = self._checked(X, reset=True)
        for name in self.categorical:
            if name not in frame.columns:
                raise DataError(f"categorical: {unknown('column', name, map(str, frame.columns))}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be at least 0 and below 1, got {self.held_out}")
        table = table_of(frame, categorical=tuple(self.categorical), remedy=REMEDY)
        self._kept = None
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        data = self._prepared(table, seed)
        where = TrialData(DataSpec(name="table"), "real")
        self.config_ = TrialConfig(Imputation.schema.name, ARM, self._params(*frame.shape), where, seed)
        self._task = Imputation(self.config_, torch.device("cpu"), data)
        if self.verbose:
            _say("Learning from a table with shape", frame.shape)
        for report in run_trial(self.config_, task=self._task):
            last = report
            if self.verbose:
                _say(_progress(report, self.config_))
        self._model = self._task.build()
        self._model.load_state_dict(last.state().phase.best_weights)
        self._model.eval()
        self.scores_ = {name.removeprefix("val_"): value for name, value in last.best.items()}
        if (data.hidden_RC & data.missing_RC).any():
            _warn_if_no_better(self.scores_, data, self.config_)
        self._task.imputing.settle(self._model)
        return self

    def transform(self, X: Any) -> Any:
        """The table with its missing cells filled, in one batched pass.

        Args:
            X: (R, C), columns as in `fit`.

        Returns:
            A frame if X is one, else a float64 array.
        """
        check_is_fitted(self, "scores_")
        if self._kept is not None:
            given = X if isinstance(X, pd.DataFrame) else pd.DataFrame(
                self._checked(X, reset=False).to_numpy(), columns=self.feature_names_in_)
            done = self._kept.predict(given)
            return done if isinstance(X, pd.DataFrame) else done.to_numpy(dtype=np.float64)
        frame = self._checked(X, reset=False)
        table = self._task.data.table
        missing_RC = frame.isna().to_numpy()
        units_RC = coded(frame, table.columns, table.categories)
        filled_RC, chosen_RQ = self._task.imputing.impute(self._model, units_RC)
        result, codes = {}, iter(chosen_RQ.T.astype(int))
        for column, (name, categories) in enumerate(zip(frame.columns, table.categories, strict=True)):
            missing_R = missing_RC[:, column]
            new_R = np.array(categories, dtype=object)[next(codes)] if categories else filled_RC[:, column]
            result[name] = frame[name] if not missing_R.any() else filled(frame[name], missing_R, new_R)
        done = pd.DataFrame(result, index=frame.index, columns=frame.columns)
        return done if isinstance(X, pd.DataFrame) else done.to_numpy(dtype=np.float64)

    def _checked(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """X as a frame; names and number of columns are remembered or compared."""
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if not len(X) or not len(X.columns):
                raise ValueError(f"Found array with {len(X)} sample(s) and {len(X.columns)} feature(s) while a minimum "
                                 "of 1 is required.")
            return X
        array = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        return pd.DataFrame(array)

    def _params(self, rows: int, columns: int) -> dict[str, Scalar]:
        """Every parameter that the arm has."""
        kind = Imputation.schema.arms[ARM].kind
        cells = rows * max(columns, NARROW)
        often = min(MANY // cells, MOST) if cells <= MANY else max(MANY / cells, LEAST)
        passes: dict[str, Scalar] = {name: round(often * count) for name, count in PASSES.items()}
        rows_a_step = max(ROWS * NARROW // max(columns, NARROW), FEWEST_ROWS)
        given = {**DEFAULTS, **passes, **(OF_FEW if rows <= FEW_ROWS else {}), "patience": PATIENCE,
                 "batch_size": rows_a_step, **(self.settings or {})}
        epochs = given["epochs"]
        given.setdefault("eval_every", max(epochs // LOOKS, 1) if isinstance(epochs, int) else 1)
        unknown = [name for name in given if name not in Imputation.schema.params.model_fields]
        if unknown:
            raise ValueError(f"settings: {unknown[0]!r} is no parameter of the task {Imputation.schema.name!r}")
        params = Imputation.schema.params.model_validate(untied(Imputation.schema.params, given)).model_dump()
        problems = Imputation.schema.check(ARM, params)
        if problems:
            raise ValueError(f"settings: {problems[0][1]}")
        return {name: value for name, value in params.items() if applies(Imputation.schema.params, name, ARM, kind)}

    def _prepared(self, table: Table, seed: int) -> IncompleteTable:
        hidden_RC = hide_cells(table.values_RC, "mcar", self.held_out, seed) if self.held_out else \
            np.zeros(table.values_RC.shape, dtype=bool)
        observed_C = (~np.isnan(table.values_RC)).sum(axis=0)
        hidden_RC[:, observed_C - hidden_RC.sum(axis=0) < FEWEST] = False
        every = np.arange(len(table.values_RC))
        rows = dict.fromkeys(("fit", "train", "val", "test"), every)
        data = IncompleteTable(table, hidden_RC, rows, torch.device("cpu"))
        if not hidden_RC.any():
            data.hidden_RC = ~np.isnan(table.values_RC)  # nothing to spare: scored on what is seen
        return data

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


def _say(*words: object) -> None:
    """Print a line as scikit-learn's imputers do when they are verbose."""
    print("[MAEImputer]", *words, flush=True)


def _progress(report: Report, config: TrialConfig) -> str:
    """Where training is, by a report of it."""
    name, epochs = {"pretrain": ("pretraining", "pretrain_epochs")}.get(report.phase, ("fine-tuning", "epochs"))
    objective = Imputation.schema.objective
    held = f", {objective.metric} {report.metrics[objective.val]:.4f}" if objective.val in report.metrics else ""
    return (f"Ending epoch {report.epoch}/{config.params[epochs]} of {name}, elapsed time {report.seconds:.2f}, loss "
            f"{report.metrics['loss']:.4f}{held}")


def _warn_if_no_better(scores: Mapping[str, float], data: IncompleteTable, config: TrialConfig) -> None:
    """Say so where means and most frequent categories do as well on the held-out cells, in either score."""
    schema = Imputation.schema
    params = {name: value for name, value in schema.params().model_dump().items()
              if applies(schema.params, name, "mean", schema.arms["mean"].kind)}
    task = Imputation(replace(config, arm="mean", params=params), torch.device("cpu"), data)
    mean, metric = evaluate(task, task.build(), task.load("val")), schema.objective.metric
    if not schema.objective.better(scores[metric], mean[metric]) or scores["rmse"] >= mean["rmse"]:
        warnings.warn(
            f"on {int((data.hidden_RC & data.missing_RC).sum())} held-out cells this imputer is no better than the "
            f"columns' means: {metric} {scores[metric]:.3f} against {mean[metric]:.3f} (rmse {scores['rmse']:.3f} "
            f"against {mean['rmse']:.3f}); use a simpler imputer, or more rows",
            NoBetterThanMeanWarning, stacklevel=3)
