"""How many small faults in the pure modules do their own tests see?

    python -m tests.benchmarks.mutants [--count 1000] [--seed 0] [--only PART] [--jobs 2] [--quick]

A mutant is a module with one thing changed: another comparison, operator, number or condition, a `return None`, a
`raise` or a call left out, an argument or the end of a slice dropped. All that can be made are counted, `--count` of
them drawn at random, and for each the tests of its module are run, in a process forked from one that has loaded the
libraries; that a test fails, or takes longer than it may, is what is wanted. Texts of messages are not changed, nor
what is there for the type checker, nor guards against the programmer's own mistakes, without which all that works goes
on as before: `strict=True` of a zip over what is of one length anyway, and `frozen=True` of a dataclass.

Prints the score by module, and each survivor with its name. What is known of a survivor stands in `mutants.csv`:
`equivalent` ones do the same as the original and do not count; `accepted` ones count as survivors. The exit code is 1
below 90 %, or where a survivor has no reason there.
"""

import argparse
import ast
import builtins
import copy
import csv
import functools
import importlib.abc
import importlib.machinery
import json
import multiprocessing
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
KNOWN = Path(__file__).with_suffix(".csv")
GOAL = 0.9
SECONDS = 120
"""Of processor time, after which a mutant's tests count as hanging."""
_WALL = 15 * SECONDS  # for those that wait

_METRICS = tuple(
    f"tests/evaluation/test_{name}.py"
    for name in ("names", "statistics", "degenerate", "metrics", "regression", "limits", "reference_values", "gates")
)
TESTS: Mapping[str, tuple[str, ...]] = {
    "config": (
        "tests/test_config_limits.py",
        "tests/test_config_ranges.py",
        "tests/test_readme.py",
        "tests/test_search_space.py",
        "tests/test_config.py",
    ),
    "strict_yaml": ("tests/test_strict_yaml_limits.py", "tests/test_strict_yaml.py", "tests/test_config.py"),
    "text": ("tests/test_text.py", "tests/test_documents.py"),
    "documents": ("tests/test_documents.py", "tests/test_text_formats.py"),
    "report/markup": ("tests/report/test_markup.py",),
    "data/splitting": ("tests/data/test_splitting_numbers.py", "tests/data/test_splitting.py"),
    "data/split_file": (
        "tests/data/test_split_file_limits.py",
        "tests/data/test_split_file.py",
        "tests/test_text_formats.py",
    ),
    "evaluation/metrics": _METRICS,
    "evaluation/counts": ("tests/evaluation/test_counts.py", *_METRICS),
    "evaluation/quantities": (
        "tests/evaluation/test_quantities.py",
        "tests/evaluation/test_gates.py",
        "tests/evaluation/test_comparison.py",
    ),
    "evaluation/auc": (
        "tests/evaluation/test_auc_numbers.py",
        "tests/evaluation/test_auc.py",
        "tests/evaluation/test_clustered.py",
    ),
    "evaluation/intervals": (
        "tests/evaluation/test_interval_numbers.py",
        "tests/evaluation/test_intervals.py",
        "tests/evaluation/test_clustered.py",
    ),
    "evaluation/statistics": ("tests/evaluation/test_statistics.py", *_METRICS),
}
"""Modules of evalcam_cli and the tests that must notice, the quickest first."""
_COMPARISONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
_OPERATORS: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.MatMult: ast.Mult,
}  # fmt: skip

Change = Callable[[Any], ast.AST | None]
"""From the (copied) node to what stands in its place; it may change the node itself. None: the statement is dropped."""


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    module: str
    place: int
    """Of the node in the order in which `ast.walk` meets them."""
    variant: int
    """Of the changes that `changes` makes of the node."""
    name: str
    """`module.function: before -> after`, and `#2` for the second of the same name."""
    line: int


def mutants_of(module: str) -> list[Mutant]:
    """All that can be made of a module of `TESTS`."""
    tree = parsed(module)
    seen: Counter[str] = Counter()
    found = []
    for place, (node, function) in enumerate(nodes(tree)):
        for variant, change in enumerate(changes(node)):
            after = change(copy.deepcopy(node))
            name = f"{module}.{function}: {_short(node)} -> {'nothing' if after is None else _short(after)}"
            seen[name] += 1
            name += f" #{seen[name]}" if seen[name] > 1 else ""
            found.append(Mutant(module, place, variant, name, getattr(node, "lineno", 0)))
    return found


def parsed(module: str) -> ast.Module:
    return ast.parse(_source(module))


@functools.cache
def _source(module: str) -> str:
    """As it was when it was first asked for: an edit in the meantime changes no mutant."""
    return (REPOSITORY / "evalcam_cli" / f"{module}.py").read_text(encoding="utf-8")


