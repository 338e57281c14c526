"""JUnit XML: what Jenkins accepts, what it says, and that no name breaks it."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.gates import GateResult, check_gates, parse_gate
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report.junit import junit_bytes

# Jenkins' junit-10.xsd: attributes (required ones with `!`) and children of the elements that evalcam writes.
STRUCTURE = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name!", "tests!", "failures!", "errors!", "group", "time", "skipped", "timestamp", "hostname", "id"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set[str](), {"property"}),
    "property": ({"name!", "value!"}, set[str]()),
    "testcase": (
        {"name!", "time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set[str]()),
    "error": ({"type", "message"}, set[str]()),
    "system-out": (set[str](), set[str]()),
}


def refuse_unlike_jenkins(element: ET.Element) -> None:
    attributes, children = STRUCTURE[element.tag]
    assert set(element.attrib) <= {name.rstrip("!") for name in attributes}, element.tag
    assert {name[:-1] for name in attributes if name.endswith("!")} <= set(element.attrib), element.tag
    for child in element:
        assert child.tag in children, f"{child.tag} in {element.tag}"
        refuse_unlike_jenkins(child)


def measured(classes: tuple[str, ...] = ("cat", "dog")) -> Metrics:
    logits = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 1, 0]]
    targets = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    return compute_metrics(Predictions(classes, logits, targets, ("",) * 8), bootstrap=100)


def results(metrics: Metrics) -> tuple[GateResult, ...]:
    passed = parse_gate("accuracy=0.8", "under")
    missed = parse_gate("recall[dog]=0.9", "under")
    undefined = parse_gate("ece.ci_low=0.5", "over")
    return check_gates([passed, missed, undefined], metrics)


def parsed(data: bytes) -> ET.Element:
    root = ET.fromstring(data)
    refuse_unlike_jenkins(root)
    return root


def test_a_gate_is_a_test_that_passed_failed_or_could_not_be_decided() -> None:
    metrics = measured()

    root = parsed(junit_bytes(results(metrics), metrics, "evalcam test"))

    (suite,) = root
    assert {name: suite.get(name) for name in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "evalcam test",
        "tests": "3",
        "failures": "1",
        "errors": "1",
        "skipped": "0",
    }
    passed, missed, undefined = suite.findall("testcase")
    assert (passed.get("classname"), passed.get("name")) == ("evalcam.gate", "accuracy >= 0.8")
    assert [child.tag for child in passed] == ["system-out"]
    failure, error = missed.find("failure"), undefined.find("error")
    assert failure is not None
    assert error is not None
    recall = metrics.per_class["dog"].estimates["recall"]
    interval = f"95 % interval {recall.ci_low:.4g} to {recall.ci_high:.4g}"
    assert failure.attrib == {"type": "gate", "message": f"0.75 [estimate 0.75, {interval}]"}
    assert failure.text == "FAILED: recall[dog] >= 0.9 (0.75)"
    assert error.get("type") == "undefined"
    assert str(error.get("message")).startswith("n/a: no interval")


def test_metrics_are_properties_in_full_precision_and_undefined_ones_say_why() -> None:
    metrics = measured()
    metrics = replace(metrics, overall=metrics.overall | {"mcc": Estimate(None, undefined_reason="one\nclass")})

    root = parsed(junit_bytes((), metrics, "s"))

    properties = {str(entry.get("name")): str(entry.get("value")) for entry in root.iter("property")}
    assert float(properties["accuracy"]) == 7 / 8
    assert float(properties["accuracy.ci_low"]) == metrics.overall["accuracy"].ci_low
    assert properties["mcc"] == "n/a: one\\nclass"
    assert "mcc.ci_low" not in properties
    assert (properties["n"], properties["positive"]) == ("8", "dog")


def test_without_gates_the_suite_is_empty_and_sound() -> None:
    root = parsed(junit_bytes((), measured(), "s"))

    assert root.find("testsuite/testcase") is None
    assert root.get("tests") == "0"


def test_the_same_results_have_the_same_bytes_and_a_time_only_when_given() -> None:
    metrics = measured()
    first, again = (junit_bytes(results(metrics), metrics, "s") for _ in range(2))

    assert first == again
    assert b"timestamp" not in first
    assert b'timestamp="2026-01-02T03:04:05Z"' in junit_bytes((), metrics, "s", timestamp="2026-01-02T03:04:05Z")


HOSTILE = ["a\x00b\x1b[2J", "]]>&<\"'", "\ud800", "\ufffe\uffff", "한글 é 🧠", "x\ty\r\nz", "--><!--"]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_that_xml_forbids_are_escaped_visibly(name: str) -> None:
    metrics = measured(("cat", name))
    gates = check_gates([parse_gate(f"recall[{name}]=0.9", "under")], metrics)

    data = junit_bytes(gates, metrics, name)

    root = parsed(data)
    case = root.find("testsuite/testcase")
    assert case is not None
    assert str(case.get("name")).isprintable()
    assert (name in str(case.get("name"))) is name.isprintable()


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(codec=None), min_size=1))
def test_any_text_makes_well_formed_xml(name: str) -> None:
    undefined = GateResult(parse_gate("accuracy=0.9", "under"), False, None, name, name)

    suite = parsed(junit_bytes([undefined], measured(("cat", "dog" + name)), name))

    assert suite.find(".//error") is not None
