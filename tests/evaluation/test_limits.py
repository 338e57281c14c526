"""The interval of every metric: which formula it has, that resamples are what they claim, and clustering by patient."""

import time
import tracemalloc

import numpy as np
import pytest

from evalcam_cli.evaluation import limits
from evalcam_cli.evaluation.metrics import CLASS_METRICS, Metrics, compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.resampling import resample_weights
from evalcam_cli.evaluation.statistics import Sample

POINT = OperatingPoint("b", 0.3, "youden", 100, 300, 0.8, 0.7)


def sample(n: int = 394, k: int = 4, seed: int = 0, shift: float = 1.5, **more: object) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), targets] += shift
    return Predictions(tuple("abcdefgh"[:k]), logits, targets, tuple(map(str, range(n))), **more)  # type: ignore[arg-type]


def patients(n: int, size: int) -> tuple[str, ...]:
    """Groups of so many neighbouring images."""
    return tuple(f"patient {index // size}" for index in range(n))


def every(metrics: Metrics) -> dict[str, tuple[float | None, float | None]]:
    """The interval of every number."""
    found = {name: (one.ci_low, one.ci_high) for name, one in metrics.overall.items()}
    for label, entry in metrics.per_class.items():
        found |= {f"{name}[{label}]": (one.ci_low, one.ci_high) for name, one in entry.estimates.items()}
    return found


def test_resamples_draw_as_many_images_as_there_are() -> None:
    weights = np.concatenate(list(resample_weights(37, 4000, seed=1)))

    assert weights.shape == (4000, 37)
    assert (weights.sum(axis=1) == 37).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.07)
    np.testing.assert_allclose(weights.var(axis=0), 1 - 1 / 37, atol=0.12)  # binomial(37, 1/37)


def test_resamples_of_groups_draw_whole_groups() -> None:
    groups = np.array([0, 0, 0, 1, 2, 2])

    weights = np.concatenate(list(resample_weights(6, 500, seed=1, groups=groups)))

    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 3, 4]].sum(axis=1) == 3).all()


def test_resamples_depend_on_the_seed_alone() -> None:
    first, again, other = (
        compute_metrics(sample(), bootstrap=100, seed=seed).overall["f1_macro"] for seed in (3, 3, 4)
    )

    assert first == again
    assert first != other


def test_blocks_of_resamples_stay_small() -> None:
    blocks = list(resample_weights(50_000, 100, seed=0))

    assert sum(len(block) for block in blocks) == 100
    assert max(len(block) for block in blocks) * 50_000 * 48 <= 64_000_000


