"""Temperature scaling against theory, scikit-learn, and data made with a known temperature."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.choosing import calibrate_on
from evalcam_cli.evaluation.operating_point import parse_rule
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.temperature import TemperatureFit, calibration_quality, fit_temperature


def drawn(n: int, k: int, temperature: float, *, seed: int = 0, spread: float = 2.0) -> Predictions:
    """Predictions whose outcomes were drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = (spread * generator.normal(size=(n, k))).astype(np.float32)
    noise = generator.gumbel(size=(n, k))
    targets = (logits / temperature + noise).argmax(axis=1)  # Gumbel's trick draws from the softmax
    return made(logits, targets)


def fitted_to(predictions: Predictions) -> float:
    temperature = fit_temperature(predictions).temperature
    assert temperature is not None
    return temperature


def made(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Predictions:
    classes = tuple(f"c{index}" for index in range(logits.shape[1]))
    return Predictions(classes, logits, targets, tuple(map(str, range(len(targets)))))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("k", [2, 7])
def test_the_temperature_that_made_the_outcomes_is_found_again(temperature: float, k: int) -> None:
    fit = fit_temperature(drawn(20_000, k, temperature, spread=2 * temperature))

    assert fit.temperature == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize(("k", "temperature"), [(2, 1.7), (3, 0.4), (10, 3.0)])
def test_agrees_with_scikit_learn(k: int, temperature: float) -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("needs scikit-learn 1.8")
    predictions = drawn(3000, k, temperature)

    theirs = calibration._TemperatureScaling().fit(predictions.logits.astype(np.float64), predictions.targets)

    assert fit_temperature(predictions).temperature == pytest.approx(1 / theirs.beta_, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_temperature_has_a_lower_loss(seed: int) -> None:
    predictions = drawn(80, 4, 1.5, seed=seed)
    fitted = fit_temperature(predictions).temperature
    assert fitted is not None

    best = calibration_quality(predictions, fitted).log_loss

    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        assert calibration_quality(predictions, fitted * factor).log_loss > best


def test_scaled_logits_scale_the_temperature() -> None:
    predictions = drawn(500, 3, 1.2)
    doubled = replace(predictions, logits=predictions.logits * np.float32(2))

    assert fitted_to(doubled) == pytest.approx(2 * fitted_to(predictions), rel=1e-12)


def test_a_temperature_that_predictions_have_is_not_compounded() -> None:
    predictions = drawn(500, 3, 1.2)

    assert fit_temperature(replace(predictions, temperature=3.0)) == fit_temperature(predictions)


def test_neither_the_order_of_classes_nor_accuracy_changes() -> None:
    predictions = drawn(400, 5, 3.0)
    scaled = replace(predictions, temperature=fitted_to(predictions))

    assert (scaled.predicted == predictions.predicted).all()
    assert (np.argsort(scaled.log_probabilities, axis=1) == np.argsort(predictions.log_probabilities, axis=1)).all()
    assert not np.allclose(scaled.probabilities, predictions.probabilities)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = drawn(500, 3, 1.2)
    whole, quality = fit_temperature(predictions).temperature, calibration_quality(predictions, 1.3)

    monkeypatch.setattr("evalcam_cli.evaluation.predictions.BLOCK_SCORES", 100)

    assert fit_temperature(predictions).temperature == pytest.approx(whole, rel=1e-12)
    assert calibration_quality(replace(predictions), 1.3) == quality


def test_what_the_images_cannot_tell_is_not_claimed() -> None:
    right = made(np.eye(3, dtype=np.float32)[[0, 1, 2] * 30], np.array([0, 1, 2] * 30))
    wrong = made(np.eye(3, dtype=np.float32)[[1, 2, 0] * 30], np.array([0, 1, 2] * 30))
    flat = made(np.zeros((90, 3), np.float32), np.array([0, 1, 2] * 30))
    tiny = made(drawn(90, 3, 1.0).logits * np.float32(1e-6), drawn(90, 3, 1.0).targets)

    for predictions, words in (
        (right, "0.05 or lower: all of them are classified right"),
        (wrong, "20 or higher"),
        (tiny, "0.05 or lower: the logits are too close"),
    ):
        fit = fit_temperature(predictions)
        assert fit.temperature is None
        assert words in str(fit.reason)
    assert fit_temperature(flat).temperature is None


def test_huge_logits_do_not_overflow() -> None:
    predictions = drawn(300, 3, 2.0)
    huge = replace(predictions, logits=(predictions.logits * 1e30).astype(np.float32))

    assert fit_temperature(huge) == TemperatureFit(None, fit_temperature(huge).reason)
    assert np.isfinite(calibration_quality(huge, 20.0).log_loss)


def test_loss_and_ece_are_those_of_the_metrics() -> None:
    from evalcam_cli.evaluation.metrics import compute_metrics

    predictions = drawn(300, 4, 2.0)
    metrics = compute_metrics(replace(predictions, temperature=1.9))

    quality = calibration_quality(predictions, 1.9)

    assert quality.log_loss == pytest.approx(metrics.overall["log_loss"].estimate, rel=1e-12)
    assert quality.ece == pytest.approx(metrics.overall["ece"].estimate, rel=1e-12)


def test_calibration_lowers_the_loss_and_says_what_it_did() -> None:
    predictions = drawn(600, 2, 3.0)

    found = calibrate_on(predictions, rule=parse_rule("sensitivity=0.9"))

    assert found.after.log_loss < found.before.log_loss
    assert found.after.ece < found.before.ece
    assert found.operating_point is not None
    assert found.temperature is not None
    assert found.operating_point.positive == "c1"
    scaled = replace(predictions, temperature=found.temperature, operating_point=found.operating_point)
    called = scaled.predicted[scaled.targets == 1] == 1
    assert called.mean() == found.operating_point.sensitivity >= 0.9
    assert found.rates["sensitivity"].ci_method == "wilson"
    assert found.document()["counts"] == {
        "c0": int((predictions.targets == 0).sum()),
        "c1": found.operating_point.positives,
    }


def test_the_temperature_changes_the_threshold_but_not_whom_youden_calls() -> None:
    """Of two classes, p after a temperature is a rising function of p before it."""
    predictions = drawn(600, 2, 3.0)

    scaled = calibrate_on(predictions, rule=parse_rule("youden")).operating_point
    plain = calibrate_on(predictions, temperature=False, rule=parse_rule("youden")).operating_point

    assert scaled is not None
    assert plain is not None
    assert (scaled.sensitivity, scaled.specificity) == (plain.sensitivity, plain.specificity)
    assert scaled.threshold != plain.threshold


def test_too_few_images_are_refused_unless_asked_for() -> None:
    predictions = drawn(49, 2, 2.0)

    with pytest.raises(DataError, match="--allow-few"):
        calibrate_on(predictions)

    found = calibrate_on(predictions, allow_few=True)
    assert found.temperature is not None
    assert [caution.code for caution in found.warnings] == ["few_validation_images"]
    assert calibrate_on(predictions, temperature=False).temperature is None


def test_one_class_alone_cannot_calibrate() -> None:
    predictions = drawn(80, 2, 2.0)

    with pytest.raises(DataError, match="all of one class; there are none of c1"):
        calibrate_on(predictions.take(np.flatnonzero(predictions.targets == 0)), allow_few=True)


def test_more_than_two_classes_need_a_positive_one() -> None:
    predictions = drawn(200, 3, 2.0)
    rule = parse_rule("youden")

    with pytest.raises(UsageError, match="--positive"):
        calibrate_on(predictions, rule=rule)
    with pytest.raises(UsageError, match="no class 'c9'"):
        calibrate_on(predictions, rule=rule, positive="c9")

    point = calibrate_on(predictions, rule=rule, positive="c1").operating_point
    assert point is not None
    assert point.positives == int((predictions.targets == 1).sum())


def test_costs_without_a_temperature_are_said_to_assume_calibration() -> None:
    predictions = drawn(200, 2, 2.0)

    found = calibrate_on(predictions, temperature=False, rule=parse_rule("cost=1:5"))

    assert [caution.code for caution in found.warnings] == ["uncalibrated"]
    assert calibrate_on(predictions, rule=parse_rule("cost=1:5")).warnings == ()
