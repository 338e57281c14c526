"""The failure report: what is on the page, and what a browser makes of it."""

import dataclasses
import functools
import html
import http.server
import io
import json
import math
import re
import shutil
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.explain.attention import AttentionAverages, ClassAttention
from evalcam_cli.files import LOCK_NAME, output_folder
from evalcam_cli.report.failure_entries import (
    SPOOL_NAME,
    FailureEntry,
    FailureSpool,
    entry_to_bytes,
    remove_spool,
    shrink,
    small_picture,
)
from evalcam_cli.report.failures import PAGE_NAME, write_failure_page
from evalcam_cli.report.failures_page import FailureFacts, Legend, picture
from evalcam_cli.report.overlay import png_bytes
from tests.conftest import SHARED

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHOTOS = SHARED / "data" / "photos"
NASTY = (
    '<script>document.documentElement.dataset.canary = "1"</script>',
    '"><img src=/canary onerror="document.documentElement.dataset.canary=1">',
    "</style></title></template><!--\n\t\u202egnp",
    "정상 مرحبا \udcff & ' 🧠",
)


def coloured(colour: tuple[int, int, int] = (200, 40, 40), size: tuple[int, int] = (48, 32)) -> bytes:
    return small_picture(Image.new("RGB", size, colour))


def entry(path: str = "a/1.png", label: str = "a", predicted: str = "b", loss: float = 1.0) -> FailureEntry:
    image = coloured()
    return FailureEntry(path, label, predicted, loss, ((label, 0.25), (predicted, 0.75)), image, image, image, image)


def facts(classes: tuple[str, ...] = ("a", "b"), confusion: object = ((5, 2), (1, 6))) -> FailureFacts:
    return FailureFacts(
        classes, np.asarray(confusion, dtype=np.int64), "resnet18", "0123abcd", "test", "0.786 (95 % CI 0.5 to 0.9)",
        "Grad-CAM", "layer4",
    )  # fmt: skip


def write(
    out: Path, entries: list[FailureEntry], about: FailureFacts, attention: tuple[ClassAttention, ...] = ()
) -> str:
    with output_folder(out) as folder:
        with FailureSpool.open(folder) as spool:
            for one in entries:
                spool.add(one)
            page = write_failure_page(folder, spool, about, attention)
        remove_spool(folder)
    return page.read_text(encoding="utf-8")


def seen_text(page: str) -> str:
    """What a reader sees of HTML, tags and break opportunities removed."""
    body = page[page.index("<body>") :]
    return html.unescape(re.sub(r"<[^>]*>", "", body.replace("<wbr>", "")))


def ids(page: str, prefix: str) -> list[str]:
    return re.findall(rf'<(?:article|section)[^>]* id="({prefix}\d+)"', page)


def corner_attention() -> tuple[ClassAttention, ...]:
    averages = AttentionAverages(2)
    corner = np.zeros((7, 7))
    corner[6, 0] = 1
    for _ in range(20):
        averages.add(0, corner, Preprocessing(224, "pad").geometry(300, 200))
        averages.add(1, np.ones((7, 7)), Preprocessing(224, "pad").geometry(300, 200))
    return averages.summarise()


def test_an_entry_comes_back_from_the_spool_as_it_was(tmp_path: Path) -> None:
    one = dataclasses.replace(
        entry("\udcff\n.png", loss=math.inf), counterfactual=coloured(), true_max=0.1, files=("x/y.png",), note="n"
    )
    with output_folder(tmp_path / "run") as folder, FailureSpool.open(folder) as spool:
        spool.add(entry())
        spool.add(one)

        assert [spool.read(spooled) for spooled in spool.ranked()] == [one, entry()]
        assert "\udcff\n.png" in spool


@pytest.mark.parametrize("lost", [1, 40, 400])
def test_a_killed_run_leaves_all_entries_but_the_one_it_was_writing(tmp_path: Path, lost: int) -> None:
    with output_folder(tmp_path) as folder, FailureSpool.open(folder) as spool:
        for number in range(3):
            spool.add(entry(f"{number}.png"))
    spooled = tmp_path / SPOOL_NAME
    spooled.write_bytes(spooled.read_bytes()[:-lost])

    with output_folder(tmp_path, resume=True) as folder, FailureSpool.open(folder, resume=True) as spool:
        known = [one.path for one in spool.ranked()]
        spool.add(entry("2.png", loss=3))
        spool.add(entry("0.png", loss=2))
        again = spool.ranked()

        assert known == ["0.png", "1.png"]
        assert [(one.path, spool.read(one).loss) for one in again] == [("2.png", 3), ("0.png", 2), ("1.png", 1)]


