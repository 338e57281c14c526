import pytest

from evalcam_cli.data.other_kinds import what_instead
from tests.zoo.other_files import specimens


@pytest.mark.parametrize("specimen", [one for one in specimens() if one.words], ids=lambda one: one.name)
def test_a_file_of_another_kind_is_called_what_it_is(specimen: object) -> None:
    content = vars(specimen)["content"]()

    assert all(word.lower() in what_instead(content[:4096]).lower() for word in vars(specimen)["words"])


@pytest.mark.parametrize("start", [b"an image? no", b"\xff", b"P7 4 4", b"<a href=x>", b"RIFF\0\0\0\0WAVE"])
def test_what_nobody_knows_is_called_nothing_else(start: bytes) -> None:
    assert what_instead(start).startswith(("not a JPEG", "damaged"))
