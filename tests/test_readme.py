"""The README says what the program does. `python -m tests.test_readme` writes its table of keys anew."""

import json
import re

from evalcam_cli.config import config_keys, default_of
from tests.conftest import REPOSITORY

README = REPOSITORY / "README.md"
_TABLE = re.compile(r"(<!-- keys -->\n).*?(<!-- end keys -->)", re.DOTALL)


def keys_table() -> str:
    """Every config key with its default and meaning, as Markdown."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for key, meaning in config_keys().items():
        default = json.dumps(default_of(key), default=list)
        escaped = " ".join(meaning.split()).replace("|", "\\|")
        rows.append(f"| `{key}` | `{default}` | {escaped} |")
    return "\n".join(rows) + "\n"


def test_every_config_key_is_explained_as_the_code_explains_it() -> None:
    found = _TABLE.search(README.read_text(encoding="utf-8"))

    assert found
    assert keys_table() in found[0], "run `python -m tests.test_readme`"


def test_every_command_and_config_file_is_named() -> None:
    text = README.read_text(encoding="utf-8")

    commands = (
        "split",
        "train",
        "evaluate",
        "gradcam",
        "predict",
        "run",
        "compare",
        "calibrate",
        "audit",
        "tune",
        "lr-find",
    )
    for command in commands:
        assert f"evalcam {command}" in text
    for config in (REPOSITORY / "configs").glob("*.yaml"):
        assert config.name in text


def test_the_readme_begins_with_two_command_lines() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)

    assert len(blocks) == 2
    assert all(block.count("\n") == 1 for block in blocks)
    assert "evalcam run configs/quickstart.yaml" in blocks[0]
    assert "pytest" in blocks[1]


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(_TABLE.sub(lambda match: match[1] + keys_table() + match[2], text), encoding="utf-8")
