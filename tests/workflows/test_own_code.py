"""Code of the user's own: run when it is named, judged by its line, and never left half loaded."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.explain.maps import layer_maps
from evalcam_cli.workflows.own_code import OwnModel, count_outputs, count_scores, load_function, load_model, load_target

CPU = torch.device("cpu")
MODEL = """
import torch
from torch import nn

def small():
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
"""


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def refusal_of_model(reference: str) -> list[str]:
    with pytest.raises(UsageError) as refused:
        load_model(reference)
    lines = str(refused.value).splitlines()
    assert len(lines) <= 8
    return lines


def test_a_factory_is_called_without_arguments_and_its_model_comes_back(tmp_path: Path) -> None:
    own = load_model(write(tmp_path, MODEL) + ":small")

    assert isinstance(own.model, nn.Sequential)
    assert count_outputs(own, 16, CPU) == 5


def test_a_class_is_a_factory_too(tmp_path: Path) -> None:
    own = load_model(write(tmp_path, "from torch import nn\nclass Net(nn.Module):\n    pass\n") + ":Net")

    assert type(own.model).__name__ == "Net"


def test_a_relative_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MODEL)
    monkeypatch.chdir(tmp_path)

    assert load_function("mine.py:small", "--model").file == tmp_path / "mine.py"


def test_a_file_is_run_once_for_its_model_and_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They may share what the file defines, as a target that asks the model for more does."""
    file = write(tmp_path, "print('run')\ndef one():\n    return 1\ndef two():\n    return 2\n")

    load_function(f"{file}:one", "--model")
    load_function(f"{file}:two", "--target")

    assert capsys.readouterr().out == "run\n"


def test_an_edited_file_is_run_anew(tmp_path: Path) -> None:
    before = load_function(write(tmp_path, "def f():\n    return 1\n") + ":f", "--model")
    after = load_function(write(tmp_path, "def f():\n    return 2\n") + ":f", "--model")

    assert (before.function(), after.function()) == (1, 2)
    assert before.sha256 != after.sha256


def test_files_of_one_name_in_two_folders_do_not_meet(tmp_path: Path) -> None:
    texts = {"a": "def f():\n    return 1\n", "b": "def f():\n    return 2\n"}
    for folder in texts:
        (tmp_path / folder).mkdir()
    found = [load_function(write(tmp_path / folder, text) + ":f", "--model") for folder, text in texts.items()]

    assert [one.function() for one in found] == [1, 2]


def test_a_file_that_shadows_a_module_of_evalcam_replaces_nothing(tmp_path: Path) -> None:
    load_function(write(tmp_path, "def f():\n    pass\n", "torch.py") + ":f", "--model")

    assert sys.modules["torch"] is torch


def test_what_lies_beside_the_file_can_be_imported_and_nothing_is_written_there(tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 41\n", "lying_beside_mine.py")
    file = write(tmp_path, "def f():\n    import lying_beside_mine\n    return lying_beside_mine.VALUE\n")
    path, writes_none = list(sys.path), sys.dont_write_bytecode

    found = load_function(f"{file}:f", "--model")
    with found.blamed():
        value = found.function()

    assert value == 41
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lying_beside_mine.py", "mine.py"]
    assert (sys.path, sys.dont_write_bytecode) == (path, writes_none)
    del sys.modules["lying_beside_mine"]


@pytest.mark.parametrize(
    "reference", ["mine.py", "mine", "mine:small", "mine.py:", ":small", "torchvision.models:alexnet"]
)
def test_only_a_file_and_a_name_are_a_reference(reference: str) -> None:
    (line,) = refusal_of_model(reference)

    assert line.endswith("expected FILE.py:NAME, a Python file and a function in it")


def test_a_missing_file_is_named_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert refusal_of_model("mine.py:small") == [f"--model: there is no file {tmp_path / 'mine.py'}"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").mkdir()

    assert refusal_of_model(f"{tmp_path}/mine.py:small") == [f"--model: not a file {tmp_path / 'mine.py'}"]


def test_a_misspelt_function_gets_the_nearest_spelling(tmp_path: Path) -> None:
    file = write(tmp_path, MODEL)

    assert refusal_of_model(f"{file}:smal") == [f"--model: {file} has no function 'smal'; did you mean 'small'?"]


def test_functions_of_the_file_are_listed_when_none_is_near(tmp_path: Path) -> None:
    file = write(tmp_path, MODEL)

    assert refusal_of_model(f"{file}:vgg") == [f"--model: {file} has no function 'vgg'; it has small"]


def test_what_cannot_be_called_is_no_function(tmp_path: Path) -> None:
    (line,) = refusal_of_model(write(tmp_path, "model = 3\n") + ":model")

    assert "defines something else than a function as 'model'" in line


def test_an_error_while_the_file_runs_is_told_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "import math\n\nroot = math.sqrt(-1)\n")

    lines = refusal_of_model(f"{file}:f")

    assert lines[0] == f"--model {file}:f"
    assert lines[1].startswith("ValueError: ")
    assert lines[2:] == [f"at {file}, line 3", "    root = math.sqrt(-1)"]


def test_an_error_in_the_factory_is_told_with_its_line_and_function(tmp_path: Path) -> None:
    file = write(tmp_path, "def f():\n    return int('three')\n")

    assert refusal_of_model(f"{file}:f")[1:] == [
        "ValueError: invalid literal for int() with base 10: 'three'",
        f"at {file}, line 2, in f",
        "    return int('three')",
    ]


def test_an_error_beside_the_file_is_told_where_the_file_called_it(tmp_path: Path) -> None:
    write(tmp_path, "def g():\n    return {}['x']\n", "beside_that_fails.py")
    file = write(tmp_path, "from beside_that_fails import g\ndef f():\n    return g()\n")

    assert f"at {file}, line 3, in f" in refusal_of_model(f"{file}:f")
    del sys.modules["beside_that_fails"]


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "def f()\n    pass\n")

    assert refusal_of_model(f"{file}:f")[2:] == [f"at {file}, line 1", "    def f()"]