def test_without_resume_the_spool_begins_anew(tmp_path: Path) -> None:
    with output_folder(tmp_path) as folder:
        with FailureSpool.open(folder) as spool:
            spool.add(entry())
        with FailureSpool.open(folder) as spool:
            assert len(spool) == 0


def test_bytes_that_are_no_record_end_the_spool(tmp_path: Path) -> None:
    with output_folder(tmp_path) as folder:
        folder.write(SPOOL_NAME, entry_to_bytes(entry()), b"\0" * 5000)
        with FailureSpool.open(folder, resume=True) as spool:
            assert len(spool) == 1
        assert (tmp_path / SPOOL_NAME).stat().st_size == len(entry_to_bytes(entry()))


def test_every_mistake_is_there_once_by_loss_within_its_confusion_the_largest_first(tmp_path: Path) -> None:
    losses = [("a", "b", 1.0), ("a", "b", 3.0), ("a", "b", math.nan), ("b", "a", 9.0)]
    entries = [entry(f"{label}/{loss}.png", label, predicted, loss) for label, predicted, loss in losses]

    page = write(tmp_path / "run", entries, facts(confusion=((5, 3), (1, 6))))

    assert ids(page, "pair") == ["pair1", "pair2"]
    assert ids(page, "m") == ["m2", "m3", "m4", "m1"]  # ranks over all mistakes; an unknown loss comes last
    assert re.findall(r"loss ([\w./]+)<", page) == ["3.000", "1.000", "n/a", "9.000"]
    assert '<td style="--s:0.375"><a href="#pair1">3</a></td>' in page


def test_right_predictions_come_after_the_mistakes(tmp_path: Path) -> None:
    right = dataclasses.replace(entry("r.png", "a", "a", loss=20.0), predicted_map=None, difference=None)

    page = write(tmp_path / "run", [right, entry("w.png")], facts())

    assert page.index('id="m1"') < page.index('id="right"') < page.index('id="r1"')
    assert page.count("<figure>") == 4 + 2
    assert '<td class="right"><a href="#pair2">5</a></td>' in page


def test_a_set_without_mistakes_says_so(tmp_path: Path) -> None:
    page = write(tmp_path / "run", [], facts(confusion=((5, 0), (0, 6))))

    assert "No mistakes: all 11 images were predicted as labelled." in seen_text(page)
    assert 'id="mistakes"' not in page


def test_mistakes_that_are_left_out_are_counted(tmp_path: Path) -> None:
    assert "1 of 3 mistakes are on this page." in seen_text(write(tmp_path / "run", [entry()], facts()))


def test_an_empty_map_is_called_so(tmp_path: Path) -> None:
    page = write(tmp_path / "run", [dataclasses.replace(entry(), true_max=-0.5, predicted_max=4.0)], facts())

    assert "for a (true), empty: nothing speaks for it" in seen_text(page)
    assert "for b (predicted), up to 4.000" in seen_text(page)


def test_of_many_classes_the_pairs_are_listed_and_the_true_class_always_has_its_probability(tmp_path: Path) -> None:
    classes = tuple(f"class {number:03}" for number in range(200))
    confusion = np.diag(np.full(200, 3))
    confusion[7, 9] = 1
    probabilities = tuple((label, (number + 1) / 20100) for number, label in enumerate(classes))
    one = dataclasses.replace(entry("x.png", classes[7], classes[9]), probabilities=probabilities)

    page = write(tmp_path / "run", [one], facts(classes, confusion))

    assert "<table>" not in page
    assert "class 007 → class 009 1" in seen_text(page)
    assert len(re.findall("<li", page[page.index('class="bars"') :])) == 6 + 2


def test_the_warning_of_a_class_is_a_sentence_and_a_frame(tmp_path: Path) -> None:
    page = write(tmp_path / "run", [entry()], facts(), corner_attention())

    assert "the attention of a sits at the bottom-left corner: 100% of it, over 20 images" in seen_text(page)
    assert page.count('class="warned"') == 1
    assert "left:0.00%;top:75.00%;width:25.00%;height:25.00%" in page