def mutated(mutant: Mutant) -> ast.Module:
    """The module with the change."""
    tree = parsed(mutant.module)
    node, _ = list(nodes(tree))[mutant.place]
    change = changes(node)[mutant.variant]
    after = change(node)
    if after is not node:
        _Replace(node, ast.Pass() if after is None else after).visit(tree)
    return ast.fix_missing_locations(tree)


class _Replace(ast.NodeTransformer):
    def __init__(self, before: ast.AST, after: ast.AST) -> None:
        self.before, self.after = before, after

    def visit(self, node: ast.AST) -> Any:
        return ast.copy_location(self.after, node) if node is self.before else super().visit(node)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 100 else f"{text[:70]}…{text[-29:]}"


def nodes(tree: ast.AST, function: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Every node that may be changed, with the name of the function or class that it is in.

    Left out are annotations, docstrings and other texts that stand alone, f-strings, what an exception says, imports,
    the block for the type checker, and `_GUARDS`.
    """
    for child in ast.iter_child_nodes(tree):
        if _is_left_out(child, tree):
            continue
        inner = function
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{function}.{child.name}" if function else child.name
        yield child, inner
        if not isinstance(child, ast.Raise):
            yield from nodes(child, inner)


def _is_left_out(child: ast.AST, parent: ast.AST) -> bool:
    if isinstance(parent, ast.FunctionDef | ast.AnnAssign | ast.arg):
        annotation = getattr(parent, "returns", None) or getattr(parent, "annotation", None)
        if child is annotation:
            return True
    if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
        return True
    if isinstance(parent, ast.Call) and isinstance(child, ast.keyword) and _is_guard(parent, child):
        return True
    if isinstance(parent, ast.Assign) and isinstance(child, ast.BinOp) and _is_type(child):
        return True
    alone = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
    return alone or isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.alias)


_GUARDS = ("zip(strict=True)", "dataclass(frozen=True)")


def _is_guard(call: ast.Call, keyword: ast.keyword) -> bool:
    return f"{ast.unparse(call.func)}({ast.unparse(keyword)})" in _GUARDS


def _is_type(node: ast.BinOp) -> bool:
    """Whether an alias of types, `A = B | C`, is being defined."""
    names = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
    return isinstance(node.op, ast.BitOr) and all(one.id[0].isupper() or one.id in dir(builtins) for one in names)


def changes(node: ast.AST) -> list[Change]:  # noqa: PLR0912 (a table)
    """What can be made of a node."""
    found: list[Change] = []
    match node:
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                found += [_setter(("ops", index), other()) for other in _COMPARISONS[type(op)]]
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            found.append(_setter(("op", None), _OPERATORS[type(op)]()))
        case ast.AugAssign(op=op):
            found += [_setter(("op", None), _OPERATORS[type(op)]()), lambda node: None]
        case ast.BoolOp(op=op):
            found.append(_setter(("op", None), ast.Or() if isinstance(op, ast.And) else ast.And()))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            found.append(lambda node: node.operand)
        case ast.Constant(value=value):
            found += [_constant(other) for other in _other_values(value)]
        case ast.If() | ast.IfExp() | ast.While():
            found += _conditions(endless=isinstance(node, ast.While))
        case ast.comprehension(ifs=ifs) if ifs:
            found.append(_setter(("ifs", 0), ast.Constant(True)))
        case ast.Return(value=value) if value is not None and not _is_none(value):
            found.append(_setter(("value", None), ast.Constant(None)))
        case ast.Raise() | ast.Expr(value=ast.Call()):
            found.append(lambda node: None)
        case ast.Continue():
            found.append(lambda node: ast.Break())
        case ast.Break():
            found.append(lambda node: ast.Continue())
        case ast.Slice(lower=lower, upper=upper):
            found += [_setter(("lower", None), None)] if lower is not None else []
            found += [_setter(("upper", None), None)] if upper is not None else []
    if isinstance(node, ast.Call):
        found += [
            _without_keyword(index)
            for index, one in enumerate(node.keywords)
            if one.arg is not None and not _is_guard(node, one)
        ]
    return found


def _setter(field: tuple[str, int | None], value: object) -> Change:
    def change(node: Any) -> ast.AST:
        name, index = field
        if index is None:
            setattr(node, name, value)
        else:
            getattr(node, name)[index] = value
        return node  # type: ignore[no-any-return]

    return change


def _conditions(*, endless: bool) -> list[Change]:
    negated = lambda node: _setter(("test", None), ast.UnaryOp(ast.Not(), node.test))(node)  # noqa: E731
    never = _setter(("test", None), ast.Constant(False))
    return [negated, never] if endless else [negated, never, _setter(("test", None), ast.Constant(True))]


def _constant(value: str | float) -> Change:
    return lambda node: ast.Constant(value)


def _other_values(value: object) -> list[str | float]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1]
    if isinstance(value, str) and value:
        return [""]
    return []


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _without_keyword(index: int) -> Change:
    def change(node: Any) -> ast.AST:
        del node.keywords[index]
        return node  # type: ignore[no-any-return]

    return change


# Running


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from the changed tree."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = f"evalcam_cli.{mutant.module.replace('/', '.')}"
        self.path = REPOSITORY / "evalcam_cli" / f"{mutant.module}.py"
        self.code = compile(mutated(mutant), str(self.path), "exec")

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path))
        spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)  # noqa: S102 (the module's own source but for the change)


def preload() -> None:
    """Import what the tests import, but nothing of evalcam."""
    for name in ("hypothesis", "pydantic", "pytest", "scipy.optimize", "scipy.stats", "sklearn.linear_model"):
        importlib.import_module(name)
    for name in ("sklearn.metrics", "statsmodels.stats.proportion", "yaml", "PIL.Image", "torch"):
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    assert not [name for name in sys.modules if name.split(".")[0] == "evalcam_cli"]


def _become(mutant: Mutant | None, tests: Sequence[str]) -> None:
    """Run the tests in this process, which ends with pytest's exit code."""
    import pytest

    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.chdir(REPOSITORY)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    if mutant is not None:
        sys.meta_path.insert(0, _Loader(mutant))
    options = [
        "-x",
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:cov",
        "--hypothesis-seed=0",
    ]
    os._exit(int(pytest.main([*options, *tests])))


def tested(mutant: Mutant | None, tests: Sequence[str]) -> str:
    """What the tests make of it: `killed` or `survived`."""
    process = multiprocessing.get_context("fork").Process(target=_become, args=(mutant, tests))
    process.start()
    process.join(_WALL)
    if process.is_alive():
        process.kill()
        process.join()
    return "survived" if process.exitcode == 0 else "killed"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mutation score of the pure modules.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="modules whose name holds this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="20 mutants")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    modules = [name for name in TESTS if options.only in name]
    everything = [mutant for module in modules for mutant in mutants_of(module)]
    count = min(20 if options.quick else options.count, len(everything))
    drawn = random.Random(options.seed).sample(everything, count)
    preload()
    for tests in dict.fromkeys(TESTS[mutant.module] for mutant in drawn):
        if tested(None, tests) != "survived":
            print(f"these tests fail without a mutant: {' '.join(tests)}", file=sys.stderr)
            return 2
    begun = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(lambda mutant: _told(mutant, tested(mutant, TESTS[mutant.module])), drawn))
    print(f"{len(drawn):,} of {len(everything):,} mutants in {time.monotonic() - begun:.0f} s")
    judged = dict(zip(drawn, verdicts, strict=True))
    if options.json:
        options.json.write_text(json.dumps(numbers(judged)))
    return summary(judged)


