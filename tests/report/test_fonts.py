import shutil
from pathlib import Path

import matplotlib
import pytest

from evalcam_cli.report import fonts
from evalcam_cli.report.fonts import display_names, font_file

HANGUL = ["정상", "glioma", "[뇌종양]"]
DEJAVU = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only font folder of this machine."""
    monkeypatch.setattr(fonts, "_font_folders", lambda: (tmp_path / "absent", tmp_path))
    return tmp_path


@pytest.fixture
def hangul_fonts(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the font files that are taken to have every character."""
    capable: set[str] = set()
    real = fonts._characters

    def characters(path: str | None) -> frozenset[str]:
        return frozenset("".join(HANGUL)) if path and Path(path).name in capable else real(path)

    monkeypatch.setattr(fonts, "_characters", characters)
    return capable


def install(folder: Path, name: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(DEJAVU, path)
    return str(path)


def test_names_of_the_usual_scripts_need_no_other_font(folder: Path) -> None:
    names = ["cat", "Größe", "кошка", "γάτα", "'quoted' [name]", ""]

    assert display_names(names) == (names, None, "")
    assert font_file(names) == str(DEJAVU)


def test_hangul_is_drawn_with_a_font_of_the_machine(folder: Path, hangul_fonts: set[str]) -> None:
    install(folder, "other.ttf")
    nanum = install(folder, "truetype/nanum/NanumGothic.ttf")
    hangul_fonts.update({"other.ttf", "NanumGothic.ttf"})

    assert display_names(HANGUL) == (HANGUL, nanum, "")
    assert font_file(HANGUL) == nanum


def test_the_regular_cut_of_the_best_family_comes_first(folder: Path, hangul_fonts: set[str]) -> None:
    hangul_fonts.update({"NanumGothic.ttf", "Noto Sans CJK Bold.ttc", "NotoSansCJK-Regular.ttc"})
    for name in hangul_fonts:
        install(folder, name)

    assert display_names(HANGUL)[1] == str(folder / "NotoSansCJK-Regular.ttc")


def test_a_font_without_one_of_the_characters_is_passed_over(folder: Path, hangul_fonts: set[str]) -> None:
    install(folder, "NotoSansCJKkr-Regular.otf")
    nanum = install(folder, "NanumGothic.ttf")
    hangul_fonts.add("NanumGothic.ttf")

    assert display_names(HANGUL)[1] == nanum


def test_a_damaged_font_is_passed_over(folder: Path) -> None:
    (folder / "NanumGothic.ttf").write_bytes(b"no font")
    (folder / "NotoSansKR.otf").write_bytes(b"")

    assert display_names(["정상"])[1] is None


def test_names_that_no_font_can_draw_are_numbered_with_a_legend(folder: Path) -> None:
    labels, font, legend = display_names(HANGUL)

    assert labels == ["#0", "glioma", "#2"]
    assert font is None
    assert legend == r"#0 = \uc815\uc0c1, #2 = [\ub1cc\uc885\uc591]"
    assert legend.isascii()
    assert font_file(HANGUL) == str(DEJAVU)


def test_control_characters_are_made_visible(folder: Path) -> None:
    assert display_names(["a\nb\x1b[31m\u202e"])[0] == [r"a\nb\x1b[31m\u202e"]


def test_letters_in_parts_are_composed(folder: Path) -> None:
    assert display_names(["e\u0301"])[0] == ["é"]


def test_a_user_without_a_home_has_fonts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)

    assert Path("/usr/share/fonts") in fonts._font_folders()
