"""RunConfig from its sources."""

from pathlib import Path

import pytest
import yaml

from evalcam_cli.config import RunConfig, config_keys, default_of, resolved
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import UsageError


def config_file(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_later_sources_win(tmp_path: Path) -> None:
    path = config_file(tmp_path, "train: {lr: 1e-3, epochs: 5, batch_size: 8}\nseed: 4\n")

    config = load_config(path, assignments=["train.epochs=6", "train.batch_size=9"], options={"train.batch_size": 10})

    assert config.train.lr == 0.001  # the file, over the default
    assert config.train.epochs == 6  # --set, over the file
    assert config.train.batch_size == 10  # the named option, over --set
    assert config.seed == 4


def test_an_option_that_is_not_given_changes_nothing() -> None:
    assert load_config(options={"train.lr": None}) == RunConfig()


def test_the_resolved_config_reads_back_to_itself(tmp_path: Path) -> None:
    config = load_config(assignments=["train.lr=1e-05", "split.ratios=[0.8,0.1,0.1]", "gradcam.class=[true, 3]"])
    path = config_file(tmp_path, yaml.safe_dump(resolved(config), sort_keys=False))

    assert load_config(path) == config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: {batchsize: 3}", "line 1: unknown config key 'train.batchsize'; did you mean 'train.batch_size'?"),
        ("\n\nlr: 3", "line 3: unknown config key 'lr'; did you mean 'train.lr'?"),
        ("gradcam: {classes: cat}", "line 1: unknown config key 'gradcam.classes'; did you mean 'gradcam.class'?"),
        ("trian: {lr: 1}", "unknown config key 'trian'; did you mean 'train'?"),
        ("train: {lr: .nan}", "train.lr must be a finite number, got NaN"),
        ("train: {lr: -0.1}", "train.lr must be greater than 0, got -0.1"),
        ("train: {lr: yes}", "train.lr must be a number, got 'yes'"),
        ("train: {lr: true}", "train.lr must be a number, got True"),
        ("train: {epochs: 1.5}", "train.epochs must be a whole number, got 1.5"),
        ("train: {epochs: 010}", "train.epochs must be a whole number, got '010'"),
        ("train: {batch_size: 1000000000000}", "train.batch_size must be less than or equal to 65536"),
        ("train: [1]", "train must be a section with keys"),
        ("train: {warmup_epochs: 30}", "longer than train.epochs"),
        ("split: {ratios: [0.5, 0.2, 0.2]}", "split.ratios: must sum to 1; 0.5 . 0.2 . 0.2 = 0.9"),
        ("split: {ratios: [0.5, 0.5]}", "split.ratios must have 3 values"),
        ("split: {ratios: [0, 0.5, 0.5]}", "the training set needs a share above 0"),
        ("model: {arch: resnet19}", "got 'resnet19'; did you mean 'resnet18'?"),
        ("data: {workers: many}", "data.workers must be 'auto' or a whole number, got 'many'"),
        ("gradcam: {method: 'gradcam,gradcamm'}", "gradcam.method must be one of 'cam'"),
        ("gradcam: {method: 'gradcam,gradcamm'}", "got 'gradcamm'; did you mean 'gradcam'?"),
        ("gradcam: {class: []}", "gradcam.class must have at least 1 value"),
        ("- a", "expected a map of sections, found a list"),
        ("just text", "expected a map of sections, found 'just text'"),
    ],
)
def test_a_wrong_config_is_refused_by_key_and_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(config_file(tmp_path, text))

    message = str(caught.value)
    assert problem.replace(" . ", " + ") in message
    assert str(tmp_path) in message or "line" not in problem
    assert message.count("\n") < 7


@pytest.mark.parametrize("content", [b"train: {lr: 1}  # caf\xe9", b"\xff\xfet\x00r\x00"])
def test_a_config_in_another_encoding_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)

    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(tmp_path / "c.yaml")


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbftrain:\r\n  lr: 0.5\r\n")

    assert load_config(tmp_path / "c.yaml").train.lr == 0.5


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("train.lr", "takes section.key=value"),
        ("=3", "takes section.key=value"),
        ("tran.lr=3", "did you mean 'train.lr'"),
        ("train=3", "unknown config key 'train'"),
        ("train.lr=[", "not valid YAML"),
    ],
)
def test_a_malformed_assignment_is_refused(assignment: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        load_config(assignments=[assignment])


def test_lists_may_be_written_without_brackets() -> None:
    config = load_config(assignments=["split.ratios=0.8,0.1,0.1", "gradcam.class=cat, true"])

    assert config.split.ratios == (0.8, 0.1, 0.1)
    assert config.gradcam.classes == ("cat", "true")


def test_a_single_class_or_number_serves_as_a_list(tmp_path: Path) -> None:
    assert load_config(config_file(tmp_path, "gradcam: {class: 3}")).gradcam.classes == ("3",)


def test_every_key_is_documented() -> None:
    assert all(config_keys().values())


_NO_KEY_TAKES = (".nan", ".inf", "-.inf", "1e400", "{a: 1}", "[[1]]", "[{a: [1]}]", "!!python/name:os.system 1")
_NO_NUMBER = ("-1000000000", "1e300", "9" * 400, "1" + "0" * 399, "''", "' '", "fast", "0x10", "1_0", "1:30")


@pytest.mark.parametrize("key", config_keys())
def test_no_key_takes_what_makes_no_sense(tmp_path: Path, key: str) -> None:
    default = default_of(key)
    values = list(_NO_KEY_TAKES)
    if isinstance(default, int | float):
        values += _NO_NUMBER
    if isinstance(default, bool):
        values += ["0", "1", "yes", "'true'"]
    elif isinstance(default, int | float):
        values += ["true", "false"]

    for value in values:
        with pytest.raises(UsageError) as caught:
            load_config(config_file(tmp_path, nested(key, value)))
        assert "line 1" in str(caught.value)
        assert key in str(caught.value) or "tags" in str(caught.value)
        assert len(str(caught.value).encode()) < 4000


def nested(key: str, value: str) -> str:
    """`train: {lr: value}` for `train.lr`."""
    *sections, name = key.split(".")
    for section in reversed(sections):
        name, value = section, f"{{{name}: {value}}}"
    return f"{name}: {value}"


@pytest.mark.parametrize("value", ["1000000000000", "9" * 400])
def test_no_whole_number_is_without_a_limit(tmp_path: Path, value: str) -> None:
    unlimited = []
    for key in config_keys():
        if type(default_of(key)) is int and key != "seed":
            try:
                load_config(config_file(tmp_path, nested(key, value)))
            except UsageError:
                continue
            unlimited.append(key)

    assert unlimited == []


def test_a_value_that_comes_from_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(config_file(tmp_path, "train:\n  lr: 1e-3\n"), assignments=["train.lr=-1"])

    assert "train.lr must be greater than 0, got -1" in str(caught.value)
    assert "line" not in str(caught.value)


def test_a_name_that_is_not_utf8_is_refused_as_such() -> None:
    with pytest.raises(UsageError, match=r"model.weights: caf\\udce9.pt is not UTF-8"):
        load_config(options={"model.weights": "caf\udce9.pt"})


@pytest.mark.parametrize("text", ["", "# nothing\n", "~", "---\n"])
def test_a_config_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="found nothing; leave -c away for the defaults"):
        load_config(config_file(tmp_path, text))
