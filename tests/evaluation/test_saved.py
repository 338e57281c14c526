"""Predictions of other programs, and evalcam's own, read back."""

import csv
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as oracle

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.saved import read_predictions, stored_positive
from evalcam_cli.files import output_folder
from evalcam_cli.report.contents import Report
from evalcam_cli.report.evaluation import metrics_document, write_evaluation


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "saved.csv"
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    return path


def test_probabilities_are_read_in_the_order_of_their_columns(tmp_path: Path) -> None:
    text = "path,target,p:dog,p:cat,group,site\nx/1.png,cat,0.2,0.8,p1,A\nx/2.png,dog,0.6,0.4,p2,B\n"

    found = read_predictions(table(tmp_path, text))

    assert found.classes == ("dog", "cat")
    assert found.probabilities.tolist() == [[0.2, 0.8], [0.6, 0.4]]
    assert found.targets.tolist() == [1, 0]
    assert found.predicted.tolist() == [1, 0]
    assert found.paths == ("x/1.png", "x/2.png")
    assert found.groups == ("p1", "p2")
    assert (found.extra_columns, found.extra) == (("site",), (("A",), ("B",)))


def test_logits_keep_every_digit(tmp_path: Path) -> None:
    found = read_predictions(table(tmp_path, "target,logit:a,logit:b,subset\na,1.2345678901234567,-3e-5,test\n"))

    assert found.logits.tolist() == [[1.2345678901234567, -3e-5]]
    assert found.subsets == ("test",)
    assert found.paths == ("row 2",)
    assert found.probabilities.sum() == pytest.approx(1)


def test_a_score_takes_little_more_memory_than_its_number(tmp_path: Path) -> None:
    """As text it would take eight times as much: half a gigabyte for 50,000 images of 1,000 classes is 4 then."""
    rows, classes = 400, 250
    numbers = np.random.default_rng(0).normal(size=(rows, classes))
    lines = [",".join([f"c{number % classes}", *map(repr, row.tolist())]) for number, row in enumerate(numbers)]
    path = table(tmp_path, "\n".join(["target," + ",".join(f"logit:c{k}" for k in range(classes)), *lines]))

    tracemalloc.start()
    try:
        found = read_predictions(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    np.testing.assert_array_equal(found.logits, numbers)
    assert peak < 30 * numbers.size  # bytes


def test_numbers_equal_those_of_scikit_learn_on_the_same_columns(tmp_path: Path) -> None:
    """Rounded probabilities: sums a little off 1, and many ties."""
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 3, 200)
    scores = generator.dirichlet(np.ones(3), 200).round(3)
    rows = [f"{'abc'[t]},{p[0]},{p[1]},{p[2]}" for t, p in zip(targets, scores, strict=True)]

    metrics = compute_metrics(read_predictions(table(tmp_path, "\n".join(["target,p:a,p:b,p:c", *rows]))))

    for index, label in enumerate("abc"):
        entry = metrics.per_class[label]
        assert entry.estimates["roc_auc"].estimate == pytest.approx(
            oracle.roc_auc_score(targets == index, scores[:, index]), abs=1e-12
        )
        wanted = oracle.average_precision_score(targets == index, scores[:, index])
        assert entry.estimates["average_precision"].estimate == pytest.approx(wanted, abs=1e-12)


def test_a_spreadsheet_with_a_mark_at_its_beginning_and_guarded_names_is_read(tmp_path: Path) -> None:
    text = "\ufefftarget,p:=a,p:[b] c,p:가\r\n'=a,1,0,0\r\n=a,1,0,0\r\n[b] c,0,1,0\r\n가,0,0,1\r\n\r\n"

    found = read_predictions(table(tmp_path, text))

    assert found.classes == ("=a", "[b] c", "가")
    assert found.targets.tolist() == [0, 0, 1, 2]