def test_a_missing_package_is_told(tmp_path: Path) -> None:
    lines = refusal_of_model(write(tmp_path, "import no_such_package_anywhere\n") + ":f")

    assert lines[1] == "ModuleNotFoundError: No module named 'no_such_package_anywhere'"


def test_a_program_that_exits_does_not_end_evalcam(tmp_path: Path) -> None:
    lines = refusal_of_model(write(tmp_path, "import sys\nsys.exit(7)\n") + ":f")

    assert "it ended the program (exit status 7)" in lines[1]


def test_a_long_message_is_cut_to_a_few_lines(tmp_path: Path) -> None:
    """Such as PyTorch's list of all weights that are missing."""
    lines = refusal_of_model(write(tmp_path, "def f():\n    raise ValueError('word\\n' * 50 + 'x' * 9999)\n") + ":f")

    assert lines[1:5] == ["ValueError: word", "word", "word", "… (48 more lines)"]


def test_control_characters_of_a_message_do_not_reach_the_terminal(tmp_path: Path) -> None:
    lines = refusal_of_model(write(tmp_path, "def f():\n    raise ValueError('\\x1b[31mred')\n") + ":f")

    assert lines[1] == "ValueError: \\x1b[31mred"


def test_a_file_that_failed_is_run_again(tmp_path: Path) -> None:
    """Nothing half loaded stays behind."""
    file = write(tmp_path, "import os\nassert 'OWN_CODE_MAY_RUN' in os.environ\ndef f():\n    pass\n")
    refusal_of_model(f"{file}:f")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWN_CODE_MAY_RUN", "1")
        found = load_function(f"{file}:f", "--model")

    assert found.name == "f"


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError"])
def test_what_is_not_the_files_fault_passes(tmp_path: Path, error: str) -> None:
    file = write(tmp_path, f"def f():\n    raise {error}\n")

    with pytest.raises((KeyboardInterrupt, MemoryError)):
        load_model(f"{file}:f")


def test_an_error_of_evalcam_passes_as_it_is(tmp_path: Path) -> None:
    text = "from evalcam_cli.errors import DataError\ndef f():\n    raise DataError('no weights here')\n"

    with pytest.raises(DataError, match=r"^no weights here$"):
        load_model(write(tmp_path, text) + ":f")


def test_a_factory_that_needs_arguments_is_refused_before_it_is_called(tmp_path: Path) -> None:
    file = write(tmp_path, "def f(classes, width=3, *rest, depth, **more):\n    raise RuntimeError\n")

    first, second = refusal_of_model(f"{file}:f")

    assert first == f"--model {file}:f needs classes, depth, but a factory is called without arguments;"
    assert second == "write a function without any that returns the model"


@pytest.mark.parametrize(
    ("value", "said"),
    [("None", "a NoneType"), ("{'weights': 1}", "a dict"), ("__import__('torch').ones(2)", "a tensor")],
)
def test_what_is_no_module_is_refused(tmp_path: Path, value: str, said: str) -> None:
    (line,) = refusal_of_model(write(tmp_path, f"def f():\n    return {value}\n") + ":f")

    assert f"returned {said}" in line
    assert line.endswith("instead of a torch.nn.Module")


