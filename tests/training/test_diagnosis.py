"""What is wrong with a run, by the numbers."""

import math
from typing import Any

import pytest

from evalcam_cli.training.diagnosis import Diagnosis, diagnose
from evalcam_cli.training.history import EpochRecord

GOOD = [1.3, 0.9, 0.6, 0.4, 0.3]


def confusion(accuracy: float, per_class: int, classes: int = 4) -> list[list[int]]:
    """Equally many images of each class, of which a share is told right and the others are spread."""
    right = round(accuracy * per_class)
    wrong, more = divmod(per_class - right, classes - 1)
    rows = [[wrong + (shift <= more) for shift in range(classes)] for _ in range(classes)]
    rows = [[row[(column - index) % classes] for column in range(classes)] for index, row in enumerate(rows)]
    for index, row in enumerate(rows):
        row[index] = right
    assert all(sum(row) == per_class for row in rows)
    return rows


def verdict_on(
    train: float = 0.95, val: float | None = 0.93, *, train_losses: list[float] = GOOD,
    val_losses: list[float] | None = None, images: int = 100, **changes: Any,
) -> Diagnosis:  # fmt: skip
    """The diagnosis of a run with four classes, each with `images` training and validation images."""
    losses = train_losses if val_losses is None else val_losses
    history = [
        EpochRecord(epoch, loss, None if val is None else other, val, val, 0.1, 100.0, 1.0)
        for epoch, (loss, other) in enumerate(zip(train_losses, losses, strict=True), 1)
    ]
    facts = {
        "history": history,
        "best_epoch": len(history),
        "classes": ("a", "b", "c", "d"),
        "train_counts": [images] * 4,
        "train_confusion": confusion(train, images),
        "val_confusion": None if val is None else confusion(val, images),
        "lr": 1e-3,
    }
    return diagnose(**{**facts, **changes})


@pytest.mark.parametrize(
    ("train", "val", "losses", "verdict"),
    [
        (0.99, 0.70, None, "overfits"),
        (0.70, 0.40, None, "overfits"),  # little learned, and that by heart
        (0.97, 0.90, [0.9, 0.4, 0.5, 0.7, 0.8], "overfits"),  # the validation loss has turned
        (0.97, 0.90, [0.9, 0.4, 0.3, 0.9, 0.3], "is fine"),  # one bad epoch is no turn
        (0.97, 0.95, None, "is fine"),
        (0.95, 0.96, None, "is fine"),
        (0.99, None, None, "cannot be judged"),
    ],
)
def test_the_gap_tells_whether_a_run_overfits(
    train: float, val: float | None, losses: list[float] | None, verdict: str
) -> None:
    assert verdict_on(train, val, val_losses=losses).verdict == verdict


@pytest.mark.parametrize(("train", "val"), [(0.40, 0.38), (0.62, 0.60)])
def test_training_images_that_are_not_learned_show_underfitting(train: float, val: float) -> None:
    assert verdict_on(train, val, train_losses=[1.4, 1.3, 1.2, 1.1, 1.0]).verdict == "underfits"


def test_a_low_training_loss_beside_one_of_guessing_is_learning_by_heart() -> None:
    """In evaluation mode lagging statistics of batch norm can hide that the training images are known."""
    known, guessed = [1.3, 0.9, 0.5, 0.4, 0.3], [1.4, 1.4, 1.3, 1.3, 1.3]

    diagnosis = verdict_on(0.50, 0.45, train_losses=known, val_losses=guessed)

    assert diagnosis.verdict == "overfits"
    assert "0.300 in training and 1.300 in validation" in diagnosis.sentence
    assert verdict_on(0.50, 0.45, train_losses=known, val_losses=guessed, loss="focal").verdict == "underfits"


def test_a_gap_that_chance_explains_is_not_overfitting() -> None:
    few = verdict_on(0.95, val_confusion=confusion(0.80, 5))
    many = verdict_on(0.95, val_confusion=confusion(0.80, 500))

    assert few.gap == pytest.approx(many.gap)
    assert few.verdict == "is fine"
    assert many.verdict == "overfits"


def test_the_standard_error_is_that_of_a_difference_of_proportions() -> None:
    """Agresti and Caffo 2000: one success and one failure added to each of the two samples."""
    diagnosis = verdict_on(0.90, 0.80)
    train, val = 361 / 402, 321 / 402

    assert diagnosis.gap == pytest.approx(0.10)
    assert diagnosis.gap_standard_error == pytest.approx(math.sqrt((train * (1 - train) + val * (1 - val)) / 402))


def test_sets_with_other_shares_of_the_classes_are_compared_at_the_same_shares() -> None:
    """Class a is always told right and b to one half, in both sets; only the shares of a and b differ."""
    diagnosis = verdict_on(
        classes=("a", "b"),
        train_counts=[300, 100],
        train_confusion=[[300, 0], [50, 50]],
        val_confusion=[[40, 0], [80, 80]],
    )

    assert diagnosis.train_accuracy == 0.875
    assert diagnosis.val_accuracy == 0.6
    assert diagnosis.gap == pytest.approx(0)


STUCK = [1.50, 1.49, 1.48, 1.48, 1.48]


def test_a_loss_driven_far_above_that_of_guessing_shows_a_rate_that_is_too_high() -> None:
    diagnosis = verdict_on(0.3, 0.3, train_losses=[9.0, 4.0, 1.5, 1.4, 1.4], lr=0.5)

    assert diagnosis.verdict == "learning_rate_too_high"
    assert "0.5" in diagnosis.sentence
    assert "was 9 in epoch 1" in diagnosis.sentence
    assert "costs 1.39" in diagnosis.sentence  # log 4
    assert "divide train.lr" in diagnosis.advice


