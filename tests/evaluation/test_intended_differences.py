"""Where evalcam's numbers are not scikit-learn's on purpose; docs/metrics.md lists all."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as oracle

from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from tests.evaluation.degenerate_cases import made


def test_top_k_takes_equal_scores_in_class_order() -> None:
    rows = [[0.25] * 4]

    ours = [compute_metrics(made([i], rows, stated=True)).overall["top_3_accuracy"].estimate for i in range(4)]

    assert ours == [1, 1, 1, 0]
    theirs = [oracle.top_k_accuracy_score([i], rows, k=3, labels=range(4)) for i in range(4)]
    assert theirs == [0, 1, 1, 1]


def test_an_image_at_the_threshold_is_called() -> None:
    sample = made([1, 0, 1], [[0.6, 0.4], [0.6, 0.4], [0.7, 0.3]], stated=True)
    point = OperatingPoint("b", 0.4, "youden", 50, 50, 0.8, 0.8)
    called = replace(sample, operating_point=point)

    found = compute_metrics(called)

    assert called.predicted.tolist() == [1, 1, 0]
    assert (found.overall["recall@op"].estimate, found.overall["specificity@op"].estimate) == (0.5, 0)


def test_balanced_accuracy_is_scikit_learns_and_recall_macro_is_not() -> None:
    truth, predicted = [0, 0, 1, 1], [0, 2, 1, 1]

    metrics = compute_metrics(made(truth, np.eye(3)[predicted].tolist()))

    with pytest.warns(UserWarning, match="classes not in y_true"):
        assert metrics.overall["balanced_accuracy"].estimate == oracle.balanced_accuracy_score(truth, predicted)
    assert metrics.overall["recall_macro"].estimate == metrics.overall["balanced_accuracy"].estimate
    with pytest.warns(UserWarning, match="ill-defined"):
        assert oracle.recall_score(truth, predicted, average="macro") == 0.5