def test_pooled_scores_of_many_classes_are_resampled_in_little_memory() -> None:
    generator = np.random.default_rng(0)
    n, k = 100, 100
    names = tuple(map(str, range(k)))
    many = Sample.of(Predictions(names, generator.normal(size=(n, k)).astype(np.float32), np.arange(n) % k, names))
    weights = next(
        resample_weights(n, 1000, seed=0)
    )  # 10 million weights of pooled scores: 80 MB of running sums alone

    tracemalloc.start()
    pooled = many._micro(weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 60_000_000
    alone = [many._micro(row[None]).average_precision[0] for row in weights[::400]]
    np.testing.assert_array_equal(pooled.average_precision[::400], alone)


def test_resampled_counts_are_binomial() -> None:
    """Resampling images draws the number of hits from a binomial distribution with the accuracy found."""
    predictions = sample(300)
    hits = predictions.predicted == predictions.targets
    drawn = np.concatenate(list(resample_weights(300, 4000, seed=0)))[:, hits].sum(axis=1) / 300

    p = hits.mean()
    assert drawn.mean() == pytest.approx(p, abs=0.003)
    assert drawn.std() == pytest.approx(np.sqrt(p * (1 - p) / 300), rel=0.05)


def test_the_interval_of_a_mean_is_near_the_one_of_the_central_limit_theorem() -> None:
    predictions = sample(2000)
    losses = -predictions.log_probabilities[np.arange(2000), predictions.targets]
    error = losses.std() / np.sqrt(2000)

    found = compute_metrics(predictions, bootstrap=2000).overall["log_loss"]

    assert found.ci_low == pytest.approx(losses.mean() - 1.96 * error, abs=0.15 * error)
    assert found.ci_high == pytest.approx(losses.mean() + 1.96 * error, abs=0.15 * error)


def test_every_number_has_an_interval_around_it_or_the_reason_why_not() -> None:
    result = compute_metrics(sample(k=7, operating_point=POINT), bootstrap=300)

    pairs = [*result.overall.items(), *(p for entry in result.per_class.values() for p in entry.estimates.items())]
    without = {name for name, found in pairs if found.ci_low is None}
    assert without == {"ece", "ece_equal_mass", "mce"}
    for name, found in pairs:
        assert found.estimate is not None, name
        if found.ci_low is None or found.ci_high is None:
            assert "see ece_expected_if_calibrated" in (found.ci_note or "")
        else:
            assert found.ci_low < found.estimate < found.ci_high, name


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("accuracy", "wilson"),
        ("recall_weighted", "wilson"),
        ("precision_micro", "wilson"),
        ("top_3_accuracy", "wilson"),
        ("recall@op", "wilson"),
        ("lr_positive@op", "simel"),
        ("f1_macro", "bootstrap"),
        ("roc_auc_ovo_macro", "bootstrap"),
        ("ece_expected_if_calibrated", "consistency_resampling"),
    ],
)
def test_each_number_has_the_interval_that_suits_it(name: str, method: str) -> None:
    assert compute_metrics(sample(operating_point=POINT), bootstrap=100).overall[name].ci_method == method


def test_clopper_pearson_is_wider_than_wilson() -> None:
    """It is exact, so it covers at least 95 % everywhere and is longer for it (Newcombe 1998, Table II)."""
    choice = limits.IntervalChoice("clopper_pearson")
    wilson, exact = (compute_metrics(sample(), bootstrap=100, choice=one).overall["accuracy"] for one in (None, choice))

    assert exact.ci_method == "clopper_pearson"
    assert (exact.ci_high or 0) - (exact.ci_low or 1) > (wilson.ci_high or 1) - (wilson.ci_low or 0)


def test_without_bootstrap_there_are_points_only() -> None:
    result = compute_metrics(sample())

    assert all(found.ci_low is None and found.ci_note is None for found in result.overall.values())
    assert all(entry.estimates["recall"].ci_low is None for entry in result.per_class.values())
    assert result.tests == {}


def test_copies_of_an_image_in_one_patient_add_nothing() -> None:
    """Every image four times over, as four images of one patient: the intervals are near those of the images once."""
    once = sample(150, 2, operating_point=POINT)
    fourfold = np.repeat(np.arange(150), 4)
    copied = once.take(fourfold)
    grouped = sample(150, 2, operating_point=POINT, groups=patients(150, 1)).take(fourfold)

    alone, naive, clustered = (every(compute_metrics(one, bootstrap=800)) for one in (once, copied, grouped))

    for name in ("accuracy", "roc_auc", "f1_macro", "log_loss", "recall@op", "recall[a]", "calibration_slope"):
        width, narrow, honest = ((found[name][1] or 0) - (found[name][0] or 0) for found in (alone, naive, clustered))
        assert narrow < 0.62 * width, name
        assert 0.8 * width < honest < 1.35 * width, name


def test_by_patient_every_interval_says_so() -> None:
    result = compute_metrics(sample(300, 2, operating_point=POINT, groups=patients(300, 5)), bootstrap=200)

    assert result.groups == 60
    independent = {"wilson", "simel", "bootstrap", "wald"}
    pairs = [*result.overall.items(), *(p for entry in result.per_class.values() for p in entry.estimates.items())]
    assert not {name for name, found in pairs if found.ci_method in independent}
    assert (
        result.tests["accuracy_above_no_information_rate"].undefined_reason == "images of one group are not independent"
    )


