import csv
import json
import logging
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from evalcam_cli.config_sources import load_config
from evalcam_cli.data.near_duplicates import PAIR_COLUMNS
from evalcam_cli.errors import DataError, MachineError, UsageError
from evalcam_cli.workflows.audit import Audit, AuditRequest, audit
from tests.cli.commands import run_command
from tests.data.pictures import picture, save


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve pictures of two classes, one of them mirrored under the other label, in a set or fold of its own."""
    root = tmp_path / "data"
    for number in range(12):
        save(picture(number), root / "ab"[number % 2] / f"{number}.jpg", quality=90)
    with Image.open(root / "a/2.jpg") as image:
        save(ImageOps.mirror(image), root / "b/flipped.jpg", quality=60)
    return root


def split_of(data: Path, rows: dict[str, str], name: str = "split.csv") -> Path:
    """`rows`: set or fold by path; all others are train or fold 0."""
    path = data.parent / name
    folds = any(value.isdigit() for value in rows.values())
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["path", "label", "set", "group", "fold"])
        names = sorted({*(p.relative_to(data).as_posix() for p in data.rglob("*.jpg")), *rows})
        for image in names:
            part = rows.get(image, "0" if folds else "train")
            writer.writerow([image, image[0], *(("", "", part) if folds else (part, "", ""))])
    return path


def run(data: Path, split: Path, **options: bool) -> Audit:
    request = AuditRequest(split_file=split, out=data.parent / "out", data=data, **options)
    return audit(load_config(), request)


def test_the_findings_are_in_the_files(data: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))

    found = run(data, split_of(data, {"b/flipped.jpg": "test", "b/1.jpg": "test"}))

    with (data.parent / "out/near_duplicates.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert tuple(header) == PAIR_COLUMNS
    (row,) = rows
    assert row[:7] == ["b/flipped.jpg", "test", "b", "near-duplicate", "a/2.jpg", "train", "a"]
    assert row[9] == "flip"
    document = json.loads((data.parent / "out/audit.json").read_text(encoding="utf-8"))
    assert document == found.document
    assert (document["images"], document["compared"], document["leaking"]) == (13, 2, 1)
    assert document["two_labels"] == [{"path": "b/flipped.jpg", "label": "b", "other": "a/2.jpg", "other_label": "a"}]
    assert document["threshold"]["expected_false_pairs"] <= 0.1 + 1e-6
    with Image.open(data.parent / "out/contact_sheet.png") as sheet:
        assert sheet.width > 1000
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before


def test_folds_are_compared_with_each_other(data: Path) -> None:
    found = run(data, split_of(data, {"b/flipped.jpg": "1", "b/1.jpg": "1", "a/4.jpg": "2"}))

    assert {(pair.path, pair.set, pair.other_set) for pair in found.pairs} == {
        ("a/2.jpg", "fold 0", "fold 1"),
        ("b/flipped.jpg", "fold 1", "fold 0"),
    }


def test_the_same_split_gives_the_same_bytes(data: Path) -> None:
    split = split_of(data, {"b/flipped.jpg": "test", "b/1.jpg": "test"})
    names = ("near_duplicates.csv", "audit.json", "contact_sheet.png")
    run(data, split)
    first = [(data.parent / "out" / name).read_bytes() for name in names]

    run(data, split, overwrite=True)

    assert [(data.parent / "out" / name).read_bytes() for name in names] == first


def test_a_clean_split_gets_all_files_too(data: Path) -> None:
    found = run(data, split_of(data, {"b/1.jpg": "test"}))

    assert found.pairs == ()
    found.require_clean()
    assert {path.name for path in (data.parent / "out").iterdir()} >= {
        "near_duplicates.csv",
        "audit.json",
        "contact_sheet.png",
    }


def test_images_that_cannot_be_read_are_listed_and_skipped(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "a/0.jpg").write_bytes(b"no image")
    split = split_of(data, {"b/flipped.jpg": "test", "a/gone.jpg": "test"})

    with caplog.at_level(logging.WARNING, logger="evalcam"):
        found = run(data, split)

    assert len(found.pairs) == 1
    assert {entry["path"] for entry in found.document["skipped"]} == {"a/0.jpg", "a/gone.jpg"}
    assert "2 of 14 images cannot be read" in caplog.text
    assert (data.parent / "out/unreadable.csv").is_file()


def test_one_set_alone_is_refused(data: Path) -> None:
    with pytest.raises(UsageError, match="one set only"):
        run(data, split_of(data, {}))

    assert not (data.parent / "out").exists()


def test_another_data_folder_is_refused_when_nothing_is_left_to_compare(data: Path) -> None:
    (data.parent / "empty").mkdir()
    split = split_of(data, {"b/1.jpg": "test"})

    with pytest.raises(DataError, match="is this the right data folder"):
        audit(load_config(), AuditRequest(split_file=split, out=data.parent / "out", data=data.parent / "empty"))

    assert not (data.parent / "out").exists()


def test_the_output_never_lies_in_the_data(data: Path) -> None:
    split = split_of(data, {"b/1.jpg": "test"})

    with pytest.raises((UsageError, MachineError), match="never writes"):
        audit(load_config(), AuditRequest(split_file=split, out=data / "out", data=data))


def test_the_command_prints_what_it_found_and_exits_with_0_or_3(data: Path) -> None:
    split = split_of(data, {"b/flipped.jpg": "test", "b/1.jpg": "test"})
    out = data.parent / "found"

    plain = run_command("audit", str(split), "--data", str(data), "-o", str(out))
    strict = run_command("audit", str(split), "--data", str(data), "-o", str(out), "--overwrite", "--strict", "--json")

    assert plain.code == 0
    assert "1 of 2 images have a copy in another set" in plain.out
    assert plain.out.splitlines()[-1] == str(out)
    assert strict.code == 3
    assert json.loads(strict.out)["leaking"] == 1
    assert "near_duplicates.csv" in strict.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code"), [(["no.csv"], 2), ([], 2), (["no.csv", "--set", "data.max_pixel=3"], 2)]
)
def test_mistakes_are_told_without_a_traceback(arguments: list[str], code: int) -> None:
    outcome = run_command("audit", *arguments)

    assert outcome.code == code
    assert "Traceback" not in outcome.err