def _told(mutant: Mutant, verdict: str) -> str:
    if verdict == "survived":
        print(f"{verdict}: line {mutant.line}: {mutant.name}", flush=True)
    return verdict


def known_survivors() -> dict[str, tuple[str, str]]:
    """From a mutant's name to (`equivalent` or `accepted`, why)."""
    with KNOWN.open(encoding="utf-8", newline="") as stream:
        return {row["mutant"]: (row["verdict"], row["reason"]) for row in csv.DictReader(stream)}


def numbers(verdicts: Mapping[Mutant, str]) -> dict[str, Any]:
    """What came of the mutants; equivalent ones are not counted."""
    known = known_survivors()
    alive = [mutant.name for mutant, verdict in verdicts.items() if verdict == "survived"]
    equivalent = [name for name in alive if known.get(name, ("",))[0] == "equivalent"]
    killed, counted = len(verdicts) - len(alive), len(verdicts) - len(equivalent)
    return {
        "mutants": len(verdicts),
        "killed": killed,
        "counted": counted,
        "equivalent": len(equivalent),
        "score": killed / max(1, counted),
        "unexplained": [name for name in alive if name not in known],
    }


def summary(verdicts: Mapping[Mutant, str]) -> int:
    """Print the score by module and the survivors nobody has explained; the exit code."""
    known = known_survivors()
    alive = [mutant for mutant, verdict in verdicts.items() if verdict == "survived"]
    equivalent = {mutant for mutant in alive if known.get(mutant.name, ("",))[0] == "equivalent"}
    for module in [*dict.fromkeys(mutant.module for mutant in verdicts), ""]:
        counted = [mutant for mutant in verdicts if module in ("", mutant.module) and mutant not in equivalent]
        killed = sum(verdicts[mutant] != "survived" for mutant in counted)
        same = sum(module in ("", mutant.module) for mutant in equivalent)
        score = killed / max(1, len(counted))
        print(f"{module or 'all':24} {killed:5} of {len(counted):5} killed {score:7.1%}   {same:3} equivalent")
    unexplained = [mutant.name for mutant in alive if mutant.name not in known]
    print(f"{len(alive)} survived, {len(unexplained)} of them without a reason in {KNOWN.name}")
    return 0 if score >= GOAL and not unexplained else 1


if __name__ == "__main__":
    sys.exit(main())