def test_groups_of_one_image_are_independent_images() -> None:
    alone = compute_metrics(sample(200, 2), bootstrap=100)
    grouped = compute_metrics(sample(200, 2, groups=patients(200, 1)), bootstrap=100)

    assert grouped.groups is None
    assert every(grouped) == every(alone)
    assert grouped.tests == alone.tests


def test_resamples_that_all_agree_are_no_certainty() -> None:
    result = compute_metrics(sample(shift=50), bootstrap=100)

    found = result.overall["f1_macro"]
    assert (found.estimate, found.ci_low, found.ci_method) == (1, None, None)
    assert "cannot tell" in (found.ci_note or "")
    assert result.overall["accuracy"].ci_low == pytest.approx(394 / (394 + 1.959964**2), abs=1e-6)


def test_a_class_with_one_image_has_no_interval_of_rank() -> None:
    predictions = sample(30, 2)
    lonely = np.where(np.arange(30) == 0, 1, 0)

    result = compute_metrics(
        Predictions(predictions.classes, predictions.logits, lonely, predictions.paths), bootstrap=100
    )

    for name in ("roc_auc", "average_precision", "partial_roc_auc"):
        found = result.per_class["b"].estimates[name]
        assert found.estimate is not None
        assert found.ci_low is None
        assert "at least 2 images" in (found.ci_note or "")
    assert result.per_class["b"].estimates["recall"].ci_method == "wilson"


def test_too_much_work_leaves_out_the_intervals_of_ranks_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_RANKED_SCORES", 1000)

    result = compute_metrics(sample(), bootstrap=20)

    assert result.overall["roc_auc_ovr_macro"].ci_low is None
    assert "left out" in (result.overall["roc_auc_ovr_macro"].ci_note or "")
    assert result.per_class["a"].estimates["roc_auc"].ci_low is not None
    assert result.overall["f1_macro"].ci_low is not None
    assert "intervals_left_out" in [caution.code for caution in result.warnings]
    assert set(result.per_class["a"].estimates) == set(CLASS_METRICS)


@pytest.mark.parametrize("clustered", [False, True])
def test_no_interval_leaves_its_estimate_outside(clustered: bool) -> None:
    """Two images a class: resampling repeats images, which moves the largest share and average precision upwards."""
    generator = np.random.default_rng(4)
    targets = np.arange(100) % 50
    logits = generator.normal(size=(100, 50)).astype(np.float32)
    logits[np.arange(100), targets] += 1.5
    classes, paths = tuple(f"c{i}" for i in range(50)), tuple(map(str, range(100)))
    groups = patients(100, 2) if clustered else ()

    result = compute_metrics(Predictions(classes, logits, targets, paths, groups=groups), bootstrap=200)

    for name, found in result.overall.items():
        if found.ci_low is not None and found.ci_high is not None and found.estimate is not None:
            assert found.ci_low - 1e-12 <= found.estimate <= found.ci_high + 1e-12, name
    assert "one side of the estimate" in (result.overall["no_information_rate"].ci_note or "")
    assert "one side of the estimate" in (result.overall["average_precision_weighted"].ci_note or "")


def test_one_patient_gives_no_interval_to_anything_but_the_null_of_the_calibration() -> None:
    """Its sandwich estimate of a variance is 0 whatever the images say."""
    result = compute_metrics(sample(60, 2, groups=patients(60, 60)), bootstrap=100)

    pairs = [*result.overall.items(), *result.per_class["b"].estimates.items()]
    assert {name for name, found in pairs if found.ci_low is not None} == {"ece_expected_if_calibrated"}
    assert all(found.ci_note for _, found in pairs if found.ci_low is None and found.estimate is not None)


def test_a_usual_test_set_takes_a_few_seconds() -> None:
    predictions = sample()
    start = time.process_time()

    compute_metrics(predictions, bootstrap=1000)

    assert time.process_time() - start < 4
