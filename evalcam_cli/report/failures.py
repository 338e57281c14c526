"""The failure report: one page with every misclassified image, its maps, and where each class looks on average.

The page stands for itself: no script, nothing from the network or beside it (links to the run's own files excepted),
and a policy in its head by which a browser would refuse both. Filters and order are links and style rules. Pictures are
`data:` addresses in `<img loading=lazy>`, the entries `content-visibility: auto`.

Measured in Chromium 156 with 3,000 entries of 58 kB (174 MB) laid out in the same way, on two cores in use: first paint
after 0.5 s, all of it read after 5 to 6 s, a jump to the middle 0.1 s, 600 MB of memory at the peak. Pictures held back
in templates or scripts until they came into view were no faster, so the page needs none. This page with 3,000 entries
of 46 kB, with four times as many processes as cores: all read after 21 s (12 s of processor time); another order, a
filter and all again 1 to 2 s together.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from evalcam_cli.explain.attention import ClassAttention
from evalcam_cli.files import OutputFolder
from evalcam_cli.report import failures_page as page
from evalcam_cli.report.failure_entries import FailureSpool, SpooledEntry, pairs_of
from evalcam_cli.report.failures_page import FailureFacts

PAGE_NAME = "failures.html"


def write_failure_page(
    folder: OutputFolder, spool: FailureSpool, facts: FailureFacts, attention: Sequence[ClassAttention] = ()
) -> Path:
    """Write `failures.html` from the entries of the spool, one at a time.

    Args:
        folder: Where the page goes.
        spool: Mistakes, and right predictions if they are to be shown too, after the mistakes.
        facts: The head of the page and the counts of all images.
        attention: Average maps per class; empty leaves that part out.
    """
    with folder.stream(PAGE_NAME) as stream:
        for part in _parts(spool, facts, attention):
            stream.write(part.encode())
    return folder.path / PAGE_NAME


def _parts(spool: FailureSpool, facts: FailureFacts, attention: Sequence[ClassAttention]) -> Iterator[str]:
    mistakes, right = spool.ranked(mistakes=True), spool.ranked(mistakes=False)
    wrong_groups, right_groups = pairs_of(mistakes), pairs_of(right)
    ids = {pair: f"pair{number}" for number, pair in enumerate((*wrong_groups, *right_groups), start=1)}
    yield page.head(facts)
    yield from page.introduction(facts, len(mistakes))
    yield page.navigation(facts, attention, right=bool(right))
    yield "<main>\n"
    yield from page.reading(facts)
    yield from page.confusions(facts, wrong_groups, ids)
    if attention:
        yield from page.attention_section(facts.classes, attention)
    if mistakes:
        yield '<section id="mistakes">\n<h2>Mistakes</h2>\n'
        yield from _list(spool, wrong_groups, mistakes, ids)
        yield "</section>\n"
    if right:
        yield '<section id="right">\n<h2>Right predictions</h2>\n'
        yield from _list(spool, right_groups, right, ids)
        yield "</section>\n"
    yield "</main>\n</body>\n</html>\n"


def _list(
    spool: FailureSpool, groups: page.Groups, ranked: Sequence[SpooledEntry], ids: dict[tuple[str, str], str]
) -> Iterator[str]:
    """Group after group; each entry carries its place in the order by loss."""
    ranks = {one.path: rank for rank, one in enumerate(ranked, start=1)}
    pairs = list(groups)
    everything = "mistakes" if ranked and ranked[0].is_mistake else "right"
    yield '<div class="list">\n'
    yield f'<p class="box filtered">One kind only. <a href="#{everything}">Show all</a></p>\n'
    for place, pair in enumerate(pairs):
        beside = [("previous", place - 1), ("next", place + 1)]
        neighbours = [(word, ids[pairs[there]]) for word, there in beside if 0 <= there < len(pairs)]
        yield page.group_start(pair, len(groups[pair]), ids[pair], neighbours)
        for one in groups[pair]:
            yield page.card(spool.read(one), ranks[one.path])
        yield "</section>\n"
    yield "</div>\n"
