"""Two networks that speak - one describes scenes, one answers questions - and whose maps go to what the words name.

They are those of docs/examples, trained there on other scenes (seed 9000) than those drawn here.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import UsageError
from evalcam_cli.explain.maps import Maps, layer_maps
from evalcam_cli.workflows.gradcam import GradCamRequest, explain
from evalcam_cli.workflows.own_code import count_outputs, count_scores, load_model, load_target

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def training() -> Iterator[Any]:
    """The module docs/examples/training.py, and through it the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLES), str(ROOT / "sample_data"), *sys.path])
        yield importlib.import_module("training")


@pytest.fixture(scope="module")
def pairs(training: Any) -> Any:
    """48 fresh pictures of two shapes: each ordered pair, twice in each arrangement."""
    return training.draw_pictures(7, pairs=48)


@pytest.fixture(scope="module")
def captioner(training: Any) -> Any:
    return training.captioning.captioner()


@pytest.fixture(scope="module")
def answerer(training: Any) -> Any:
    return training.answering.answerer()


def untrained(kind: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().eval()


def test_captions_name_what_is_there_and_their_maps_go_to_what_they_name(
    training: Any, captioner: Any, pairs: Any
) -> None:
    """Each picture is asked twice: for one of its shapes, then for the other, which is in the other half."""
    measured = training.measure_captions(captioner, pairs)

    assert measured["described rightly"] >= 0.95
    assert measured["mass in its half"] >= 0.85
    assert measured["peak in its half"] >= 0.85


def test_an_untrained_captioner_points_anywhere(training: Any, pairs: Any) -> None:
    measured = training.measure_captions(untrained(training.captioning.Captioner), pairs)

    assert measured["described rightly"] < 0.7
    assert measured["mass in its half"] < 0.65
    assert measured["peak in its half"] < 0.65


def test_within_one_caption_each_word_has_its_own_place(training: Any, captioner: Any, pairs: Any) -> None:
    """`a star and a circle`: the maps of the two nouns, in one pass."""
    captions = training.captioning.encode([training.captioning.caption_of(*labels) for labels in pairs.labels])

    result = layer_maps(captioner, [captioner.encoder.features], (pairs.images, captions), training.captioning.words)[
        "gradcam"
    ]

    assert result.maps.shape == (48, 6, 8, 8)
    for place, word in enumerate((1, 4)):
        mass, _ = training.in_own_half(result.maps[:, word], [sides[place] for sides in pairs.sides])
        assert mass >= 0.85


def test_answers_are_right_and_their_maps_go_to_what_the_question_or_the_answer_names(
    training: Any, answerer: Any, pairs: Any
) -> None:
    measured = training.measure_answers(answerer, pairs)

    # two shapes are always in opposite halves: where the one is can also be told from where the other is
    least = {"is there": 0.95, "what": 0.95, "where": 0.7}
    for kind, rate in least.items():
        assert measured[f"{kind}: answered rightly"] >= 0.95
        assert measured[f"{kind}: mass in its half"] >= rate
        assert measured[f"{kind}: peak in its half"] >= rate


def test_an_untrained_answerer_points_anywhere(training: Any, pairs: Any) -> None:
    measured = training.measure_answers(untrained(training.answering.Answerer), pairs)

    for kind in ("is there", "where", "what"):
        assert measured[f"{kind}: mass in its half"] < 0.65
        assert measured[f"{kind}: peak in its half"] < 0.65


def test_the_answerer_does_not_say_yes_to_everything(training: Any, answerer: Any, pairs: Any) -> None:
    absent = [next(shape for shape in training.answering.SHAPES if shape not in labels) for labels in pairs.labels]
    questions = training.answering.encode([f"is there a {shape} ?" for shape in absent])

    with torch.no_grad():
        said = answerer(pairs.images, questions).argmax(dim=1)

    assert (said == training.answering.ANSWERS.index("no")).double().mean() >= 0.9


@dataclass(frozen=True)
class Case:
    """One of the two networks, asked about 12 pictures in words of two lengths by turns."""

    model: Any
    images: Tensor
    words: Tensor
    target_of: Callable[[list[int]], Callable[[Tensor], Tensor]]
    """The target for the pictures with these indices."""

    def maps(self, indices: list[int], *, length: int | None = None) -> Maps:
        inputs = (self.images[indices], self.words[indices, :length])
        return layer_maps(self.model, [self.model.encoder.features], inputs, self.target_of(indices))["gradcam"]


@pytest.fixture(params=["captioning", "answering"])
def case(request: pytest.FixtureRequest, training: Any, captioner: Any, answerer: Any, pairs: Any) -> Case:
    few, captioning, answering = pairs.take(range(0, 48, 4)), training.captioning, training.answering
    if request.param == "captioning":
        named = [labels[: 1 + index % 2] for index, labels in enumerate(few.labels)]
        captions = captioning.encode([captioning.caption_of(*shapes) for shapes in named])
        return Case(captioner, few.images, captions, lambda indices: captioning.caption)
    asked = [
        (f"is there a {one} ?", "yes") if index % 2 else (f"what is beside the {one} ?", other)
        for index, (one, other) in enumerate(few.labels)
    ]
    answers = torch.tensor([answering.ANSWERS.index(answer) for _, answer in asked])
    questions = answering.encode([question for question, _ in asked])
    return Case(answerer, few.images, questions, lambda indices: answering.score_of(answers[indices]))


def test_maps_of_a_batch_equal_captums(case: Case) -> None:
    attribution = pytest.importorskip("captum.attr")
    everyone = list(range(12))

    maps = case.maps(everyone).maps[:, 0]

    target = case.target_of(everyone)
    peer = attribution.LayerGradCam(lambda *given: target(case.model(*given))[:, 0], case.model.encoder.features)
    expected = peer.attribute(case.images, additional_forward_args=case.words)[:, 0].detach()
    largest = expected.abs().amax(dim=(1, 2))
    assert ((maps - expected).abs().amax(dim=(1, 2)) <= 1e-6 * largest).all()


def test_a_map_sees_neither_the_other_images_nor_what_fills_up_the_words(case: Case) -> None:
    together = case.maps(list(range(12)))

    for place, length in enumerate((case.words[:2] != 0).sum(dim=1).tolist()):
        alone = case.maps([place], length=length)
        largest = float(together.maps[place].abs().max())
        torch.testing.assert_close(alone.maps[0], together.maps[place], rtol=0, atol=1e-5 * largest)
        torch.testing.assert_close(alone.scores[0], together.scores[place])


def test_the_captioner_is_a_factory_for_the_command_line(
    monkeypatch: pytest.MonkeyPatch, captioner: Any, training: Any, pairs: Any
) -> None:
    monkeypatch.setenv("CAPTION", "a circle and a triangle")
    file = EXAMPLES / "captioning.py"

    own = load_model(f"{file}:captioner")

    whole, words = load_target(f"{file}:caption"), load_target(f"{file}:words")
    assert [count_scores(own, target, 64, torch.device("cpu")) for target in (whole, words)] == [1, 6]
    captions = training.captioning.encode(["a circle and a triangle"] * 48)
    with torch.no_grad():
        torch.testing.assert_close(own.model(pairs.images), captioner(pairs.images, captions))


def test_the_answerer_is_a_factory_for_the_command_line(
    monkeypatch: pytest.MonkeyPatch, answerer: Any, training: Any, pairs: Any
) -> None:
    monkeypatch.setenv("QUESTION", "where is the square ?")
    file = EXAMPLES / "answering.py"

    own = load_model(f"{file}:answerer")

    assert count_outputs(own, 64, torch.device("cpu")) == len(training.answering.ANSWERS)
    assert count_scores(own, load_target(f"{file}:yes"), 64, torch.device("cpu")) == 1
    questions = training.answering.encode(["where is the square ?"] * 48)
    with torch.no_grad():
        torch.testing.assert_close(own.model(pairs.images), answerer(pairs.images, questions))


@pytest.mark.parametrize(
    ("name", "variable"), [("captioning:captioner", "CAPTION"), ("answering:answerer", "QUESTION")]
)
def test_words_that_a_network_does_not_know_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    module, _, factory = name.partition(":")
    monkeypatch.setenv(variable, "a cat")

    with pytest.raises(UsageError, match=f"ValueError: {variable}='a cat': the network knows the words"):
        load_model(f"{EXAMPLES / module}.py:{factory}")


def test_the_file_of_answers_has_the_answers_in_order(training: Any) -> None:
    lines = (EXAMPLES / "answers.txt").read_text(encoding="utf-8").splitlines()

    assert tuple(lines) == training.answering.ANSWERS


@pytest.mark.parametrize("name", ["captioning", "answering"])
def test_the_weights_are_small(name: str) -> None:
    assert (EXAMPLES / f"{name}.safetensors").stat().st_size < 300_000


def test_the_command_draws_a_map_for_every_word(monkeypatch: pytest.MonkeyPatch, training: Any, tmp_path: Path) -> None:
    """From a picture on disk to `explanations.csv`, at the place of the words on the original picture."""
    monkeypatch.setenv("CAPTION", "a star and a square")
    scenes = training.make_scenes
    scene = scenes.draw_pair(7, scenes.ORDERED_PAIRS.index(("star", "square")), training.AREA)
    Image.fromarray(scene.pixels).save(tmp_path / "pair.png")
    file = EXAMPLES / "captioning.py"
    settings = ["data.image_size=64", "data.resize=squash", "gradcam.layer=encoder.features", "device=cpu"]

    result = explain(
        load_config(assignments=settings),
        GradCamRequest(tmp_path / "out", (tmp_path / "pair.png",), model=f"{file}:captioner", target=f"{file}:words"),
    )

    assert [row.class_name for row in result.rows] == [f"target {place}" for place in range(6)]
    assert all(row.predicted == "" for row in result.rows)
    star, square = result.rows[1], result.rows[4]
    for row, box in zip((star, square), scene.boxes, strict=True):
        assert row.peak_x is not None
        assert row.peak_y is not None
        assert box.x0 <= row.peak_x < box.x1
        assert box.y0 <= row.peak_y < box.y1
