"""What each map is worth beside a random one: kept image by image, then for the whole run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from evalcam_cli.explain.faithfulness import METRICS, Beside, Faithfulness, Scoring, score_maps
from evalcam_cli.explain.faithfulness_summary import Summary, summarise
from evalcam_cli.explain.maps import Maps
from evalcam_cli.explain.methods import METHODS
from evalcam_cli.files import OutputFolder
from evalcam_cli.workflows.explanations import Entry

SCORES = "scores"
"""Of an entry's extra."""


def score_batch(
    model: nn.Module, images: Tensor, class_indices: Sequence[int], maps: dict[str, Maps], keys: Sequence[str], *,
    seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Per image, the metrics of each method's map of its first class, as plain data."""
    chosen = torch.tensor(class_indices)
    scored = {
        method: score_maps(
            model, images, chosen, each.maps[:, 0] if METHODS[method].signed else each.maps[:, 0].abs(), keys=keys,
            scoring=Scoring(seed=seed),
        )
        for method, each in maps.items()
    }  # fmt: skip
    return [
        {method: _plain(records[place]) for method, records in scored.items()} for place in range(len(class_indices))
    ]


def _plain(record: Faithfulness) -> dict[str, Any]:
    scores = {
        name: [None if beside.undefined_reason else beside.score, None if beside.undefined_reason else beside.random,
               beside.undefined_reason]
        for name, beside in record.scores.items()
    }  # fmt: skip
    return {**vars(record), "scores": scores}


def _record(values: dict[str, Any]) -> Faithfulness:
    scores = {
        name: Beside(float("nan") if score is None else score, float("nan") if random is None else random, reason)
        for name, (score, random, reason) in values["scores"].items()
    }
    return replace(Faithfulness(**values), scores=scores)


def write_scores(folder: OutputFolder, entries: Callable[[], Iterable[Entry]]) -> dict[str, dict[str, Summary]]:
    """Write `scores.csv`, a row per image and method, and `scores.json` with their means; by method.

    Args:
        folder: Of the run.
        entries: Gives its images, whenever it is called.
    """
    methods: dict[str, None] = {}

    def rows() -> Iterator[tuple[object, ...]]:
        for entry in entries():
            for method, values in entry.extra.get(SCORES, {}).items():
                methods[method] = None
                record = _record(values)
                document = record.document()
                yield (entry.path, method, record.class_index, *(document[name] for name in _columns()))

    folder.write_csv("scores.csv", ("path", "method", "class_index", *_columns()), rows())
    summaries = {method: summarise(_records(entries(), method)) for method in methods}
    folder.write_json("scores.json", {
        method: {
            name: {
                "higher_is_better": one.higher_is_better, "score": one.score.document(),
                "random": one.random.document(), "difference": one.difference.document(),
                "beats_random": one.beats_random.document(), "verdict": one.verdict,
            }
            for name, one in found.items()
        }
        for method, found in summaries.items()
    })  # fmt: skip
    return summaries


def _records(entries: Iterable[Entry], method: str) -> Iterator[Faithfulness]:
    found = (entry.extra.get(SCORES, {}) for entry in entries)
    return (_record(scores[method]) for scores in found if method in scores)


def _columns() -> list[str]:
    both = [column for name in METRICS for column in (name, f"{name}_random")]
    return ["probability", *both, "undefined_reason"]
