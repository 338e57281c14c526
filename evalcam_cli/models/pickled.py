"""The plain values in a pickle, read by a machine that has nothing to call.

A pickle is a program for a stack machine. Of its instructions only those are known here that build plain data; the few
functions that a saved tensor names are mere labels, so there is nothing that a file could make run. All else, and all
that is larger than a training state needs, is a `ValueError` that says what the file asks for.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

MAX_OPCODES = 500_000
"""A ResNet-152 with the state of Adam and an average of its weights takes 100,000."""
MAX_VALUES = 1_000_000
"""Counted as if each reference were a copy, which is what a careless reader would make of it."""
MAX_DEPTH = 32
MAX_TEXT = 100_000
MAX_DIMENSIONS = 8
_MAX_NUMBER = 2**40
"""Of a tensor's offset, sides and strides."""

ITEM_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
"""Size of a number in each of torch's plain storages."""

_KNOWN = {
    "collections.OrderedDict",
    "collections.Counter",
    "torch.Size",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *(f"torch.{storage}" for storage in ITEM_BYTES),
}


@dataclass(frozen=True)
class Storage:
    """A row of numbers that the file keeps elsewhere."""

    key: str
    kind: str
    """One of `ITEM_BYTES`."""
    count: int


@dataclass(frozen=True)
class PlacedTensor:
    """Where the numbers of a tensor are; they fill their part of the storage without gaps."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Label:
    """A function or a class that the file names."""

    name: str


def read_pickle(stream: IO[bytes], storages: dict[str, Storage]) -> Any:
    """The value of the pickle that begins at the stream's position: numbers, texts, lists, tuples and dicts.

    Args:
        stream: Stands behind the pickle afterwards.
        storages: Takes the storages that the pickle names, by key.

    Raises:
        ValueError: It is damaged, too large, or asks for anything else.
    """
    machine = _Machine(storages)
    with warnings.catch_warnings(action="ignore"):  # of escapes in texts of protocol 0, which are refused
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number == MAX_OPCODES:
                raise ValueError(f"its structure takes more than {MAX_OPCODES:,} steps")
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
    return machine.result()


@dataclass
class _Machine:
    storages: dict[str, Storage]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(_VALUES[name](argument))
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it uses the instruction {name}, which no state dict needs")

    def result(self) -> Any:
        value = self.pop()
        if self.stack or self.marks:
            raise ValueError("its structure ends too early")
        _require_bounded(value)
        return value

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("its structure takes a value that is not there")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("its structure lacks a mark")
        position = self.marks.pop()
        values = self.stack[position:]
        del self.stack[position:]
        return values

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def extend(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise ValueError("it appends to what is no list")
        target.extend(values)

    def put_items(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is not dict or len(values) % 2:
            raise ValueError("it puts items into what is no dict")
        _put_all(target, zip(values[::2], values[1::2], strict=True))

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.put_items((key, value))

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError("its structure recalls what it never kept")
        self.stack.append(self.memo[index])

    def label(self, argument: str) -> None:
        name = argument.replace(" ", ".", 1)
        if name not in _KNOWN:
            raise ValueError(f"it asks for '{name}'")
        self.stack.append(_Label(name))

    def label_from_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.label(f"{module} {name}")

    def call(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Label) or function.name not in _BUILDERS or type(arguments) is not tuple:
            raise ValueError("it calls what is no function")
        self.stack.append(_BUILDERS[function.name](*_fitting(function.name, arguments)))

    def build(self, _: Any) -> None:
        self.pop()  # attributes such as a state dict's `_metadata`
        if type(self.top()) is not dict:
            raise ValueError("it sets attributes of what is no dict")

    def refer(self, _: Any) -> None:
        storage = _storage(self.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} is described in two ways")
        self.stack.append(storage)


def _whole_number(value: int) -> int:
    if value.bit_length() > 64:
        raise ValueError("it holds a number of more than 64 bits")
    return value


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise ValueError(f"it holds a text of {len(value):,} characters")
    return value


_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "BINFLOAT": float,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _whole_number),
    # Python 2 wrote names as byte strings
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"), _text),
}

_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.put_items(machine.since_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.remember),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": _Machine.label,
    "STACK_GLOBAL": _Machine.label_from_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.refer,
}


def _put_all(target: dict[Any, Any], items: Any) -> None:
    for key, value in items:
        if key is not None and not isinstance(key, str | int | float):
            raise ValueError("it holds a dict whose keys are neither texts nor numbers")
        if key in target:
            raise ValueError("it holds a dict with a key that is there twice")
        target[key] = value


def _storage(reference: Any) -> Storage:
    """The storage of torch's reference: `("storage", kind, key, location, count)`, with a None after it before 1.6."""
    if type(reference) is not tuple or not (len(reference) == 5 or (len(reference) == 6 and reference[5] is None)):
        raise ValueError("it refers to what is no plain storage")
    word, kind, key, location, count = reference[:5]
    name = kind.name.removeprefix("torch.") if isinstance(kind, _Label) else ""
    if word != "storage" or name not in ITEM_BYTES or not isinstance(key, str) or not isinstance(location, str):
        raise ValueError("it refers to what is no plain storage")
    return Storage(key, name, _side(count))