def test_links_lead_to_files_beside_the_page_alone(tmp_path: Path) -> None:
    paths = ("javascript:alert(1)", "/etc/passwd", "정상/a b#?.png", "\udcff.npy", "//host/x")

    page = write(tmp_path / "run", [dataclasses.replace(entry(), files=paths)], facts())

    links = [link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith("#")]
    assert links == [
        "./javascript%3Aalert%281%29", "./etc/passwd", "./%EC%A0%95%EC%83%81/a%20b%23%3F.png", "./%FF.npy", "./host/x",
    ]  # fmt: skip


def test_nothing_in_the_page_points_outside(tmp_path: Path) -> None:
    legend = Legend(png_bytes(Image.new("RGB", (20, 4))), "0", "most", "colours")
    about = dataclasses.replace(facts(), legends=(legend,), verdict="It fails.", verdict_failed=True, notes=("Note.",))

    page = write(tmp_path / "run", [entry()], about, corner_attention())

    assert "default-src 'none'; img-src data:" in page
    assert not re.search(r"(https?|file|blob|ftp):|<script|<link|<iframe|@import|url\(", page)
    assert set(re.findall(r'src="(.{11})', page)) == {"data:image/"}


def test_a_picture_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be JPEG, PNG or WebP"):
        picture(b"<svg onload=alert(1)>", "")


def test_four_pictures_of_a_noisy_photograph_stay_below_60_kb(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)
    data = small_picture(Image.fromarray(noise))
    one = dataclasses.replace(entry(), original=data, true_map=data, predicted_map=data, difference=data)

    empty, page = write(tmp_path / "0", [], facts()), write(tmp_path / "1", [one], facts())

    assert len(page) - len(empty) < 60_000


def test_a_small_picture_keeps_its_size_and_a_large_one_its_shape() -> None:
    assert shrink(Image.new("L", (30, 20))).size == (30, 20)
    assert shrink(Image.new("RGBA", (2080, 520))).size == (208, 52)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    large = b"\xff\xd8" + coloured()[2:] + b"\0" * 20_000

    def peak(count: int) -> int:
        with output_folder(tmp_path / str(count)) as folder, FailureSpool.open(folder) as spool:
            tracemalloc.start()
            for number in range(count):
                spool.add(dataclasses.replace(entry(f"{number}.png"), original=large, true_map=large))
            write_failure_page(folder, spool, facts())
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    assert peak(160) - peak(20) < 140 * 2_000  # names and places; the pictures alone are 40 kB each


def test_the_page_is_the_same_for_the_same_entries_in_any_order(tmp_path: Path) -> None:
    entries = [entry(f"{number}.png", loss=number % 3) for number in range(9)]

    assert write(tmp_path / "0", entries, facts()) == write(tmp_path / "1", entries[::-1], facts())


def test_the_finished_folder_holds_the_page_alone(tmp_path: Path) -> None:
    write(tmp_path / "run", [entry()], facts())

    assert sorted(one.name for one in (tmp_path / "run").iterdir()) == [LOCK_NAME, PAGE_NAME]


# In a browser.