def test_rounding_beyond_one_is_cut_off(tmp_path: Path) -> None:
    found = read_predictions(table(tmp_path, "target,p:a,p:b\na,1.0000001,-0.0000001\n"))

    assert found.probabilities.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("target,p:a,p:b\n", "a header but no rows"),
        ("Target,p:a,p:b\na,1,0\n", "no column 'target'; rename 'Target'"),
        ("label,p:a,p:b\na,1,0\n", "no column 'target'; rename 'label'"),
        ("target,p_a,p_b\na,1,0\n", r"no column p:<class> or logit:<class>; did you mean 'p:a' by 'p_a'"),
        ("target,score\na,1\n", "no column p:<class> or logit:<class>"),
        ("target;p:a;p:b\na;1;0\n", "separated by something else than commas"),
        ("target,p:a,p:a\na,1,0\n", "several columns named 'p:a'"),
        ("target,p:a,logit:b\na,1,0\n", "keep one kind"),
        ("target,p:a\na,1\n", "scores for 1 class; two are needed"),
        ("target,p:,p:b\na,1,0\n", "classes without a name"),
        ("target,p:a,p:b\na,1\n", "1 row with another number of cells than the header's 3: row 2"),
        ("target,p:cat,p:dog\ncta,1,0\n", r"row 2: target 'cta' is none of the 2 classes; did you mean 'cat'"),
        ("target,p:a,p:b\na,x,0\n", "row 2: p:a is 'x', which is no number"),
        ("target,logit:a,logit:b\na,0,1_0\n", "row 2: logit:b is '1_0', which is no number"),
        ("target,logit:a,logit:b\na,0,\u0663\n", "row 2: logit:b is .*, which is no number"),
        ('target,p:a,p:b\n"a,1,0\n', "row 2: .*are its quotes closed"),
        ("target,p:a,p:b\na,,0\n", "row 2: p:a is '', which is no number"),
        ("target,p:a,p:b\na,1,0\na,nan,0\n", "1 row with probabilities that are not from 0 to 1.*row 3"),
        ("target,p:a,p:b\na,1.5,-0.5\n", "write logits as logit:<class>"),
        ("target,p:a,p:b\na,0.5,0.4\na,0.5,0.51\n", "2 rows with probabilities that do not sum to 1: row 2, 3"),
        ("target,logit:a,logit:b\na,inf,0\n", "1 row with logits that are NaN or infinite: row 2"),
        ("target,logit:a,logit:b\na,1e39,0\n", "logits that are NaN or infinite"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_row(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)

    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        read_predictions(path)

    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") < 4


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(DataError, match="UTF-8"):
        read_predictions(table(tmp_path, "target,p:a,p:b\na,1,0\n", encoding))


def test_a_file_that_is_not_there_is_a_wrong_command_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UsageError, match=r"cannot read the predictions .*\.csv"):
            read_predictions(path)


def sample() -> Predictions:
    generator = np.random.default_rng(1)
    return Predictions(
        ("=a", "b,c"),
        generator.normal(size=(20, 2)).astype(np.float32),
        generator.integers(0, 2, 20),
        tuple(f"=x/{i}.png" for i in range(20)),
        ("test",) * 20,
        tuple(f"p{i // 2}" for i in range(20)),
        ("site",),
        (("A",),) * 20,
    )


@pytest.fixture(scope="module")
def once_written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    predictions = sample()
    with output_folder(out) as folder:
        metrics = compute_metrics(predictions, positive="=a", bootstrap=20)
        write_evaluation(folder, Report(predictions, metrics, subset="test"))
    return out