def test_random_weights_follow_the_seed_and_leave_the_callers_random_state(tmp_path: Path) -> None:
    reference = write(tmp_path, MODEL) + ":small"
    state = torch.get_rng_state()

    digests = [load_model(reference, seed=seed).sha256 for seed in (0, 0, 1)]

    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_digest_of_a_model_sees_its_buffers_and_any_type_of_number(tmp_path: Path) -> None:
    text = (
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = nn.Parameter(torch.ones((), dtype=torch.bfloat16))\n"
        "        self.register_buffer('count', torch.tensor(%d))\n"
    )

    digests = {load_model(write(tmp_path, text % count) + ":Net").sha256 for count in (3, 4)}

    assert len(digests) == 2


def own(model: nn.Module, tmp_path: Path) -> OwnModel:
    source = load_function(write(tmp_path, "def f():\n    pass\n", "source.py") + ":f", "--model")
    return OwnModel(model, source, "")


class Pair(nn.Module):
    """Returns what a model of several heads does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(self.features(images).relu().mean(dim=(2, 3))), "size": torch.tensor(3)}


def test_an_output_that_is_not_logits_asks_for_a_target(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"returned a dict for 2 images instead of \(2, K\) logits"):
        count_outputs(own(Pair(), tmp_path), 16, CPU)


def test_any_output_will_do_with_a_target_of_one_or_more_scores(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "def one(output):\n    return output['logits'][:, 3]\ndef all_of_them(output):\n    return output['logits']\n",
    )
    model = own(Pair(), tmp_path)

    counts = [count_scores(model, load_target(f"{file}:{name}"), 16, CPU) for name in ("one", "all_of_them")]

    assert counts == [1, 5]


def test_a_target_gives_the_maps_of_the_class_that_it_picks(tmp_path: Path) -> None:
    """On the way of any scalar, without the closed form of logits."""
    model = load_model(write(tmp_path, MODEL) + ":small").model
    target = load_target(write(tmp_path, "def third(logits):\n    return logits[:, 3]\n", "target.py") + ":third")
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    result = layer_maps(model, [model[1]], images, target)["gradcam"]  # type: ignore[index]

    activations = model[1](model[0](images))  # type: ignore[index]
    expected = torch.einsum("c,nchw->nhw", model[4].weight[3], activations) / 256  # type: ignore[index]
    torch.testing.assert_close(result.maps[:, 0], expected.detach())
    torch.testing.assert_close(result.scores[:, 0], model(images)[:, 3].detach())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3.0", "returned a float instead of"),
        ("return output.argmax(dim=1)", "and type torch.int64 instead of"),
        ("return output.sum()", r"a tensor of shape \(\) and type torch.float32 instead of"),
        ("return output[:, :, None]", r"a tensor of shape \(2, 5, 1\)"),
        ("return output[:, :0]", r"a tensor of shape \(2, 0\)"),
        ("return output[:1, 0]", "returned scores for 1 image when it was given 2"),
        ("return output[:, 9]", "IndexError: "),
    ],
)
def test_a_target_of_something_else_is_refused(tmp_path: Path, body: str, said: str) -> None:
    target = load_target(write(tmp_path, f"def f(output):\n    {body}\n", "target.py") + ":f")
    model = load_model(write(tmp_path, MODEL) + ":small")

    with pytest.raises(UsageError, match=said):
        count_scores(model, target, 16, CPU)


@pytest.mark.parametrize("body", ["output.detach()", "output.softmax(1).detach()[:, 0]"])
def test_a_target_that_breaks_the_graph_is_refused_where_gradients_are_wanted(tmp_path: Path, body: str) -> None:
    target = load_target(write(tmp_path, f"def f(output):\n    return {body}\n", "target.py") + ":f")
    logits = torch.ones(2, 5)

    target(logits)  # a method without gradients may ask
    with pytest.raises(UsageError, match="leave out detach, numpy, argmax"):
        target(logits.requires_grad_())


def test_a_broken_graph_is_seen_behind_an_output_of_several_tensors(tmp_path: Path) -> None:
    file = write(tmp_path, "def f(output):\n    return output['logits'].detach()\n", "target.py")

    with pytest.raises(UsageError, match="by steps that can be differentiated"):
        load_target(f"{file}:f")({"logits": torch.ones(2, 5, requires_grad=True), "sizes": [3, (4,)]})


def test_a_model_that_fails_on_images_is_told_with_their_size(tmp_path: Path) -> None:
    text = "from torch import nn\ndef f():\n    return nn.Sequential(nn.Flatten(), nn.Linear(7, 2))\n"
    model = load_model(write(tmp_path, text) + ":f")

    with pytest.raises(UsageError, match="the model failed on 2 images of 16 x 16 pixels\nRuntimeError: mat1 and mat2"):
        count_outputs(model, 16, CPU)


def test_counting_outputs_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    count_outputs(own(model, tmp_path), 8, CPU)

    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
