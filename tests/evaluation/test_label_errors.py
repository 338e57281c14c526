import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.evaluation.label_errors import likely_label_errors

# Six images of three classes, worked out by hand. Thresholds: class 0 (.9 + .7 + .2) / 3 = .6, class 1
# (.8 + .4) / 2 = .6, class 2 .5.
PROBABILITIES = np.array(
    [
        [0.9, 0.1, 0.0],  # 0, confidently 0
        [0.7, 0.2, 0.1],  # 0, confidently 0
        [0.2, 0.7, 0.1],  # 0, confidently 1
        [0.1, 0.8, 0.1],  # 1, confidently 1
        [0.5, 0.4, 0.1],  # 1, reaches no threshold
        [0.3, 0.2, 0.5],  # 2, confidently 2
    ]
)
TARGETS = np.array([0, 0, 0, 1, 1, 2])


def test_the_confident_joint_is_that_of_the_definition_worked_out_by_hand() -> None:
    review = likely_label_errors(PROBABILITIES, TARGETS)

    np.testing.assert_allclose(review.thresholds, [0.6, 0.6, 0.5])
    np.testing.assert_array_equal(review.confident_joint, [[2, 1, 0], [0, 1, 0], [0, 0, 1]])
    (error,) = review.errors
    assert (error.index, error.given, error.suggested) == (2, 0, 1)
    assert error.self_confidence == pytest.approx(0.2)
    assert error.margin == pytest.approx(-0.5)


def planted(
    count: int = 2000, classes: int = 5, share: float = 0.1, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], set[int]]:
    """Probabilities that know the true class well, and labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    logits = rng.normal(size=(count, classes)) + 4.0 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = rng.permutation(count)[: int(share * count)]
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, classes, size=len(wrong))) % classes
    return probabilities, labels, truth, set(wrong.tolist())


def test_planted_errors_are_found_first_and_their_true_class_is_suggested() -> None:
    probabilities, labels, truth, wrong = planted()

    errors = likely_label_errors(probabilities, labels).errors

    first = [error.index for error in errors[:100]]
    assert set(first) <= wrong
    assert len(wrong & {error.index for error in errors}) >= 0.75 * len(wrong)
    assert all(error.suggested == truth[error.index] for error in errors[:100])


def test_equals_a_loop_over_the_definition() -> None:
    probabilities, labels, _, _ = planted(count=300, classes=4, seed=3)
    thresholds = [
        np.mean([p[k] for p, label in zip(probabilities, labels, strict=True) if label == k]) for k in range(4)
    ]
    expected = np.zeros((4, 4), dtype=int)
    for p, label in zip(probabilities, labels, strict=True):
        confident = [k for k in range(4) if p[k] >= thresholds[k]]
        if confident:
            expected[label, max(confident, key=lambda k: p[k])] += 1

    review = likely_label_errors(probabilities, labels)

    np.testing.assert_array_equal(review.confident_joint, expected)
    assert len(review.errors) == expected.sum() - np.trace(expected)


def test_the_records_are_ranked_by_margin() -> None:
    probabilities, labels, _, _ = planted()

    margins = [error.margin for error in likely_label_errors(probabilities, labels).errors]

    assert margins == sorted(margins)


def test_a_class_without_images_has_no_threshold_and_is_never_suggested() -> None:
    probabilities = np.array([[0.1, 0.1, 0.8], [0.2, 0.1, 0.7], [0.1, 0.7, 0.2]])

    review = likely_label_errors(probabilities, np.array([0, 0, 1]))

    assert np.isnan(review.thresholds[2])
    assert all(error.suggested != 2 for error in review.errors)


def test_a_tie_with_the_given_label_is_no_error() -> None:
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5]])

    assert likely_label_errors(probabilities, np.array([0, 1])).errors == ()


def test_no_images_no_errors() -> None:
    review = likely_label_errors(np.empty((0, 3)), np.empty(0, dtype=int))

    assert review.errors == ()


def test_blocks_of_any_size_give_what_the_whole_array_gives() -> None:
    probabilities, labels, _, _ = planted(count=9000)

    def blocks() -> Iterator[NDArray[np.float64]]:
        yield from np.array_split(probabilities, 7)

    from_blocks, whole = likely_label_errors(blocks, labels), likely_label_errors(probabilities, labels)

    assert from_blocks.errors == whole.errors
    np.testing.assert_array_equal(from_blocks.confident_joint, whole.confident_joint)


def test_a_large_matrix_is_not_copied() -> None:
    probabilities = np.full((20_000, 200), 1 / 200, dtype=np.float32)  # 16 MB
    labels = np.arange(20_000) % 200

    tracemalloc.start()
    likely_label_errors(probabilities, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 14e6


@pytest.mark.parametrize(
    ("probabilities", "targets"),
    [
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [-1]),
        ([[0.5, 0.5]], [0, 1]),
        ([[0.5, 0.5], [0.5, 0.5]], [0]),
        ([[np.nan, 0.5]], [0]),
        ([[1.1, 0.0]], [0]),
        ([0.5, 0.5], [0, 1]),
    ],
)
def test_what_makes_no_sense_is_refused(probabilities: list[list[float]], targets: list[int]) -> None:
    with pytest.raises(ValueError, match=r"targets|rows|hold values"):
        likely_label_errors(np.array(probabilities), np.array(targets))
