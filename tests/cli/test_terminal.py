import pytest

from evalcam_cli.cli.terminal import write_json, write_json_list


@pytest.mark.parametrize(
    "values", [[], [{"a": 1.5, "b": "x\ny"}], [{"a": [1, {}], "é": None}, {"b": {}}], [[], "\u2028"]], ids=str
)
def test_a_list_printed_item_by_item_is_the_document_it_is_as_a_whole(
    capsys: pytest.CaptureFixture[str], values: list[object]
) -> None:
    write_json(values)
    whole = capsys.readouterr().out

    write_json_list(value for value in values)

    assert capsys.readouterr().out == whole
