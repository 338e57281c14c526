"""Every group of `reference_values.json`, to the digits printed there, or the reason why it is not ours."""

import csv
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.evaluation.auc import Placements, auc_interval, delong_covariance, delong_variance, placements
from evalcam_cli.evaluation.calibration import equal_mass_bins, reliability_bins
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.folds import nadeau_bengio_test
from evalcam_cli.evaluation.intervals import clopper_pearson, likelihood_ratio_intervals, wilson
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.operating_point import choose_operating_point, parse_rule
from evalcam_cli.evaluation.paired import compare_auc, mcnemar
from evalcam_cli.evaluation.ranking import rank, ranked_metrics
from evalcam_cli.evaluation.several import cochran
from evalcam_cli.evaluation.unpaired import compare_aucs_apart
from tests.conftest import SHARED
from tests.evaluation.degenerate_cases import decided, made, with_second

DATA = SHARED / "reference" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the reference data is not here")

Group = Any
NOT_OURS = {
    "_note": "no values",
    "pROC_multiclass_univariate": "one score for several classes; evalcam has one score per class and never flips one",
    "Guo2017_Table1_ECE15_percent_uncal_temp": "the logits are not at hand: plausibility only",
    "scipy_bootstrap_vs_R": "BCa intervals of a mean; evalcam takes percentiles",
    "delong_iris_yandex": "depends on a fit: plausibility only",
}
"""Within the groups held: McNemar's chi-squared forms, weighted kappa, L2 calibration errors, the Wilson interval with
continuity correction, the mid-p interval of a proportion, power, and values interpolated on a ROC curve are not
ours."""


def reference() -> dict[str, Group]:
    found: dict[str, Group] = json.loads((DATA / "reference_values.json").read_text(encoding="utf-8"))
    return found


def estimate(metrics: Metrics, name: str) -> float:
    base, _, label = name.rstrip("]").partition("[")
    found: Estimate = metrics.per_class[label].estimates[base] if label else metrics.overall[base]
    assert found.estimate is not None
    return found.estimate


def table(tp: int, fn: int, fp: int, tn: int) -> Metrics:
    return compute_metrics(decided([1] * (tp + fn) + [0] * (fp + tn), [1] * tp + [0] * fn + [1] * fp + [0] * tn, 2))


def flat(matrix: list[list[int]]) -> Metrics:
    """Of a confusion matrix."""
    cells = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    return compute_metrics(decided([i for i, _ in cells], [j for _, j in cells], len(matrix)))


