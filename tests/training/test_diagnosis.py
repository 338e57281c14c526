"""Underfitting, overfitting or fine, by the numbers."""

import pytest

from evalcam_cli.training.diagnosis import Diagnosis, diagnose
from evalcam_cli.training.history import EpochRecord


def judged(train: float, val: float | None, losses: list[float] | None = None, images: int = 400) -> Diagnosis:
    history = [
        EpochRecord(epoch + 1, loss, loss, 0.5, 0.5, 0.1, 100.0, 1.0) for epoch, loss in enumerate(losses or [1.0, 0.9])
    ]
    return diagnose(
        train_accuracy=train, val_accuracy=val, train_images=images, val_images=images if val is not None else 0,
        chance=0.25, best_epoch=1, history=history,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("train", "val", "losses", "verdict"),
    [
        (0.40, 0.38, None, "underfits"),
        (0.62, 0.60, None, "underfits"),
        (0.99, 0.70, None, "overfits"),
        (0.70, 0.40, None, "overfits"),  # little learned, and that by heart
        (0.97, 0.90, [0.9, 0.4, 0.5, 0.7], "overfits"),  # the validation loss has turned
        (0.97, 0.95, [0.9, 0.4, 0.3, 0.3], "is fine"),
        (0.95, 0.96, None, "is fine"),
        (0.99, None, None, "cannot be judged"),
    ],
)
def test_the_verdict_follows_the_stated_rules(
    train: float, val: float | None, losses: list[float] | None, verdict: str
) -> None:
    assert judged(train, val, losses).verdict == verdict


def test_a_gap_that_chance_explains_is_not_overfitting() -> None:
    assert judged(0.95, 0.80, images=20).verdict == "is fine"
    assert judged(0.95, 0.80, images=2000).verdict == "overfits"


def test_the_sentence_holds_the_numbers_it_rests_on() -> None:
    diagnosis = judged(0.99, 0.70)

    assert "0.990" in diagnosis.sentence
    assert "0.700" in diagnosis.sentence
    assert "chance 0.250" in diagnosis.sentence
    assert "augmentation" in diagnosis.advice
