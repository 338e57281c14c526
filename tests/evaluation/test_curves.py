"""Numbers behind the plots: bands, histograms, consistency bars, confusions."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_curve as sklearn_roc_curve

from evalcam_cli.evaluation import curves
from evalcam_cli.evaluation.calibration import ReliabilityBins
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions


def predictions_of(k: int, n: int = 200, *, decimals: int = 8) -> Predictions:
    generator = np.random.default_rng(k)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)).round(decimals)
    logits[np.arange(n), targets] += 1.5
    return Predictions(tuple(map(str, range(k))), logits.astype(np.float32), targets, ("",) * n)


def scores_of(n: int = 200, *, decimals: int = 8) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    positive = np.arange(n) < n // 3
    return (generator.normal(size=n) + 1.5 * positive).round(decimals), positive


def test_at_full_sensitivity_and_no_specificity_the_band_is_a_point() -> None:
    band = curves.roc_band(*scores_of(), resamples=50, seed=0)

    assert band is not None
    assert band.specificity[-1] == 0
    assert band.low[-1] == band.sensitivity[-1] == band.high[-1] == 1


def test_the_band_holds_the_curve_and_rises_with_it() -> None:
    band = curves.roc_band(*scores_of(), resamples=500, seed=0)

    assert band is not None
    assert (band.low <= band.sensitivity).all()
    assert (band.sensitivity <= band.high).all()
    for limit in (band.low, band.high):
        assert (np.diff(limit) >= 0).all()
    assert (band.high - band.low)[20] > 0.02


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "ties"])
def test_the_band_is_that_of_curves_of_drawn_images(decimals: int) -> None:
    scores, positive = scores_of(decimals=decimals)
    ours = curves.roc_band(scores, positive, resamples=2000, seed=0)

    generator = np.random.default_rng(99)
    heights = []
    for _ in range(500):
        one, other = (generator.choice(scores[side], side.sum()) for side in (positive, ~positive))
        truth = np.repeat([1, 0], [len(one), len(other)])
        fpr, tpr, _ = sklearn_roc_curve(truth, np.concatenate([one, other]), drop_intermediate=False)
        heights.append(np.interp(np.arange(101) / 100, fpr, tpr))
    low, high = np.quantile(heights, [0.025, 0.975], axis=0)

    assert ours is not None
    assert np.abs(ours.low - low).mean() < 0.02
    assert np.abs(ours.high - high).mean() < 0.02


def test_copies_of_every_image_narrow_the_band_unless_they_are_one_patient() -> None:
    scores, positive = (np.repeat(values, 9) for values in scores_of(90))
    patients = np.repeat(np.arange(90), 9)

    images = curves.roc_band(scores, positive, resamples=300, seed=0)
    grouped = curves.roc_band(scores, positive, resamples=300, seed=0, groups=patients)

    assert images is not None
    assert grouped is not None
    assert grouped.method == "patient_bootstrap"
    ratio = (grouped.high - grouped.low).mean() / (images.high - images.low).mean()
    assert 2 < ratio < 4  # √9


@pytest.mark.parametrize("positives", [0, 1, 19, 20])
def test_a_side_of_fewer_than_two_images_has_no_band(positives: int) -> None:
    assert curves.roc_band(np.arange(20.0), np.arange(20) < positives, resamples=10, seed=0) is None


def test_images_of_one_patient_have_no_band() -> None:
    scores, positive = scores_of()

    assert curves.roc_band(scores, positive, resamples=10, seed=0, groups=np.zeros(200, dtype=np.int64)) is None


@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "ties"])
def test_the_mean_curve_is_the_mean_of_the_curves(decimals: int) -> None:
    predictions = predictions_of(5, decimals=decimals)
    predictions.targets[predictions.targets == 3] = 2  # one class without images

    mean = curves.mean_roc(predictions)

    expected = np.zeros(501)
    for index in (0, 1, 2, 4):
        truth = predictions.targets == index
        fpr, tpr, _ = sklearn_roc_curve(truth, predictions.probability_of(index), drop_intermediate=False)
        expected += np.interp(np.arange(501) / 500, fpr, tpr) / 4
    assert mean is not None
    assert mean.classes == 4
    assert mean.tpr == pytest.approx(expected, abs=1e-12)


def test_images_of_one_class_have_no_mean_curve() -> None:
    predictions = predictions_of(3)
    predictions.targets[:] = 1

    assert curves.mean_roc(predictions) is None


def test_consistency_bars_hold_95_percent_of_what_a_calibrated_model_does() -> None:
    bins = ReliabilityBins(
        np.array([0, 0.5, 0.8, 1.0]), np.array([0, 200, 50]), np.array([0, 100, 50]), np.array([np.nan, 0.7, 0.9])
    )

    low, high = curves.consistency_bars(bins)

    assert np.isnan([low[0], high[0]]).all()
    for place, (count, share) in enumerate([(200, 0.7), (50, 0.9)], start=1):
        inside = scipy.stats.binom.cdf(high[place] * count, count, share) - scipy.stats.binom.cdf(
            low[place] * count - 1, count, share
        )
        assert 0.95 <= inside < 0.99


def test_two_classes_are_counted_by_the_probability_of_the_positive_one() -> None:
    logits = np.log(np.array([[0.88, 0.12], [0.62, 0.38], [0.3, 0.7], [0.22, 0.78]])).astype(np.float32)
    predictions = Predictions(("a", "b"), logits, np.array([0, 1, 1, 0]), ("",) * 4)

    found = curves.score_histograms(predictions, "b")

    assert found.quantity == "positive"
    places = {
        panel.label: (panel.right.nonzero()[0].tolist(), panel.wrong.nonzero()[0].tolist()) for panel in found.panels
    }
    assert places == {"a": ([2], [15]), "b": ([14], [7])}


def test_right_and_wrong_follow_the_operating_point() -> None:
    logits = np.log(np.array([[0.62, 0.38]])).astype(np.float32)
    point = OperatingPoint("b", 0.3, "youden", 10, 10, 0.9, 0.9)

    found = curves.score_histograms(Predictions(("a", "b"), logits, np.array([1]), ("",), operating_point=point), "b")

    assert found.panels[1].right.sum() == 1


@pytest.mark.parametrize(("k", "panels"), [(2, 2), (5, 5), (10, 10), (11, 1)])
def test_every_image_is_counted_once(k: int, panels: int) -> None:
    predictions = predictions_of(k)

    found = curves.score_histograms(predictions, "1" if k == 2 else None)

    assert len(found.panels) == panels
    right = sum(int(panel.right.sum()) for panel in found.panels)
    wrong = sum(int(panel.wrong.sum()) for panel in found.panels)
    assert (right, right + wrong) == ((predictions.predicted == predictions.targets).sum(), 200)


def test_confusions_come_most_frequent_first_and_never_without_images() -> None:
    confusion = np.array([[50, 2, 0], [7, 10, 0], [2, 0, 0]])

    found = curves.top_confusions(confusion, 10)

    assert [(one.true, one.predicted, one.count, one.support) for one in found] == [
        (1, 0, 7, 17), (0, 1, 2, 52), (2, 0, 2, 2),
    ]  # fmt: skip
    assert curves.top_confusions(confusion, 1) == found[:1]
    assert curves.top_confusions(np.diag([3, 4]), 10) == ()


def test_confidence_ignores_the_operating_point() -> None:
    logits = np.log(np.array([[0.62, 0.38]])).astype(np.float32)
    point = OperatingPoint("b", 0.3, "youden", 10, 10, 0.9, 0.9)
    predictions = Predictions(("a", "b"), logits, np.array([0]), ("",), operating_point=point)

    bins = curves.top_label_bins(predictions)

    assert predictions.confidence == pytest.approx([0.62])
    assert bins.hits.sum() == 1


def test_without_a_temperature_there_is_nothing_before_it() -> None:
    assert curves.uncalibrated(predictions_of(3)) is None
