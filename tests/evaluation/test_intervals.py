"""Intervals against printed numbers, known distributions, and what a bootstrap must not do."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from evalcam_cli.evaluation import intervals, metrics
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.metrics import CLASS_METRICS, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "data" / "reference_values.json"

WILSON = [  # Newcombe 1998, Table I, method 3; 18/20 and 30/30: R's binom::binom.confint, as in statsmodels' tests
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (18, 20, 0.6989663547715128, 0.972133518786232),
    (30, 30, 0.8864866, 1.0),
]


def sample(n: int = 394, k: int = 4, seed: int = 0, shift: float = 1.5) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k))
    logits[np.arange(n), targets] += shift
    return Predictions(tuple("abcdefgh"[:k]), logits.astype(np.float32), targets, tuple(map(str, range(n))))


@pytest.mark.parametrize(("successes", "trials", "low", "high"), WILSON)
def test_wilson_equals_printed_intervals(successes: int, trials: int, low: float, high: float) -> None:
    found = intervals.wilson_interval(successes, trials)

    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-5)
    assert found.method == "wilson"


def test_wilson_equals_every_reference_value() -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference data is not here")
    groups = json.loads(REFERENCE.read_text(encoding="utf-8"))
    printed = groups["Newcombe1998_TableI"]["wilson"] | groups["R_binom_confint"]["wilson"]

    for fraction, limits in printed.items():
        found = intervals.wilson_interval(*map(int, fraction.split("/")))
        assert [found.low, found.high] == pytest.approx(limits, abs=5.1e-5), fraction


@pytest.mark.parametrize("trials", [1, 2, 20, 1000, 10**7])
def test_wilson_equals_scipy_and_stays_within_0_and_1(trials: int) -> None:
    for successes in {0, 1, trials // 3, trials - 1, trials}:
        found = intervals.wilson_interval(successes, trials)
        wanted = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= successes / trials <= found.high <= 1


def test_wilson_of_nothing_is_no_interval() -> None:
    assert intervals.wilson_interval(0, 0) == Interval()
    assert np.isnan(intervals.wilson([0, 1], [0, 2])).tolist() == [[True, False], [True, False]]


def test_every_class_keeps_its_size_in_every_resample() -> None:
    strata = np.repeat([0, 1, 2], [2, 30, 5])[np.random.default_rng(0).permutation(37)]

    (weights,) = intervals.stratified_weights(strata, 200, seed=1)

    assert weights.shape == (200, 37)
    for stratum, size in enumerate([2, 30, 5]):
        assert (weights[:, strata == stratum].sum(axis=1) == size).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.35)


def test_resamples_depend_on_the_seed_alone() -> None:
    first, again, other = (
        compute_metrics(sample(), bootstrap=100, seed=seed).overall["f1_macro"] for seed in (3, 3, 4)
    )

    assert first == again
    assert first != other


def test_blocks_keep_memory_bounded() -> None:
    blocks = list(intervals.stratified_weights(np.zeros(50_000, dtype=np.int64), 100, seed=0))

    assert sum(len(block) for block in blocks) == 100
    assert max(len(block) for block in blocks) * 50_000 * 48 <= 200_000_000


def test_resampled_counts_are_multinomial() -> None:
    """Resampling the images of a class is a multinomial draw from its row of the confusion matrix."""
    predictions = sample(300)
    recall = [compute_metrics(predictions).per_class[label].recall for label in predictions.classes]
    weights = np.concatenate(list(intervals.stratified_weights(predictions.targets, 4000, seed=0)))

    for index, estimate in enumerate(recall):
        own = predictions.targets == index
        drawn = weights[:, own & (predictions.predicted == index)].sum(axis=1) / own.sum()
        p, n = estimate.estimate or 0.0, int(own.sum())
        assert drawn.mean() == pytest.approx(p, abs=0.005)
        assert drawn.std() == pytest.approx(np.sqrt(p * (1 - p) / n), rel=0.06)


def test_the_interval_of_a_mean_is_near_the_one_of_the_central_limit_theorem() -> None:
    """The log loss is a mean over images; its stratified standard error is known in closed form."""
    predictions = sample(2000)
    losses = -predictions.log_probabilities[np.arange(2000), predictions.targets]
    within = sum(losses[predictions.targets == k].var() * (predictions.targets == k).sum() for k in range(4))
    error = np.sqrt(within) / 2000

    found = compute_metrics(predictions, bootstrap=2000).overall["log_loss"]

    assert found.ci_low == pytest.approx(losses.mean() - 1.96 * error, abs=0.15 * error)
    assert found.ci_high == pytest.approx(losses.mean() + 1.96 * error, abs=0.15 * error)


def test_every_number_has_an_interval_around_it_except_ece() -> None:
    result = compute_metrics(sample(), bootstrap=300)

    wilson = {"accuracy", "precision", "recall", "specificity", "npv"}
    pairs = [*result.overall.items(), *(p for entry in result.per_class.values() for p in entry.estimates.items())]
    for name, found in pairs:
        if name == "ece":
            continue
        assert found.estimate is not None
        assert found.ci_low is not None
        assert found.ci_high is not None
        assert found.ci_low < found.estimate < found.ci_high, name
        assert found.ci_method == ("wilson" if name in wilson else "stratified_bootstrap")


def test_ece_gets_no_interval_and_says_why() -> None:
    found = compute_metrics(sample(), bootstrap=100).overall["ece"]

    assert (found.ci_low, found.ci_high, found.ci_method) == (None, None, None)
    assert found.ci_note == "no interval: resampling inflates ECE"


def test_without_bootstrap_there_are_points_only() -> None:
    result = compute_metrics(sample())

    assert all(found.ci_low is None and found.ci_note is None for found in result.overall.values())
    assert all(entry.recall.ci_low is None for entry in result.per_class.values())


def test_the_interval_of_the_auc_covers_the_true_one_most_of_the_time() -> None:
    """Binormal scores of AUC 0.75, 30 against 30: the percentile bootstrap covers about 94.5 %; here 40 sets."""
    generator = np.random.default_rng(0)
    targets = np.repeat([0, 1], 30)
    covered = 0
    for _ in range(40):
        scores = generator.normal(size=60) + targets * np.sqrt(2) * scipy.stats.norm.ppf(0.75)
        logits = np.stack([np.zeros(60), scores], axis=1).astype(np.float32)
        found = compute_metrics(Predictions(("a", "b"), logits, targets, ("",) * 60), bootstrap=200).overall["roc_auc"]
        assert found.ci_low is not None
        assert found.ci_high is not None
        covered += found.ci_low <= 0.75 <= found.ci_high

    assert covered >= 34


def test_more_than_a_twentieth_of_undefined_resamples_leaves_no_interval() -> None:
    values = np.linspace(0, 1, 100)
    values[:5] = np.nan
    assert intervals.percentile_interval(values).method == "stratified_bootstrap"

    values[:6] = np.nan
    found = intervals.percentile_interval(values)

    assert (found.low, found.note) == (None, "undefined in 6.0% of the resamples")


def test_resamples_that_all_agree_are_no_certainty() -> None:
    result = compute_metrics(sample(shift=50), bootstrap=100)

    found = result.overall["f1_macro"]
    assert (found.estimate, found.ci_low, found.ci_method) == (1, None, None)
    assert "cannot tell" in (found.ci_note or "")
    assert result.overall["accuracy"].ci_low == pytest.approx(394 / (394 + 1.959964**2), abs=1e-6)


def test_a_class_with_one_image_has_no_bootstrap_interval() -> None:
    predictions = sample(30, 2)
    lonely = np.where(np.arange(30) == 0, 1, 0)

    result = compute_metrics(
        Predictions(predictions.classes, predictions.logits, lonely, predictions.paths), bootstrap=50
    )

    assert result.per_class["b"].roc_auc.estimate is not None
    assert result.per_class["b"].roc_auc.ci_low is None
    assert "at least 2 images" in (result.per_class["b"].roc_auc.ci_note or "")
    assert result.per_class["b"].recall.ci_method == "wilson"


def test_too_much_work_leaves_out_the_intervals_of_ranks_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_RANKED_DRAWS", 1000)

    result = compute_metrics(sample(), bootstrap=20)

    assert result.overall["roc_auc_ovr_macro"].ci_low is None
    assert "left out" in (result.overall["roc_auc_ovr_macro"].ci_note or "")
    assert result.overall["f1_macro"].ci_low is not None
    assert "intervals_left_out" in [caution.code for caution in result.warnings]
    assert set(result.per_class["a"].estimates) == set(CLASS_METRICS)


def test_a_usual_test_set_takes_less_than_two_seconds() -> None:
    predictions = sample()
    start = time.process_time()

    compute_metrics(predictions, bootstrap=1000)

    assert time.process_time() - start < 2
