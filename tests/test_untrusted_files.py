"""Nothing in the package can run code out of a file, as read off its syntax tree.

The lint rules in `pyproject.toml` say the same where they apply; some are off for whole folders, and none looks at the
arguments that make a call safe.
"""

import ast
from collections.abc import Iterator, Mapping

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "evalcam_cli"
MODULES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
}
BETWEEN_PROCESSES = {"distributed.py", "workflows/round_process.py", "workflows/shared_maps.py"}
"""Where evalcam's own processes send each other values; nothing of it comes out of a file."""
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "jsonpickle"}


def calls(tree: ast.AST) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each call's dotted name, and its keyword arguments that are constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            constants = {
                word.arg: word.value.value
                for word in node.keywords
                if word.arg and isinstance(word.value, ast.Constant)
            }
            yield ast.unparse(node.func), constants


def test_what_torch_saved_is_unpickled_between_processes_only() -> None:
    found = [module for module, tree in MODULES.items() for name, _ in calls(tree) if name == "torch.load"]

    assert found == ["distributed.py"]


def test_downloads_are_read_as_weights_and_nothing_else() -> None:
    names = ("get_state_dict", "load_state_dict_from_url", "load_url", "get_model")
    found = [(module, words) for module, tree in MODULES.items() for name, words in calls(tree)
             if name.split(".")[-1] in names]  # fmt: skip

    assert found
    assert all(words.get("weights_only") is True and words.get("check_hash") is True for _, words in found)


def test_arrays_are_read_without_pickles() -> None:
    found = [(module, words.get("allow_pickle")) for module, tree in MODULES.items() for name, words in calls(tree)
             if name in ("np.load", "numpy.load")]  # fmt: skip

    assert found
    assert all(allowed is False for _, allowed in found)


def test_unpickling_modules_are_used_between_processes_only() -> None:
    found = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in UNPICKLING
    }

    assert found == BETWEEN_PROCESSES


@pytest.mark.parametrize(
    "names",
    [
        {"eval", "exec", "compile", "__import__"},
        {"yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"},
        {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"},
        {"torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "pandas.read_pickle"},
    ],
    ids=["evaluating", "YAML", "shells", "programs"],
)
def test_calls_that_run_what_they_are_given_are_not_there(names: set[str]) -> None:
    assert [(module, name) for module, tree in MODULES.items() for name, _ in calls(tree) if name in names] == []


def test_no_process_is_started_by_a_shell() -> None:
    assert not [module for module, tree in MODULES.items() for _, words in calls(tree) if words.get("shell")]
