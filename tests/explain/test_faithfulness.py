import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from evalcam_cli.explain.deletion import delete_and_insert
from evalcam_cli.explain.faithfulness import (
    CONSTANT,
    METRICS,
    NOT_FINITE,
    NOTHING_POSITIVE,
    Beside,
    Faithfulness,
    Scoring,
    drop_and_increase,
    random_maps,
    score_maps,
)
from evalcam_cli.explain.faithfulness_summary import Summary, mean_estimate, summarise
from evalcam_cli.explain.perturbing import blur, rank_pixels


class Sum(nn.Module):
    """The probability of class 0 is the sum of the first channel."""

    def forward(self, images: Tensor) -> Tensor:
        share = images[:, 0].sum(dim=(1, 2)).clamp(0, 1)
        return torch.stack([share, 1 - share], dim=1).log()


IMAGE = torch.tensor([[0.4, 0.3], [0.2, 0.1]]).expand(1, 3, 2, 2)
CLASS_0 = torch.tensor([0])
RIGHT = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in layers[-1].parameters():
            parameter.mul_(10)
        layers.train()(torch.randn(32, 3, 32, 32))
    return layers.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def maps() -> Tensor:
    return torch.randn(3, 7, 7, generator=torch.Generator().manual_seed(2))


CLASSES = torch.tensor([0, 3, 1])
KEYS = ("a.png", "b.png", "c.png")


def test_areas_worked_out_by_hand() -> None:
    curves = delete_and_insert(
        Sum(), IMAGE, CLASS_0, RIGHT, steps=4, deletion_baseline="zero", insertion_baseline="zero"
    )

    np.testing.assert_allclose(curves.fractions, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curves.deletion, [[1, 0.6, 0.3, 0.1, 0]], atol=1e-7)
    np.testing.assert_allclose(curves.insertion, [[0, 0.4, 0.7, 0.9, 1]], atol=1e-7)
    np.testing.assert_allclose(curves.deletion_auc, 0.375, atol=1e-7)
    np.testing.assert_allclose(curves.insertion_auc, 0.625, atol=1e-7)