PROBE = """<script>addEventListener("load", async () => {
 const all = selector => [...document.querySelectorAll(selector)], top = node => node.getBoundingClientRect().top;
 const boxed = node => node.getClientRects().length > 0;
 all("img").forEach(image => image.loading = "eager");
 await Promise.allSettled(all("img").map(image => image.decode()));
 const found = {canary: document.documentElement.dataset.canary || "", widths: all("img").map(one => one.naturalWidth),
  names: all("main h4 bdi").map(one => one.textContent), wide: document.documentElement.scrollWidth - innerWidth,
  scripts: document.scripts.length, fetched: performance.getEntriesByType("resource").map(one => one.name)};
 const ranks = () => all("#mistakes .card").filter(boxed).sort((a, b) => top(a) - top(b)).map(one => one.id);
 found.grouped = ranks();
 document.getElementById("by-loss").click(); found.flat = ranks();
 location.hash = "#pair2"; await new Promise(done => setTimeout(done, 50)); found.filtered = ranks();
 location.hash = "#mistakes"; await new Promise(done => setTimeout(done, 50)); found.all = ranks();
 document.documentElement.dataset.found = JSON.stringify(found);
});</script>"""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of the folder on this machine, and the paths that were asked for so far."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def browse(address: str, profile: Path, *options: str) -> str:
    """What Chromium prints of the page, as `--dump-dom` does: the document after its scripts ran."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        f"--user-data-dir={profile}",
    )
    command = [CHROMIUM, *flags, "--virtual-time-budget=4000", "--dump-dom", *options, address]
    return subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout


def nasty_page(out: Path) -> list[FailureEntry]:
    """A page whose names try to break out, of two kinds of mistakes."""
    confusion = np.diag([3] * 4) + np.eye(4, k=1, dtype=int) * 2
    entries = [entry(f"{NASTY[n % 4]}/{n}", NASTY[n // 2], NASTY[n // 2 + 1], loss=(0, 3, 2, 1)[n]) for n in range(4)]
    entries = [dataclasses.replace(one, note=NASTY[0], files=(NASTY[1],)) for one in entries]
    write(out, entries, facts(NASTY, confusion), corner_attention())
    return entries


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_names_stay_text_pictures_decode_and_filters_work_in_a_browser(tmp_path: Path) -> None:
    entries = nasty_page(tmp_path / "run")
    page = tmp_path / "run" / PAGE_NAME
    unguarded = page.read_text().replace("default-src 'none';", "script-src 'unsafe-inline'; img-src * data:;", 1)
    (tmp_path / "probe.html").write_text(unguarded.replace("</body>", PROBE + "</body>"))

    with served(tmp_path) as (address, asked):
        dom = browse(f"{address}/probe.html", tmp_path / "profile", "--window-size=360,800")

    found: dict[str, Any] = json.loads(html.unescape(re.search('data-found="([^"]*)"', dom)[1]))  # type: ignore[index]
    assert found["canary"] == ""
    assert found["scripts"] == 1  # the probe's own
    assert [name for name in found["fetched"] if not name.endswith("/favicon.ico")] == []  # the browser asks for that
    assert set(asked) <= {"/probe.html", "/favicon.ico"}
    assert len(found["widths"]) == 4 * 4 + 2
    assert min(found["widths"]) > 0
    assert len(found["names"]) == len(entries)
    assert r"</style></title></template><!--\n\t\u202egnp/2" in found["names"]
    assert r"정상 مرحبا \udcff & ' 🧠/3" in found["names"]
    assert found["wide"] <= 0  # nothing to scroll sideways to on a phone
    assert found["grouped"] == ["m1", "m4", "m2", "m3"]
    assert found["flat"] == found["all"] == ["m1", "m2", "m3", "m4"]
    assert found["filtered"] == ["m2", "m3"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_policy_of_the_page_keeps_a_script_and_a_request_out(tmp_path: Path) -> None:
    nasty_page(tmp_path / "run")
    page = tmp_path / "run" / PAGE_NAME
    intruder = "<script>document.documentElement.dataset.canary = 1</script><img src=/canary.png>"
    page.write_text(page.read_text().replace("<main>", f"<main>{intruder}", 1))

    with served(tmp_path / "run") as (address, asked):
        dom = browse(f"{address}/{PAGE_NAME}", tmp_path / "profile")

    assert "<main><script>" in dom
    assert "data-canary" not in dom
    assert set(asked) <= {f"/{PAGE_NAME}", "/favicon.ico"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs beside the checkout")
def test_a_photograph_is_seen_on_the_page_from_the_file_itself(tmp_path: Path) -> None:
    green = small_picture(Image.new("RGB", (208, 208), (0, 200, 0)))
    photo = small_picture(Image.open(sorted(PHOTOS.iterdir())[0]))
    write(tmp_path / "run", [dataclasses.replace(entry(), original=photo, true_map=green)], facts())
    shot = tmp_path / "shot.png"

    browse((tmp_path / "run" / PAGE_NAME).as_uri(), tmp_path / "p", f"--screenshot={shot}", "--window-size=1200,1600")

    pixels = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")).astype(int)
    assert (np.abs(pixels - (0, 200, 0)).max(axis=-1) < 6).sum() > 0.95 * 208 * 208