@pytest.fixture
def written(once_written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(once_written, tmp_path / "out")


def test_an_evaluation_read_back_is_the_same(written: Path) -> None:
    for path in (written, written / "predictions.csv"):
        found = read_predictions(path)

        original = sample()
        assert found.classes == original.classes
        assert np.array_equal(found.logits, original.logits)
        assert found.logits.dtype == np.float32
        assert np.array_equal(found.targets, original.targets)
        assert (found.paths, found.groups, found.subsets) == (original.paths, original.groups, original.subsets)
        assert (found.extra_columns, found.extra) == (original.extra_columns, original.extra)
        assert stored_positive(path) == "=a"


def test_stated_probabilities_survive_a_round_trip(tmp_path: Path) -> None:
    first = read_predictions(table(tmp_path, "target,p:a,p:b\na,1,0\nb,0.25,0.75\nb,1,0\n"))
    metrics = compute_metrics(first)
    with output_folder(tmp_path / "out") as folder:
        write_evaluation(folder, Report(first, metrics, subset=""))

    again = read_predictions(tmp_path / "out")

    np.testing.assert_allclose(again.probabilities, first.probabilities, rtol=1e-15)
    assert metrics_document(Report(again, compute_metrics(again)))["metrics"] is not None
    assert compute_metrics(again).overall["log_loss"].estimate is None


def test_logits_with_more_digits_than_a_network_has_survive_a_round_trip(tmp_path: Path) -> None:
    first = read_predictions(table(tmp_path, "target,logit:a,logit:b\na,0.1,0\nb,0.10000000001,0\n"))
    with output_folder(tmp_path / "out") as folder:
        write_evaluation(folder, Report(first, compute_metrics(first), subset=""))

    again = read_predictions(tmp_path / "out")

    assert again.logits.tolist() == [[0.1, 0], [0.10000000001, 0]]


def test_no_positive_class_is_known_of_foreign_files(tmp_path: Path) -> None:
    assert stored_positive(table(tmp_path, "target,p:a,p:b\na,1,0\n")) is None


def test_logits_that_no_longer_fit_are_refused(written: Path) -> None:
    logits = np.load(written / "logits.npy")

    np.save(written / "logits.npy", logits[::-1])
    with pytest.raises(DataError, match=r"predicted class that logits\.npy contradicts; the rows were moved"):
        read_predictions(written)
    np.save(written / "logits.npy", logits[:, :1])
    with pytest.raises(DataError, match=r"has the shape \(20, 1\); rows and classes beside it make it \(20, 2\)"):
        read_predictions(written)
    np.save(written / "logits.npy", np.where(logits > 1, np.nan, logits))
    with pytest.raises(DataError, match=r"logits in logits\.npy that are NaN or infinite"):
        read_predictions(written)
    np.save(written / "logits.npy", logits.astype(int))
    with pytest.raises(DataError, match="does not hold floating-point numbers"):
        read_predictions(written)
    (written / "logits.npy").write_bytes((written / "logits.npy").read_bytes()[:50])
    with pytest.raises(DataError, match="cannot read"):
        read_predictions(written)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_a_pickle_in_place_of_logits_is_not_run(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(written / "logits.npy", np.array([Bomb()], dtype=object), allow_pickle=True)

    with pytest.raises(DataError, match=r"cannot read .*: it is no \.npy file of numbers") as caught:
        read_predictions(written)

    assert "allow_pickle" not in str(caught.value)  # no advice to run it after all
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "[]", '{"classes": 3}', '{"classes": ["=a", "=a"]}'])
def test_metrics_without_classes_are_refused(written: Path, content: str) -> None:
    (written / "metrics.json").write_text(content, encoding="utf-8")

    with pytest.raises(DataError):
        read_predictions(written)


def test_missing_metrics_are_named(written: Path) -> None:
    (written / "metrics.json").unlink()

    with pytest.raises(DataError, match=r"metrics\.json is missing; it says which class"):
        read_predictions(written)


def test_the_file_says_which_scores_it_holds(written: Path) -> None:
    assert json.loads((written / "metrics.json").read_text(encoding="utf-8"))["scores"] == "logits"


def test_rows_that_were_predicted_alike_and_changed_places_are_noticed(written: Path) -> None:
    path = written / "predictions.csv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    named = [row["predicted"] for row in csv.DictReader([header, *rows])]
    alike = [number for number, name in enumerate(named) if name == named[0]]
    rows[alike[0]], rows[alike[1]] = rows[alike[1]], rows[alike[0]]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")

    with pytest.raises(DataError, match="a confidence that"):
        read_predictions(written)


def test_an_image_in_two_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 path in several rows \(x.png\)"):
        read_predictions(table(tmp_path, "path,target,p:a,p:b\nx.png,a,1,0\ny.png,b,0,1\nx.png,a,1,0\n"))
