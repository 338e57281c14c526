"""Changes of training images: held against torchvision's functions, and a function of their key alone."""

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from evalcam_cli.config import AugmentConfig
from evalcam_cli.data import augmentation as augmentation_module
from evalcam_cli.data.augmentation import (
    OPERATIONS,
    Augmentation,
    brightened,
    contrasted,
    keyed_generator,
    saturated,
)

FILL = (124, 116, 104)
SIDE = 48
NOTHING = {"hflip": 0, "rotate": 0, "translate": 0, "scale": 0, "brightness": 0, "contrast": 0}
MAGNITUDE_FREE = {"identity", "autocontrast", "equalize"}


def only(**keys: float) -> AugmentConfig:
    """A config that does nothing else."""
    return AugmentConfig(**{**NOTHING, **keys})  # type: ignore[arg-type]


def smooth(seed: int = 0) -> Tensor:
    """(3, S, S) uint8 in which neighbours are alike, as in photographs, with dark and bright ends."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 300 - 20
    fine = torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic", align_corners=False)
    return fine[0].clamp(0, 255).round().to(torch.uint8)


def changed(config: AugmentConfig, key: int, image: Tensor | None = None) -> Tensor:
    return Augmentation(config, FILL)(smooth() if image is None else image, keyed_generator(key))


def draws_of(key: int) -> list[float]:
    drawn: list[float] = torch.rand(14, generator=keyed_generator(key), dtype=torch.float64).tolist()
    return drawn


@pytest.mark.parametrize("key", range(8))
def test_movement_is_the_affine_map_of_torchvision_with_the_same_numbers(key: int) -> None:
    config = only(rotate=40, translate=0.2, scale=0.3)
    angle, right, down, grow = (2 * draw - 1 for draw in draws_of(key)[2:6])
    numbers = {
        "angle": angle * 40,
        "translate": [right * 0.2 * SIDE, down * 0.2 * SIDE],
        "scale": 1 + grow * 0.3,
        "shear": [0.0, 0.0],
        "interpolation": v2.InterpolationMode.BILINEAR,
    }

    moved = changed(config, key)

    image = smooth().float()
    expected = functional.affine(image, fill=[float(one) for one in FILL], **numbers)
    inside = functional.affine(torch.ones_like(image), fill=0, **numbers) > 0.9999
    outside = functional.affine(torch.ones_like(image), fill=0, **numbers) == 0
    assert (moved - expected)[inside].abs().max() <= 0.5 + 1e-2
    assert torch.equal(moved[outside], torch.tensor(FILL).view(3, 1, 1).expand_as(moved)[outside].to(torch.uint8))
    assert 0.3 < inside.float().mean() < 1


def test_a_shift_by_whole_pixels_is_exact() -> None:
    source = augmentation_module.Source(c=2 * 3 / 16, f=-2 * 5 / 16)  # output (x, y) shows input (x + 3, y - 5)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255

    moved = augmentation_module.warped(image.clone(), source, FILL)

    torch.testing.assert_close(moved[:, 5:, :-3], image[:, :-5, 3:], atol=1e-3, rtol=0)
    assert (moved[:, :5].flatten(1) == torch.tensor(FILL).view(3, 1)).all()


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.93, 1.0, 1.2, 1.9])
def test_recolouring_is_torchvision_s_of_floats(factor: float) -> None:
    image = smooth(1).float()
    pairs = [
        (brightened, functional.adjust_brightness),
        (contrasted, functional.adjust_contrast),
        (saturated, functional.adjust_saturation),
    ]

    for ours, theirs in pairs:
        torch.testing.assert_close(ours(image.clone(), factor), theirs(image / 255, factor) * 255, atol=2e-3, rtol=0)


@pytest.mark.parametrize("key", range(6))
def test_all_recolouring_is_rounded_once(key: int) -> None:
    config = only(brightness=0.4, contrast=0.4, saturation=0.3)
    light, contrast, colour, _ = (2 * draw - 1 for draw in draws_of(key)[6:10])

    ours = changed(config, key)

    theirs = functional.adjust_brightness(smooth() / 255, 1 + 0.4 * light)
    theirs = functional.adjust_contrast(theirs, 1 + 0.4 * contrast)
    theirs = functional.adjust_saturation(theirs, 1 + 0.3 * colour)
    assert (ours - 255 * theirs).abs().max() <= 0.5 + 2e-3


@pytest.mark.parametrize("key", range(3))
def test_a_turn_of_the_colours_is_torchvision_s(key: int) -> None:
    turn = 2 * draws_of(key)[9] - 1

    ours = changed(only(hue=0.3), key)

    assert (ours.int() - functional.adjust_hue(smooth(), 0.3 * turn).int()).abs().max() <= 1


@pytest.mark.parametrize(("keys", "axis"), [({"hflip": 1.0}, -1), ({"vflip": 1.0}, -2)])
def test_mirror_images_are_exact(keys: dict[str, float], axis: int) -> None:
    assert torch.equal(changed(only(**keys), 1), smooth().flip(axis))


def test_half_of_the_images_are_mirrored_when_asked() -> None:
    mirrored = sum(torch.equal(changed(only(hflip=0.5), key), smooth().flip(-1)) for key in range(400))

    assert abs(mirrored - 200) < 4 * 10  # four standard deviations


def test_angles_are_spread_evenly_between_the_limits() -> None:
    image = torch.zeros(3, 65, 65, dtype=torch.uint8)
    image[:, 32, 52:60] = 255  # a dash to the right of the middle
    angles = []
    for key in range(200):
        y, x = torch.nonzero(changed(only(rotate=20), key, image)[0] > 60).double().mean(dim=0) - 32
        angles.append(float(torch.rad2deg(torch.atan2(y, x))))

    assert -20.5 < min(angles) < -17
    assert 17 < max(angles) < 20.5
    assert abs(sum(angles) / 200) < 4 * (20 / 3**0.5) / 200**0.5


def test_erasing_fills_a_square_of_2_to_20_percent() -> None:
    for key in range(20):
        erased = changed(only(erase=1.0), key, torch.full((3, SIDE, SIDE), 7, dtype=torch.uint8))

        gone = (erased[0] == FILL[0]).float().mean()
        assert 0.02 * 0.8 < gone < 0.2 * 1.2
        assert set(erased[1].flatten().tolist()) == {7, FILL[1]}


def test_nothing_asked_is_nothing_done() -> None:
    assert torch.equal(changed(only(), 3), smooth())


def test_the_image_given_is_left_as_it_is() -> None:
    everything = AugmentConfig(vflip=0.5, saturation=0.2, hue=0.1, erase=0.5, randaugment=4, randaugment_magnitude=8)
    image = smooth()

    for key in range(20):
        changed(everything, key, image)

    assert torch.equal(image, smooth())


def test_the_same_key_gives_the_same_image_whatever_the_layout_and_the_threads() -> None:
    everything = AugmentConfig(vflip=0.5, saturation=0.2, hue=0.1, erase=0.5, randaugment=3)
    image = torch.nn.functional.interpolate(smooth()[None], 192)[0]  # large enough for torch to divide the work
    layouts = [image, image.permute(1, 2, 0).contiguous().permute(2, 0, 1)]
    before = torch.get_num_threads()

    try:
        for key in range(6):
            found = []
            for layout, threads in itertools.product(layouts, (1, 3)):
                torch.set_num_threads(threads)
                found.append(changed(everything, key, layout))
            assert all(torch.equal(found[0], one) for one in found[1:])
    finally:
        torch.set_num_threads(before)


def test_randaugment_leaves_the_draws_of_the_other_changes_alone() -> None:
    config = AugmentConfig(vflip=0.5, saturation=0.2, erase=0.5)
    with_identity = config.model_copy(update={"randaugment": 2, "randaugment_magnitude": 0.0})
    unchanged = 0

    for key in range(60):
        plain, more = changed(config, key), changed(with_identity, key)
        unchanged += torch.equal(plain, more)

    # at magnitude 0 only autocontrast and equalize do anything: 12 of 14 operations, twice, leave the image alone
    assert abs(unchanged / 60 - (12 / 14) ** 2) < 4 * 0.06


def test_two_images_meet_independent_operations() -> None:
    config = only(randaugment=1, randaugment_magnitude=9.0)

    assert len({changed(config, key).numpy().tobytes() for key in range(40)}) > 15


def test_every_operation_is_drawn_equally_often_with_either_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[tuple[str, float]] = Counter()

    def note(name: str) -> augmentation_module.Operation:
        def count(image: Tensor, strength: float, _: tuple[int, int, int]) -> Tensor:
            drawn[name, strength] += 1
            return image

        return count

    monkeypatch.setattr(augmentation_module, "OPERATIONS", {name: note(name) for name in OPERATIONS})
    for key in range(700):
        changed(only(randaugment=4, randaugment_magnitude=7.0), key)

    assert sum(drawn.values()) == 2800
    assert set(drawn) == {(name, sign * 0.7) for name in OPERATIONS for sign in (1, -1)}
    assert max(abs(count - 100) for count in drawn.values()) < 4.5 * 10


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_at_magnitude_0_only_operations_without_one_do_anything(name: str) -> None:
    image = smooth() // 2 + 30  # contrast to spare

    found = OPERATIONS[name](image, 0.0, FILL)

    assert torch.equal(found, image) == (name not in {"autocontrast", "equalize"})
    assert torch.equal(found, OPERATIONS[name](image, 1.0, FILL)) == (name in MAGNITUDE_FREE)


@pytest.mark.parametrize("strength", [1.0, -1.0, 0.4])
def test_operations_are_torchvision_s_at_the_strengths_of_the_paper(strength: float) -> None:
    image = smooth(2)
    degrees, factor, far = 30 * strength, 1 + 0.9 * strength, -150 / 331 * SIDE * strength
    shear = float(torch.rad2deg(torch.atan(torch.tensor(0.3 * strength))))

    def affine(**keys: float | list[float]) -> Tensor:
        numbers = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0], **keys}
        moved: Tensor = functional.affine(
            image, fill=list(map(float, FILL)), interpolation=v2.InterpolationMode.BILINEAR, **numbers
        )
        return moved

    expected = {
        "identity": image,
        "autocontrast": functional.autocontrast(image),
        "equalize": functional.equalize(image),
        "rotate": affine(angle=degrees),
        "solarize": functional.solarize(image, min(255.0, 256 * (1 - abs(strength)))),
        "color": functional.adjust_saturation(image, factor),
        "posterize": functional.posterize(image, 8 - round(4 * abs(strength))),
        "contrast": functional.adjust_contrast(image, factor),
        "brightness": functional.adjust_brightness(image, factor),
        "sharpness": functional.adjust_sharpness(image, factor),
        "translate_x": affine(translate=[far, 0.0]),
        "translate_y": affine(translate=[0.0, far]),
        "shear_x": affine(shear=[shear, 0.0]),
        "shear_y": affine(shear=[0.0, shear]),
    }

    assert set(expected) == set(OPERATIONS)
    for name, wanted in expected.items():
        difference = (OPERATIONS[name](image, strength, FILL).int() - wanted.int()).abs().flatten()
        warps = name == "rotate" or name.startswith(("shear", "translate"))
        rim = 0.07 if warps else 0.0  # where torchvision mixes the fill colour in twice
        assert difference.double().quantile(1 - rim) <= 2, name


def test_no_operations_without_randaugment() -> None:
    config = AugmentConfig(randaugment=0, randaugment_magnitude=10.0)

    assert all(torch.equal(changed(config, key), changed(AugmentConfig(), key)) for key in range(20))
