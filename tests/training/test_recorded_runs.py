"""What the diagnosis says of recorded runs, against what was done to them."""

from evalcam_cli.training.diagnosis import VERDICTS
from tests.training.recorded import CURVES, judged, recorded

HELD_OUT = recorded(CURVES / "held_out")


def test_at_least_18_of_20_recorded_runs_are_told_by_what_was_done_to_them() -> None:
    """Runs of `tests.benchmarks.record_curves`, which says what was found at first sight of them."""
    missed = {curve["name"]: judged(curve).verdict for curve in HELD_OUT if judged(curve).verdict != curve["label"]}

    assert len(HELD_OUT) == 20
    assert len(missed) <= 2, missed


def test_of_all_recorded_runs_five_in_six_are_told() -> None:
    """62 runs: those that the thresholds were chosen by, and some whose treatment took no effect."""
    curves = [curve for folder in CURVES.iterdir() for curve in recorded(folder)]

    assert len(curves) == 62
    assert sum(judged(curve).verdict == curve["label"] for curve in curves) >= 52


def test_the_labels_of_the_recorded_runs_cover_every_fault() -> None:
    assert {curve["label"] for curve in HELD_OUT} == set(VERDICTS) - {"cannot be judged"}


def test_every_finding_of_a_recorded_run_has_its_numbers_and_its_advice() -> None:
    for curve in HELD_OUT:
        diagnosis = judged(curve)

        assert f"{diagnosis.train_accuracy:.3f} on training images" in diagnosis.sentence
        assert all(
            finding.advice and finding.code in (*VERDICTS, "few_validation_images") for finding in diagnosis.findings
        )
