"""Gates as JUnit XML, which Jenkins, GitLab and most other CI systems show as tests."""

import xml.etree.ElementTree as ET  # only written with: nothing from outside is parsed
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.gates import GateResult
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.text import shown

CLASS_NAME = "evalcam.gate"


def junit_bytes(results: Sequence[GateResult], metrics: Metrics, suite_name: str, *, timestamp: str = "") -> bytes:
    """One test case per gate, and the metrics over all classes as properties of their suite.

    A gate that was missed is a failure, one on an undefined number an error. Elements and attributes are those of
    Jenkins' schema, https://github.com/jenkinsci/xunit-plugin (junit-10.xsd). Characters that XML 1.0 forbids (control
    characters, surrogates, U+FFFE) appear as visible escapes.

    Args:
        results: In the order shown; none make an empty suite.
        metrics: What the gates were held against.
        suite_name: Such as `evalcam test`.
        timestamp: ISO 8601; left away by default, so that the same results have the same bytes.
    """
    undefined = sum(result.value is None for result in results)
    counts = {
        "tests": str(len(results)),
        "failures": str(sum(not result.passed for result in results) - undefined),
        "errors": str(undefined),
    }
    root = ET.Element("testsuites", {"name": "evalcam", **counts})
    when = {"timestamp": shown(timestamp)} if timestamp else {}
    suite = ET.SubElement(root, "testsuite", {"name": shown(suite_name), **counts, "skipped": "0", **when})
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(metrics):
        ET.SubElement(properties, "property", {"name": shown(name), "value": shown(value)})
    for result in results:
        _add_case(suite, result)
    ET.indent(root, " ")
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def is_junit_file(path: Path) -> bool:
    """Whether a file is one that `junit_bytes` made, and so may be replaced by another."""
    try:
        with path.open("rb") as stream:
            return b'\n<testsuites name="evalcam" ' in stream.read(200)
    except OSError:
        return False


def _properties(metrics: Metrics) -> Iterator[tuple[str, str]]:
    yield ("n", str(metrics.n))
    yield ("classes", str(len(metrics.classes)))
    if metrics.positive is not None:
        yield ("positive", metrics.positive)
    for name, estimate in metrics.overall.items():
        yield (name, f"n/a: {estimate.undefined_reason}" if estimate.estimate is None else repr(estimate.estimate))
        if estimate.ci_low is not None and estimate.ci_high is not None:
            yield (f"{name}.ci_low", repr(estimate.ci_low))
            yield (f"{name}.ci_high", repr(estimate.ci_high))


def _add_case(suite: ET.Element, result: GateResult) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": CLASS_NAME, "name": shown(result.gate.demand)})
    found = shown(result.found) + _interval(result.estimate)
    if result.passed:
        ET.SubElement(case, "system-out").text = found
        return
    kind, why = ("error", "undefined") if result.value is None else ("failure", "gate")
    ET.SubElement(case, kind, {"type": why, "message": found}).text = shown(result.line)


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.estimate is None or estimate.ci_low is None or estimate.ci_high is None:
        return ""
    return f" [estimate {estimate.estimate:.4g}, 95 % interval {estimate.ci_low:.4g} to {estimate.ci_high:.4g}]"
