"""The one pickle that torch.save writes for a dict of tensors, read without running anything.

A stack machine of our own for the opcodes of protocol 2 that such a pickle holds; whatever else appears is refused.
Python's Unpickler is not used: even with a closed find_class a crafted memo index or length makes it allocate
gigabytes. A name imported by the pickle is looked up in a closed list and becomes a marker, never an object.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swarm.errors import CorruptRelease
from swarm.release.outside import REFETCH, show

MAX_PICKLE_BYTES = 4 << 20
MAX_OPCODES = 500_000  # a tensor takes about 40; 8x22B has 1,739 tensors

_STORAGES = {"BFloat16Storage": "bf16", "HalfStorage": "fp16", "FloatStorage": "fp32"}


@dataclass(frozen=True, slots=True)
class Storage:
    """A zip entry data/<key> of n_values values."""

    key: str
    dtype: str
    n_values: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A view into a storage. offset and stride in values, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Named:
    """Something that the pickle imports, as a word of our own: 'tensor', 'dict' or a storage's dtype."""

    meaning: str


class _Mark:
    """The stack's MARK."""


def read_tensor_dict(data: bytes, file: str) -> dict[str, PickledTensor]:
    """The tensors that data.pkl names. Entries of the dict that are not tensors are left out.

    Raises: CorruptRelease for any other opcode, import or shape of data than a dict of tensors needs.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise CorruptRelease(f"{file}: its pickle of {len(data)} bytes is larger than {MAX_PICKLE_BYTES}; {REFETCH}")
    try:
        value = _Machine(data).run()
    except _Refused as error:
        raise CorruptRelease(
            f"{file}: its pickle {error}; only a dict of plain tensors, saved by torch.save, is read. Nothing in it ran"
        ) from None
    if not isinstance(value, dict):
        raise CorruptRelease(f"{file}: its pickle is not a dict of tensors; {REFETCH}")
    return {name: tensor for name, tensor in value.items() if isinstance(tensor, PickledTensor)}


class _Refused(Exception):
    pass


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if self.take(2) != _PROTOCOL_2:
            raise _Refused("is not of protocol 2, which torch writes")
        for _ in range(MAX_OPCODES):
            opcode = self.take(1)[0]
            if opcode == _STOP:
                return self.pop()
            action = _ACTIONS.get(opcode)
            if action is None:
                raise _Refused(f"holds the opcode {bytes((opcode,))!r}")
            action(self)
        raise _Refused(f"has more than {MAX_OPCODES} opcodes")

    def take(self, n_bytes: int) -> bytes:
        taken = self.data[self.at : self.at + n_bytes]
        if len(taken) != n_bytes:
            raise _Refused("ends early")
        self.at += n_bytes
        return taken

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 256)
        if end < 0:
            raise _Refused("imports a name without an end")
        return self.take(end + 1 - self.at)[:-1].decode("utf-8", "backslashreplace")

    def text(self) -> str:
        try:
            return self.take(self.number("<I")).decode("utf-8")
        except UnicodeDecodeError:
            raise _Refused("holds text that is not UTF-8") from None

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _Mark:
            raise _Refused("takes more than it has put down")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _Mark:
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise _Refused("closes what it has not opened")

    def put(self, memo_idx: int) -> None:
        value = self.pop()
        self.memo[memo_idx] = value
        self.push(value)

    def get(self, memo_idx: int) -> None:
        if memo_idx not in self.memo:
            raise _Refused("repeats what it has not said")
        self.push(self.memo[memo_idx])

    def tuple_of(self, n_values: int) -> None:
        values = [self.pop() for _ in range(n_values)]
        self.push(tuple(reversed(values)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.pop()
        if not isinstance(target, dict) or len(pairs) % 2:
            raise _Refused("sets items of what is not a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise _Refused(f"has {show(key) if isinstance(key, str) else 'something else'} twice or not as a name")
            target[key] = value
        self.push(target)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def import_name(self) -> None:
        module, name = self.line(), self.line()
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            self.push(_Named("tensor"))
        elif (module, name) == ("collections", "OrderedDict"):
            self.push(_Named("dict"))
        elif module == "torch" and name in _STORAGES:
            self.push(_Named(_STORAGES[name]))
        else:
            raise _Refused(f"imports {show(f'{module}.{name}')}")

    def persistent_id(self) -> None:
        match self.pop():
            case ("storage", _Named(dtype), str(key), str(), int(n_values)) if dtype in _STORAGES.values():
                if not key.isascii() or not key.isalnum() or len(key) > 32 or n_values < 0:
                    raise _Refused(f"names a storage {show(key)} of {show(n_values)} values")
                self.push(Storage(key, dtype, n_values))
            case _:
                raise _Refused("refers to something that is not a storage of BF16, F16 or F32 values")

    def reduce(self) -> None:
        arguments, target = self.pop(), self.pop()
        match target, arguments:
            case _Named("dict"), ():
                self.push({})
            case _Named("tensor"), (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
                if not 1 <= len(arguments) - 3 <= 4 or not _are_counts((offset, *shape)) or not _are_counts(stride):
                    raise _Refused("builds a tensor of an impossible shape")
                self.push(PickledTensor(storage, offset, shape, stride))
            case _:
                raise _Refused("calls something")

    def build(self) -> None:
        """A state dict's _metadata, set as an attribute: dropped."""
        self.pop()
        if not isinstance(self.stack[-1] if self.stack else None, dict):
            raise _Refused("sets the state of what is not a dict")


def _are_counts(values: tuple[Any, ...]) -> bool:
    return len(values) <= 9 and all(type(v) is int and 0 <= v < 1 << 48 for v in values)


def _long(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.take(1)[0]), "little", signed=True))


_PROTOCOL_2 = b"\x80\x02"
_STOP = ord(".")
_ACTIONS: dict[int, Callable[[_Machine], None]] = {
    ord("("): lambda m: m.push(_Mark),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    ord("J"): lambda m: m.push(m.number("<i")),
    0x8A: _long,
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("X"): lambda m: m.push(m.text()),
    ord("q"): lambda m: m.put(m.number("<B")),
    ord("r"): lambda m: m.put(m.number("<I")),
    ord("h"): lambda m: m.get(m.number("<B")),
    ord("j"): lambda m: m.get(m.number("<I")),
    ord("}"): lambda m: m.push({}),
    ord("]"): lambda m: m.push([]),
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),
    ord("s"): _Machine.set_item,
    ord("u"): lambda m: m.set_items(m.pop_to_mark()),
    ord("c"): _Machine.import_name,
    ord("Q"): _Machine.persistent_id,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