def test_deleting_by_a_map_is_inserting_by_its_opposite_backwards(network: nn.Module, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    untied = torch.stack([torch.randperm(32 * 32, generator=generator) for _ in KEYS]).view(3, 32, 32).float()

    ours = delete_and_insert(network, images, CLASSES, untied, insertion_baseline="zero", steps=16)
    opposite = delete_and_insert(network, images, CLASSES, -untied, insertion_baseline="zero", steps=16)

    np.testing.assert_allclose(ours.deletion, opposite.insertion[:, ::-1], atol=1e-6)


def test_insertion_ends_with_the_image_and_begins_with_its_blur(
    network: nn.Module, images: Tensor, maps: Tensor
) -> None:
    curves = delete_and_insert(network, images, CLASSES, maps)

    ends = network(torch.cat([blur(images, sigma=5 * 32 / 224), images])).softmax(1).detach()
    expected = ends.gather(1, CLASSES.repeat(2)[:, None])[:, 0].view(2, 3)
    np.testing.assert_allclose(curves.insertion[:, [0, -1]].T, expected, atol=1e-6)


def test_the_last_step_takes_what_is_left() -> None:
    curves = delete_and_insert(Sum(), IMAGE, CLASS_0, RIGHT, steps=3)

    np.testing.assert_allclose(curves.fractions, [0, 0.5, 1])


def test_equal_pixels_are_ordered_as_they_are_read() -> None:
    ranks = rank_pixels(torch.tensor([[[1.0, 2.0, 1.0], [2.0, 1.0, 3.0]]]), (2, 3))

    assert ranks.tolist() == [[3, 1, 4, 2, 5, 0]]


def test_a_blur_keeps_a_plain_image_and_spreads_a_point() -> None:
    plain = torch.full((1, 3, 9, 9), 0.7)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1

    torch.testing.assert_close(blur(plain, sigma=2.0), plain)
    spread = blur(point, sigma=2.0)[0, 0].sum(0)
    assert float((spread * (torch.arange(41) - 20) ** 2).sum()) == pytest.approx(4, rel=0.03)  # the variance


def test_a_map_that_keeps_one_pixel_drops_what_the_others_gave() -> None:
    drop, increase = drop_and_increase(Sum(), IMAGE, CLASS_0, torch.tensor([[[5.0, 0.0], [0.0, -9.0]]]))

    assert drop == pytest.approx(0.6)
    assert increase == 0


def test_more_probability_than_before_is_an_increase_and_no_drop() -> None:
    harmful = torch.tensor([[0.6, -0.5], [0.3, 0.0]]).expand(1, 3, 2, 2)

    drop, increase = drop_and_increase(Sum(), harmful, CLASS_0, torch.tensor([[[1.0, 0.0], [1.0, 0.5]]]))

    assert (float(drop[0]), float(increase[0])) == (0, 1)


def test_the_size_of_a_batch_changes_nothing(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    one, many = (
        score_maps(network, images, CLASSES, maps, keys=KEYS, scoring=Scoring(steps=5, batch_size=size))
        for size in (1, 64)
    )

    for first, second in zip(one, many, strict=True):
        for name in METRICS:
            assert first.scores[name].score == pytest.approx(second.scores[name].score, abs=1e-6)
            assert first.scores[name].random == pytest.approx(second.scores[name].random, abs=1e-6)


def test_an_image_has_the_same_scores_alone_and_among_others(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    scoring = Scoring(steps=5, percentiles=(30, 60))

    together = score_maps(network, images, CLASSES, maps, keys=KEYS, scoring=scoring)
    (alone,) = score_maps(network, images[1:2], CLASSES[1:2], maps[1:2], keys=KEYS[1:2], scoring=scoring)

    for name in METRICS:
        assert alone.scores[name].score == pytest.approx(together[1].scores[name].score, abs=1e-6)
        assert alone.scores[name].random == pytest.approx(together[1].scores[name].random, abs=1e-6)


def test_a_random_map_has_the_same_values_in_an_order_of_its_own(maps: Tensor) -> None:
    drawn = random_maps(maps, KEYS, seed=0)

    torch.testing.assert_close(drawn.flatten(1).sort().values, maps.flatten(1).sort().values)
    assert not torch.equal(drawn, maps)
    torch.testing.assert_close(random_maps(maps[2:], KEYS[2:], seed=0), drawn[2:])
    assert not torch.equal(random_maps(maps, KEYS, seed=1), drawn)
    assert not torch.equal(random_maps(maps, ("x", *KEYS[1:]), seed=0)[0], drawn[0])


def test_a_right_map_beats_the_random_one() -> None:
    side = torch.zeros(1, 3, 8, 8)
    side[..., :2] = 1 / 16
    right = torch.zeros(1, 8, 8)
    right[..., :2] = 1
    right += torch.linspace(0, 0.1, 64).view(1, 8, 8)

    (record,) = score_maps(Sum(), side, CLASS_0, right, keys=["side"], scoring=Scoring(insertion_baseline="zero"))

    assert record.probability == pytest.approx(1)
    for name in ("deletion", "insertion", "road", "average_drop"):
        gain = record.scores[name].score - record.scores[name].random
        assert gain > 0.1 if METRICS[name].higher_is_better else gain < -0.1, name


def test_what_ranks_nothing_has_no_scores_but_a_reason(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    strange = maps.clone()
    strange[0], strange[1, 0, 0], strange[2] = 1.0, math.nan, -maps[2].abs() - 1

    constant, broken, against = score_maps(network, images, CLASSES, strange, keys=KEYS, scoring=Scoring(steps=4))

    assert {each.undefined_reason for each in constant.scores.values()} == {CONSTANT}
    assert {each.undefined_reason for each in broken.scores.values()} == {NOT_FINITE}
    assert against.scores["average_drop"].undefined_reason == NOTHING_POSITIVE
    assert against.scores["deletion"].undefined_reason is None
    assert constant.document()["deletion"] is None
    assert constant.document()["undefined_reason"] == CONSTANT
    assert against.document()["road_random"] is not None


def test_fewer_keys_than_images_are_refused(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    with pytest.raises(ValueError, match="3 maps, 2 keys"):
        score_maps(network, images, CLASSES, maps, keys=KEYS[:2])


def test_the_model_is_as_before(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    score_maps(network, images, CLASSES, maps, keys=KEYS, scoring=Scoring(steps=2, percentiles=(50,)))

    assert network.training
    network.eval()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_areas_and_drops_equal_torchcam(network: nn.Module, images: Tensor) -> None:
    methods = pytest.importorskip("torchcam.methods")
    metrics = pytest.importorskip("torchcam.metrics")
    softmax = partial(torch.softmax, dim=-1)

    for index in range(len(images)):
        image, given = images[index : index + 1], CLASSES[index : index + 1]
        with methods.GradCAM(network, target_layer="3") as extractor:
            curves = metrics.DeletionInsertionMetric(extractor, softmax, steps=20)
            curves.update(image, int(given))
            drops = metrics.ClassificationMetric(extractor, softmax)
            drops.update(image, int(given))
            (found,) = extractor(int(given), softmax(network(image)))  # torchcam explains what it scores
        theirs = {**curves.summary(), **drops.summary()}
        ours = delete_and_insert(network, image, given, found.detach(), insertion_baseline="zero")
        drop, increase = drop_and_increase(network, image, given, found.detach())

        assert ours.deletion_auc[0] == pytest.approx(theirs["deletion_auc"], abs=1e-5)
        assert ours.insertion_auc[0] == pytest.approx(theirs["insertion_auc"], abs=1e-5)
        assert drop[0] == pytest.approx(theirs["avg_drop"], abs=1e-5)
        assert increase[0] == theirs["conf_increase"]


def record(key: str, score: float, random: float) -> Faithfulness:
    beside = Beside(score, random, None if math.isfinite(score) else CONSTANT)
    return Faithfulness(key, 0, 0.9, dict.fromkeys(METRICS, beside))


def test_a_mean_has_students_interval_and_ties_are_half_a_win() -> None:
    pairs = [(0.2, 0.5), (0.3, 0.4), (0.1, 0.5), (0.4, 0.4), (math.nan, math.nan)]

    found = summarise([record(str(number), *pair) for number, pair in enumerate(pairs)])["deletion"]

    expected = scipy.stats.ttest_1samp([-0.3, -0.1, -0.4, 0.0], 0).confidence_interval(0.95)
    assert found.difference.estimate == pytest.approx(-0.2)
    assert (found.difference.ci_low, found.difference.ci_high) == pytest.approx((expected.low, expected.high))
    assert found.score.n == 4
    assert found.beats_random.estimate == pytest.approx(3.5 / 4)


def test_what_is_better_depends_on_the_metric() -> None:
    found = summarise([record(str(number), 0.1 + number / 1000, 0.5) for number in range(8)])

    assert found["deletion"].verdict == "better than random"
    assert found["insertion"].verdict == "worse than random"
    assert found["deletion"].beats_random.estimate == 1
    assert found["insertion"].beats_random.estimate == 0


def test_one_image_or_none_is_undecided() -> None:
    one = summarise([record("a", 0.1, 0.5)])["road"]
    none = summarise([record("a", math.nan, math.nan)])["road"]

    assert (one.verdict, one.difference.ci_note) == ("undecided", "needs at least 2 images")
    assert none.score.estimate is None
    assert none.score.undefined_reason == "defined in no image"
    assert none.beats_random.estimate is None


def test_equal_groups_have_the_interval_of_their_means() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.5, 0.9, 0.7])

    found = mean_estimate(values, np.array([0, 0, 1, 1, 2, 2]))

    expected = scipy.stats.ttest_1samp([0.2, 0.35, 0.8], values.mean()).confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high))


def test_noise_told_apart_by_nothing_is_seldom_called_better() -> None:
    generator = np.random.default_rng(0)

    found: list[Summary] = [
        summarise([record(str(number), *pair) for number, pair in enumerate(generator.normal(size=(12, 2)))])["road"]
        for _ in range(400)
    ]

    called = np.mean([each.verdict != "not told from random" for each in found])
    assert 0.02 < called < 0.09  # 5 % in the long run, standard error 1.1 %


def test_another_seed_is_another_random_map(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    scoring = Scoring(steps=4, percentiles=(50,))

    first = score_maps(network, images, CLASSES, maps, keys=KEYS, scoring=scoring)
    again = score_maps(network, images, CLASSES, maps, keys=KEYS, scoring=scoring)
    other = score_maps(network, images, CLASSES, maps, keys=KEYS, scoring=replace(scoring, seed=1))

    assert first == again
    assert first[0].scores["deletion"].score == other[0].scores["deletion"].score
    assert first[0].scores["deletion"].random != other[0].scores["deletion"].random
