"""What the pickles of a PyTorch file would make, found without making it: foreign classes and huge sizes are refused.

torch's own restricted unpickler reads the file afterwards. It calls nothing foreign, but what it may call can take any
memory (`bytearray(10**11)`, a tensor larger than its storage) and any time (tuples in tuples, as a key).
"""

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from compressor.errors import ModelError
from compressor.published.kinds import Kind

LEGACY_PICKLES = 5
"""The magic number, the protocol, the machine, the object, and the keys of the storages, which follow."""
MOST_STEPS = 500_000
"""Instructions of a pickle; a tensor takes 35."""
MOST_COST = 10**7
"""Objects that all tuples together may hold, counted as often as they are in one: hashing them takes as long."""
ALONE = "save model.state_dict() alone"

NAMED = re.compile(
    r"torch\.((storage\.)?\w+Storage|(bc|c|b)?(float|int|uint|quint|qint|omplex|complex|bits)\d\w*|bool)"
)
"""Storages and types that may be named; nothing calls them."""
ORDERED = ("collections.OrderedDict", "collections.Counter")
REBUILT = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
CALLED = (
    *ORDERED,
    *REBUILT,
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)
OTHER = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_meta_tensor_no_storage": "without numbers (meta)",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_wrapper_subclass": "of a class of their own",
    "torch._tensor._rebuild_from_type_v2": "of a class of their own",
}


@dataclass(slots=True)
class Item:
    """An object that unpickling would make: its value where that matters, and how many objects it holds."""

    value: Any = None
    cost: int = 1


@dataclass(frozen=True)
class Name:
    """A class or function by its full name."""

    text: str


@dataclass(frozen=True)
class Storage:
    """A storage of so many elements."""

    elements: int


ORDERED_DICT = Name("an ordered dict that was made")


@dataclass
class Machine:
    """A pickle's stack, marks and memo; `most` is the greatest number of elements that all storages may have."""

    most: int
    stack: list[Item] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Item] = field(default_factory=dict)
    storages: dict[str, int] = field(default_factory=dict)
    elements: int = 0
    cost: int = 0

    def push(self, value: Any = None, cost: int = 1) -> None:
        """Put an object on the stack."""
        self.stack.append(Item(value, cost))

    def pop(self, count: int) -> list[Item]:
        """Take the last objects off the stack."""
        first = len(self.stack) - count
        if first < (self.marks[-1] if self.marks else 0):
            raise IndexError
        taken = self.stack[first:]
        del self.stack[first:]
        return taken

    def pop_mark(self) -> list[Item]:
        """Take off the stack all that came after the last mark."""
        return self.pop(len(self.stack) - self.marks.pop())

    def add(self, items: list[Item]) -> None:
        """Put objects into the container that is on top."""
        cost = sum(item.cost for item in items)
        self.charge(cost)
        (container,) = self.pop(1)
        container.cost += cost
        self.stack.append(container)

    def charge(self, cost: int) -> None:
        """Count what may be hashed."""
        self.cost += cost
        if self.cost > MOST_COST:
            raise ModelError("holds objects in objects without end, as no state dict does")

    def tuple_of(self, items: list[Item]) -> None:
        """Put a tuple on the stack."""
        cost = 1 + sum(item.cost for item in items)
        if cost > MOST_COST:
            self.charge(cost)
        self.push(tuple(item.value for item in items), cost)


def check_pickles(data: bytes, kind: Kind, size: int) -> None:
    """Refuse pickles that name what is no tensor, or want more memory or time than a file of `size` bytes needs.

    Raises:
        ModelError: such a pickle, or one that is cut or changed.
    """
    file = io.BytesIO(data)
    try:
        for _ in range(LEGACY_PICKLES if kind is Kind.LEGACY else 1):
            machine = Machine(size)
            for count, (code, argument, _) in enumerate(pickletools.genops(file)):
                if count > MOST_STEPS:
                    raise ModelError(f"has more than {MOST_STEPS} pickle instructions; {ALONE}")
                _step(machine, code.name, argument)
    except ModelError as error:
        if b"_parameters" in data and b"_modules" in data:
            raise ModelError(f"{error}: it is a whole module, which would run code of its own") from None
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError):
        raise ModelError(f"holds more than plain tensors, or is cut; {ALONE}") from None