def asah(column: str, *, female: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    with (DATA / "aSAH.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if not female or row["gender"] == "Female"]
    return np.array([float(row[column]) for row in rows]), np.array([row["outcome"] == "Poor" for row in rows])


def placed(column: str, *, female: bool = False) -> Placements:
    found = placements(*asah(column, female=female))
    assert found is not None
    return found


def hold_asah(group: Group) -> None:
    for name, variance in group["var_delong"].items():
        assert placed(name).auc == pytest.approx(group["auc"][name], abs=5e-5 if name == "s100b" else 1e-12)
        assert delong_variance(placed(name)) == pytest.approx(variance, abs=1e-12)
    for pair, covariance in group["cov_delong"].items():
        assert delong_covariance(*map(placed, pair.split(","))) == pytest.approx(covariance, abs=1e-12)
    limits = auc_interval(placed("ndka"), method="delong")
    assert (limits.low, limits.high) == pytest.approx(group["ci_delong_wald_95"]["ndka"], abs=1e-12)
    women = placed("ndka", female=True)
    limits = auc_interval(women, method="delong")
    assert women.auc == pytest.approx(group["auc_female_subset_ndka"], abs=5e-11)
    assert (limits.low, limits.high) == pytest.approx(group["ci_delong_wald_95"]["ndka_female_subset"], abs=5e-11)
    for pair, wanted in group["paired_delong"].items():
        second, first = pair.split("-")  # pROC takes the first less the second, evalcam the second less the first
        tested = compare_auc(placed(first), placed(second))
        assert (tested.statistic, tested.p_value) == pytest.approx((wanted["Z"], wanted["p_two"]), abs=1e-12)
        assert (tested.interval.low, tested.interval.high) == pytest.approx(wanted["ci"], abs=1e-12)
    for pair, wanted in group["unpaired_delong"].items():
        second, first = map(placed, pair.split("-"))
        tested = compare_aucs_apart((first, second), as_proc=True)
        assert (tested.statistic, tested.p_value) == pytest.approx((wanted["D"], wanted["p"]), abs=1e-12)
    for name, wanted in group["partial_auc_spec_0.9_1_mcclish"].items():
        scores, positive = asah(name)
        found = ranked_metrics(rank(scores, positive), np.ones((1, len(scores)), dtype=np.int32)).partial_roc_auc[0]
        assert found == pytest.approx(wanted, abs=1e-12)
        area = 0.005 + (2 * found - 1) * (0.1 - 0.005)  # McClish undone
        assert area == pytest.approx(group["partial_auc_spec_0.9_1"][name], abs=1e-12)
    point = choose_operating_point(*asah("s100b"), positive="Poor", rule=parse_rule("youden"))
    wanted = group["coords_s100b_youden"]
    assert (point.threshold, point.sensitivity, point.specificity) == (0.22, wanted["tp"] / 41, wanted["tn"] / 72)


def hold_hand_till(group: Group) -> None:
    rows = [line.split() for line in (DATA / "ht01.twoclass.txt").read_text().replace('"', "").splitlines()[1:]]
    found = placements(np.array([float(row[2]) for row in rows]), np.array([row[1] == "1" for row in rows]))
    assert found is not None
    assert found.auc == pytest.approx(group["binary_auc"], abs=1e-14)
    head, *rows = [line.split() for line in (DATA / "ht01.multipleclass.txt").read_text().replace('"', "").splitlines()]
    targets = [head[1:].index(row[1]) for row in rows]
    metrics = compute_metrics(made(targets, [[float(cell) for cell in row[2:]] for row in rows], stated=True))
    assert estimate(metrics, "roc_auc_ovo_macro") == pytest.approx(group["multiclass_M"], abs=1e-14)


def hold_proportions(group: Group, *, exact: str) -> None:
    for method, of in (("wilson", wilson), (exact, clopper_pearson)):
        for cell, wanted in group[method].items():
            for found, value in zip(of(*map(int, cell.split("/"))), wanted, strict=True):
                assert float(found) == as_printed(value), (method, cell)


def as_printed(value: float) -> Any:
    """Equal to the digits given, at most to 1e-12."""
    decimals = len(repr(float(value)).partition(".")[2])
    return pytest.approx(value, abs=max(0.501 * 10**-decimals, 1e-12) if decimals > 1 else 1e-12)


def hold_mcnemar(group: Group) -> None:
    for cells, wanted in group["statsmodels_vs_R"].items():
        if cells.startswith("["):
            (_, b), (c, _) = json.loads(cells)
            assert min(b, c) == wanted["exact"][0]
            assert mcnemar(b, c, "exact")[0] == pytest.approx(wanted["exact"][1], abs=5e-7)


def hold_cochran(group: Group) -> None:
    found = cochran(np.array(group["x"]) == 1)

    assert found.statistic == pytest.approx(group["Q"])
    assert found.p_value == pytest.approx(group["p"], abs=5e-7)


def hold_epir(group: Group) -> None:
    cells, more = group["table"], group["recomputed"]
    metrics = table(cells["tp"], cells["fn"], cells["fp"], cells["tn"])
    positive, negative = likelihood_ratio_intervals(cells["tp"], cells["fp"], cells["fn"], cells["tn"])
    for name, printed in (("recall[b]", "se"), ("specificity[b]", "sp")):
        assert estimate(metrics, name) == pytest.approx(group[printed][0], abs=0.0051)
    ratios = [(estimate(metrics, f"{name}[b]"), ci.low, ci.high)
              for name, ci in (("lr_positive", positive), ("lr_negative", negative))]  # fmt: skip
    assert ratios[0] == pytest.approx(group["lr_pos"], abs=0.0051)
    for found, wanted in zip(ratios, (more["lr_pos"], more["lr_neg"]), strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)  # recomputed there with z = 1.96
    assert clopper_pearson(670, 744) == pytest.approx(tuple(more["se_exact"]), abs=1e-12)
    assert clopper_pearson(640, 842) == pytest.approx(tuple(more["sp_exact"]), abs=1e-12)
    youden = estimate(metrics, "recall[b]") + estimate(metrics, "specificity[b]") - 1
    assert 1 / youden == pytest.approx(group["nnd"][0], abs=0.0051)


def hold_kappa(group: Group) -> None:
    first = group["Artstein_Poesio_2008"]["table1"]

    assert estimate(flat(first["matrix"]), "cohen_kappa") == pytest.approx(first["kappa"], abs=5e-4)
    assert estimate(flat(group["SAS"]["matrix"]), "cohen_kappa") == pytest.approx(group["SAS"]["kappa"][0], abs=5e-5)


def hold_pitfalls(group: Group) -> None:
    names = {"ba": "balanced_accuracy", "mcc": "mcc", "kappa": "cohen_kappa", "f1": "f1[b]"}
    for figure in ("SN2.9_A", "SN2.9_B"):
        cells = group[figure]
        metrics = table(cells["tp"], cells["fn"], cells["fp"], cells["tn"])
        for short, name in names.items():
            assert estimate(metrics, name) == pytest.approx(cells[short], abs=0.0051), (figure, name)
    ece = group["SN2.24_ece"]
    for bins, wanted in ece["exact_recomputed"].items():
        found = reliability_bins(np.array(ece["p"]), np.array(ece["y"]) == 1, int(bins))
        assert (found.ece, found.mce) == pytest.approx(wanted, abs=1e-12)
        assert (found.ece, found.mce) == pytest.approx((ece["ece"][bins], ece["mce"][bins]), abs=group["tolerance"])
    two = group["SN2.18"]
    metrics = compute_metrics(made(two["y"], with_second(two["p"]), stated=True))
    assert estimate(metrics, "roc_auc") == pytest.approx(two["auroc"], abs=0.0051)
    brier = group["brier_sum_form"]
    metrics = compute_metrics(made(brier["y"], brier["p"], stated=True))
    assert 2 * estimate(metrics, "brier") == pytest.approx(brier["bs"], abs=1e-12)
    assert -estimate(metrics, "log_loss") == pytest.approx(brier["log_score"], abs=0.0051)


def hold_verified_calibration(group: Group) -> None:
    one = group["binary_discrete_bins"]
    assert reliability_bins(np.array(one["p"]), np.array(one["y"]) == 1).ece == pytest.approx(one["l1"], abs=1e-12)
    for name, bins in (("ece_3class_3bins", 3), ("missing_class", 15)):
        p, y = np.array(group[name]["p"]), np.array(group[name]["y"])
        found = reliability_bins(p.max(axis=1), p.argmax(axis=1) == y, bins)
        assert found.ece == pytest.approx(group[name]["ece"], abs=1e-12)
    for case in group["equal_mass"]:
        found = equal_mass_bins(np.array(case["p"]), np.array(case["y"]) == 1, case["bins"])
        assert found.ece == pytest.approx(case["ece"], abs=1e-12)


def hold_torchmetrics_doc(group: Group) -> None:
    found = reliability_bins(np.array(group["p"]), np.array(group["y"]) == 1, group["bins"])

    assert found.ece == pytest.approx(group["l1"], abs=5e-5)
    assert found.mce == pytest.approx(group["max"], abs=5e-5)


def hold_calibration_curve(group: Group) -> None:
    found = reliability_bins(np.array(group["p"]), np.array(group["y"]) == 1, group["bins"])

    assert (found.hits / found.counts).tolist() == group["prob_true"]
    assert found.confidence.tolist() == pytest.approx(group["prob_pred"])


def hold_brier(group: Group) -> None:
    metrics = compute_metrics(made(group["y"], group["p"], stated=True))

    assert estimate(metrics, "brier") == pytest.approx(group["brier_sum_form"], abs=5e-9)


def hold_nadeau_bengio(group: Group) -> None:
    """The 100 differences are not at hand, but t and J determine p, and t without the correction determines t with."""
    count = 100
    spread = np.resize([1.0, -1.0], count) / np.std(np.resize([1.0, -1.0], count), ddof=1)
    differences = spread + group["t_uncorrected"] / math.sqrt(count)

    plain = nadeau_bengio_test(differences, 0, alternative="greater")
    corrected = nadeau_bengio_test(differences, group["n_test"] / group["n_train"], alternative="greater")

    assert plain == pytest.approx((group["t_uncorrected"], group["p_uncorrected"]), abs=1e-12)
    assert corrected == pytest.approx((group["t_corrected"], group["p_one_sided"]), abs=1e-12)


HELD: dict[str, Callable[[Group], None]] = {
    "aSAH_pROC": hold_asah,
    "HandTill2001": hold_hand_till,
    "Newcombe1998_TableI": lambda group: hold_proportions(group, exact="clopper_pearson"),
    "R_binom_confint": lambda group: hold_proportions(group, exact="exact"),
    "McNemar": hold_mcnemar,
    "CochranQ_Conover": hold_cochran,
    "epiR_Scott2008": hold_epir,
    "Kappa": hold_kappa,
    "MetricsReloaded_pitfalls": hold_pitfalls,
    "verified_calibration": hold_verified_calibration,
    "torchmetrics_doc_ece": hold_torchmetrics_doc,
    "sklearn_calibration_curve_doc": hold_calibration_curve,
    "sklearn_brier_multiclass": hold_brier,
    "Nadeau_Bengio": hold_nadeau_bengio,
}


@pytest.mark.parametrize("name", HELD)
def test_published_numbers_come_out(name: str) -> None:
    HELD[name](reference()[name])


def test_no_group_is_passed_over_without_a_reason() -> None:
    assert set(reference()) == set(HELD) | set(NOT_OURS)
