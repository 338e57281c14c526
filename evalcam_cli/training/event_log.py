"""The history of a run as TensorBoard reads it: one event file in the run folder, kept equal to `history.csv`.

An event file is a row of records, each an `Event` between its length and checksums: first the version of the format,
then the config, then one per epoch. TensorBoard keeps the file open and reads on at its end; so records are appended,
and the file is never replaced. The package `tensorboard` is imported here only, and only when it was asked for.
"""

import io
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evalcam_cli.documents import yaml_text
from evalcam_cli.errors import UsageError
from evalcam_cli.files import OutputFolder
from evalcam_cli.training.history import EpochRecord
from evalcam_cli.writing import write_error

EVENT_FILE = "tensorboard/events.out.tfevents.evalcam"  # TensorBoard looks for `tfevents` in the name


def require_tensorboard() -> None:
    """Find out before any training whether the package is there.

    Raises:
        UsageError: It is not.
    """
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(
            "train.logger tensorboard: the package is not installed; pip install 'evalcam[tensorboard]'"
        ) from error


def log_history(folder: OutputFolder, config: Mapping[str, Any], history: Sequence[EpochRecord]) -> None:
    """Make the event file of a run say what its history says: no epoch left out, none twice.

    Records that agree stay. At the first that does not (half a record of a killed process, an epoch that a continued
    run has trained again) the file is cut, and what is missing is appended in one piece.

    Args:
        folder: The run folder.
        config: The resolved config; it is logged as a text.
        history: All epochs so far. Each column of `history.csv` is a scalar by epoch, rounded to 32-bit floats; one
            that is None has no point.

    Raises:
        MachineError: The file cannot be written.
    """
    wanted = [_event({"file_version": "brain.Event:2"}), _config_event(config), *map(_epoch_event, history)]
    path = folder.claim(EVENT_FILE)
    try:
        content = path.read_bytes() if path.exists() else b""
        kept, size = _agreement(content, wanted)
        missing = wanted[kept:]
        if missing or size < len(content):
            with path.open("ab", buffering=0) as stream:
                stream.truncate(size)
                data = _encoded(missing)
                while data:  # a disk that is nearly full takes a part
                    data = data[stream.write(data) :]
    except OSError as error:
        raise write_error(path, error) from error


def _event(content: Mapping[str, Any]) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415

    return Event(**content)


def _config_event(config: Mapping[str, Any]) -> Any:
    text = yaml_text(config)
    markdown = "".join(f"    {line}\n" for line in text.splitlines())  # TensorBoard shows it as code, unchanged
    value = {
        "tag": "config",
        "metadata": {"plugin_data": {"plugin_name": "text"}},
        "tensor": {"dtype": "DT_STRING", "tensor_shape": {}, "string_val": [markdown.encode("utf-8", "replace")]},
    }
    return _event({"summary": {"value": [value]}})


def _epoch_event(record: EpochRecord) -> Any:
    scalars = asdict(record)
    epoch = scalars.pop("epoch")
    values = [{"tag": name, "simple_value": value} for name, value in scalars.items() if value is not None]
    return _event({"step": epoch, "summary": {"value": values}})


def _agreement(content: bytes, wanted: Sequence[Any]) -> tuple[int, int]:
    """How many events stand at the beginning of the file as they should, and how many bytes they take."""
    kept = size = 0
    for event, end in _events(content):
        if kept == len(wanted) or event != wanted[kept]:
            break
        kept, size = kept + 1, end
    return kept, size


def _events(content: bytes) -> Iterator[tuple[Any, int]]:
    """The events of a file but for their times, each with the position of its end; up to the first unreadable one."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415

    end = 0
    while end + 16 <= len(content):
        begin, (length,) = end, struct.unpack_from("<Q", content, end)
        end = begin + 16 + length  # 8 bytes of length, 4 of its checksum, the data, 4 of the data's checksum
        if end > len(content):
            return
        try:
            event = Event.FromString(content[begin + 12 : end - 4])
        except DecodeError:
            return
        event.ClearField("wall_time")
        yield event, end


def _encoded(events: Sequence[Any]) -> bytes:
    """The events as records of now."""
    from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for event in events:
        event.wall_time = time.time()
        writer.write(event.SerializeToString())
    return stream.getvalue()