def _side(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_NUMBER:
        raise ValueError("a tensor's place is no whole number in range")
    return value


def _sides(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or len(values) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor has no shape of at most {MAX_DIMENSIONS} dimensions")
    return tuple(_side(value) for value in values)


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _: Any = False, hooks: Any = None, metadata: Any = None
) -> PlacedTensor:
    if not isinstance(storage, Storage) or hooks or metadata:
        raise ValueError("a tensor is no plain one")
    placed = PlacedTensor(storage, _side(offset), _sides(shape), _sides(stride))
    count = 1
    for side in placed.shape:
        count *= side
    if placed.offset + count > storage.count:
        raise ValueError("a tensor is larger than its storage")
    if count and not _is_dense(placed):
        raise ValueError("a tensor has gaps or repeats its numbers; save a `.clone()` of it")
    return placed


def _is_dense(placed: PlacedTensor) -> bool:
    """Whether the strides are those of a contiguous tensor, in any order of its dimensions."""
    if len(placed.shape) != len(placed.stride):
        return False
    expected = 1
    for stride, side in sorted(zip(placed.stride, placed.shape, strict=True)):
        if side > 1:
            if stride != expected:
                return False
            expected *= side
    return True


def _parameter(tensor: Any, _: Any, hooks: Any) -> PlacedTensor:
    if not isinstance(tensor, PlacedTensor) or hooks:
        raise ValueError("a parameter is no plain one")
    return tensor


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    """An OrderedDict: empty and filled later, or from `[[key, value], …]` as Python 2 wrote it."""
    if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("it holds an OrderedDict without items")
    filled: dict[Any, Any] = {}
    _put_all(filled, pairs)
    return filled


def _counter(counts: Any = None) -> dict[Any, Any]:
    if type(counts) is not dict:
        raise ValueError("it holds a Counter without counts")
    return dict(counts)


_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "torch.Size": _sides,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}

_ARGUMENTS = {
    "collections.OrderedDict": (0, 1),
    "collections.Counter": (1, 1),
    "torch.Size": (1, 1),
    "torch._utils._rebuild_tensor": (4, 4),
    "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_parameter": (3, 3),
}
"""The fewest and the most of each function."""


def _fitting(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    fewest, most = _ARGUMENTS[name]
    if not fewest <= len(arguments) <= most:
        raise ValueError(f"it calls {name} with {len(arguments)} arguments")
    if name == "collections.OrderedDict" and arguments and type(arguments[0]) is not list:
        raise ValueError("it holds an OrderedDict without items")
    return arguments


def _require_bounded(value: Any) -> None:
    """Refuse a value that is too deep, contains itself, or is too large when each reference counts as a copy."""
    measured: dict[int, tuple[int, int]] = {}  # by id: values inside, levels
    begun: set[int] = set()
    waiting = [(value, False)]
    while waiting:
        one, seen = waiting.pop()
        children = _children(one)
        if children is None or id(one) in measured:
            continue
        if seen:
            inside = [measured.get(id(child), (1, 0)) for child in children]
            size, depth = 1 + sum(count for count, _ in inside), 1 + max((levels for _, levels in inside), default=0)
            if size > MAX_VALUES or depth > MAX_DEPTH:
                raise ValueError(f"its structure is deeper than {MAX_DEPTH} levels or has over {MAX_VALUES:,} values")
            measured[id(one)] = (size, depth)
        elif id(one) in begun:
            raise ValueError("its structure contains itself")
        else:
            begun.add(id(one))
            waiting.append((one, True))
            waiting += [(child, False) for child in children]


def _children(value: Any) -> Sequence[Any] | None:
    if type(value) is dict:
        return list(value.values())
    return value if type(value) in (list, tuple) else None