def test_a_network_that_got_over_a_bad_start_is_fine() -> None:
    assert verdict_on(train_losses=[9.0, 2.0, 0.6, 0.4, 0.3]).verdict == "is fine"


@pytest.mark.parametrize(
    ("train", "losses", "lr", "verdict"),
    [
        (0.30, STUCK, 1e-6, "learning_rate_too_low"),
        (0.30, STUCK[:2], 1e-6, "underfits"),  # two epochs show no trend
        (0.30, STUCK, 1e-2, "underfits"),  # at this rate every network moves
        (0.60, STUCK, 1e-6, "underfits"),  # it has moved
        (0.30, [1.5, 1.3, 1.2, 1.1, 1.0], 1e-6, "underfits"),
    ],
)
def test_a_rate_is_too_low_when_the_network_has_not_left_its_start(
    train: float, losses: list[float], lr: float, verdict: str
) -> None:
    assert verdict_on(train, train, train_losses=losses, lr=lr).verdict == verdict


def test_a_network_that_is_right_and_not_sure_underfits() -> None:
    assert verdict_on(0.8, 0.8, train_losses=[1.4, 1.3, 1.2, 1.1, 1.0]).verdict == "underfits"
    assert verdict_on(0.8, 0.8, train_losses=[1.4, 1.3, 1.2, 1.1, 0.8]).verdict == "is fine"


def test_few_images_per_class_are_named_as_the_reason() -> None:
    assert verdict_on(1.0, 0.5, train_counts=[5, 5, 6, 5]).verdict == "too_few_images"
    assert verdict_on(0.5, 0.4, train_losses=[1.4, 1.2, 1.0], train_counts=[5] * 4).verdict == "too_few_images"
    assert verdict_on(1.0, 0.95, train_counts=[5, 5, 6, 5]).verdict == "is fine"  # they were enough


@pytest.mark.parametrize(
    ("train", "val", "images", "verdict"),
    [
        (0.80, 0.95, 100, "validation_easier"),
        (0.80, 0.90, 20, "is fine"),  # 1.4 standard errors
        (0.95, 0.98, 1000, "is fine"),  # significant, and too little to matter
    ],
)
def test_validation_is_suspected_only_when_clearly_easier(train: float, val: float, images: int, verdict: str) -> None:
    assert verdict_on(train, val, images=images).verdict == verdict


def test_a_training_loss_above_the_validation_loss_is_no_suspicion() -> None:
    """Augmentation, mixup and label smoothing do that in a healthy run."""
    diagnosis = verdict_on(0.97, 0.96, train_losses=[1.4, 1.2, 1.1, 1.0, 1.0], val_losses=[1.0, 0.5, 0.3, 0.2, 0.2])

    assert diagnosis.verdict == "is fine"


def test_a_rare_class_that_is_never_predicted_has_collapsed() -> None:
    told = [[50, 0, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0], [4, 3, 3, 0]]

    diagnosis = verdict_on(train_counts=[100, 100, 100, 4], val_confusion=told)

    assert diagnosis.verdict == "class_collapse"
    assert "1 of 4 classes" in diagnosis.sentence
    assert "d (4 training images)" in diagnosis.sentence
    assert "0 predictions for 10 validation images" in diagnosis.sentence
    assert "class_weights" in diagnosis.advice


def test_a_class_with_four_validation_images_may_be_missed_by_chance() -> None:
    told = [[50, 0, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0], [2, 1, 1, 0]]

    assert verdict_on(train_counts=[100, 100, 100, 4], val_confusion=told).verdict == "is fine"


def test_classes_lost_by_a_network_that_learned_little_are_a_symptom() -> None:
    all_as_a = [[50, 0, 0, 0]] * 4

    diagnosis = verdict_on(train_losses=[1.5, 1.4, 1.3, 1.2, 1.1], train_confusion=all_as_a, val_confusion=all_as_a)

    assert [finding.code for finding in diagnosis.findings] == ["underfits", "class_collapse"]
    assert "3 of 4 classes" in diagnosis.findings[1].sentence


def test_without_validation_images_only_the_training_loss_is_judged() -> None:
    diagnosis = verdict_on(0.3, None, train_losses=[30.0, 4.0, 1.5, 1.4, 1.4])

    assert [finding.code for finding in diagnosis.findings] == ["cannot be judged", "learning_rate_too_high"]
    assert diagnosis.gap is None
    assert diagnosis.val_loss_best is None


def test_the_sentence_holds_the_numbers_it_rests_on() -> None:
    diagnosis = verdict_on(0.99, 0.70)

    assert "0.990" in diagnosis.sentence
    assert "0.700" in diagnosis.sentence
    assert "chance 0.250" in diagnosis.sentence
    assert "augmentation" in diagnosis.advice


def test_a_small_validation_set_is_said_beside_the_verdict() -> None:
    diagnosis = verdict_on(0.95, val_confusion=confusion(0.8, 5))

    assert diagnosis.verdict == "is fine"
    assert [finding.code for finding in diagnosis.findings] == ["is fine", "few_validation_images"]
    assert "20 images" in diagnosis.findings[1].sentence


def test_the_document_is_plain_data() -> None:
    document = verdict_on(0.99, 0.70).to_dict()

    assert document["findings"][0]["code"] == document["verdict"] == "overfits"
    assert document["epochs"] == 5