def _step(machine: Machine, name: str, argument: Any) -> None:
    if name in PUSHED:
        machine.push(argument)
    elif name in STEPS:
        STEPS[name](machine, argument)
    elif name not in ("PROTO", "STOP"):
        raise ModelError(f"holds more than plain tensors, or is cut ({name}); {ALONE}")


def _named(machine: Machine, argument: str) -> None:
    text = argument.replace(" ", ".", 1)
    if text in OTHER:
        raise ModelError(f"holds tensors that are {OTHER[text]}, not dense; save the float network's state_dict()")
    if text not in CALLED and not NAMED.fullmatch(text):
        raise ModelError(f"wants to load {_printable(text)}, which is no tensor; {ALONE}")
    machine.push(Name(text))


def _printable(text: str) -> str:
    return text if re.fullmatch(r"[\w.]{1,150}", text) else ascii(text[:150])


def _call(machine: Machine, _: None) -> None:
    function, arguments = machine.pop(2)
    machine.charge(arguments.cost)
    name = function.value.text if isinstance(function.value, Name) else ""
    if name not in CALLED or not isinstance(arguments.value, tuple):
        raise ModelError(f"wants to call {name or 'what is no function'}, as no state dict does; {ALONE}")
    if name in REBUILT:
        _check_tensor(*arguments.value[:4])
    machine.push(ORDERED_DICT if name in ORDERED else None, arguments.cost)


def _check_tensor(storage: Storage, offset: int, sizes: Any, strides: Any) -> None:
    """Refuse a tensor that reaches beyond its storage, which torch would enlarge, or repeats it."""
    numbers = [offset, *sizes, *strides]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(sizes) != len(strides):
        raise ValueError
    count, last = 1, offset
    for size, stride in zip(sizes, strides, strict=True):
        count *= size
        last += max(0, size - 1) * stride
    if count and (last >= storage.elements or count > storage.elements):
        raise ModelError(f"has a tensor of more numbers than its storage, {storage.elements}; it is changed or hostile")


def _stored(machine: Machine, _: None) -> None:
    kind, storage, key, _, elements, *view = machine.pop(1)[0].value
    numbers = [elements, view[0][2]] if view and view[0] else [elements]
    if kind != "storage" or not isinstance(storage, Name) or type(key) is not str:
        raise ValueError
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError
    machine.elements += max(0, elements - machine.storages.get(key, 0))
    machine.storages[key] = max(elements, machine.storages.get(key, 0))
    if machine.elements > machine.most:
        raise ModelError(
            "says that its tensors have more numbers than the file has bytes; it is cut, changed or hostile"
        )
    machine.push(Storage(numbers[-1]))


def _build(machine: Machine, _: None) -> None:
    machine.pop(1)
    if machine.stack[-1].value != ORDERED_DICT:
        raise ModelError(f"sets the inside of an object, as no state dict does; {ALONE}")


def _tuples(count: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.tuple_of(machine.pop(count))


def _adds(count: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.add(machine.pop(count))


PUSHED = frozenset(("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1", "NONE"))
PUSHED |= {"NEWFALSE", "NEWTRUE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}
STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "GLOBAL": _named,
    "REDUCE": _call,
    "BUILD": _build,
    "BINPERSID": _stored,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "EMPTY_TUPLE": _tuples(0),
    "TUPLE1": _tuples(1),
    "TUPLE2": _tuples(2),
    "TUPLE3": _tuples(3),
    "TUPLE": lambda machine, _: machine.tuple_of(machine.pop_mark()),
    "APPEND": _adds(1),
    "SETITEM": _adds(2),
    "APPENDS": lambda machine, _: machine.add(machine.pop_mark()),
    "SETITEMS": lambda machine, _: machine.add(machine.pop_mark()),
}
for _get in ("BINGET", "LONG_BINGET"):
    STEPS[_get] = lambda machine, at: machine.stack.append(machine.memo[at])
for _put in ("BINPUT", "LONG_BINPUT"):
    STEPS[_put] = lambda machine, at: machine.memo.__setitem__(at, machine.stack[-1])
"""What each instruction of a pickle does; those that torch's unpickler does not have are refused."""
