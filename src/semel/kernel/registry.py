"""Classes by registered name: what a stored name means, and how an instance is taken apart and put back.

A name is the only thing a journal knows of a class; it is never an import path, and
nothing is imported because a stored byte says so. An instance is its fields: it is put
back without running `__init__` or `__post_init__`, so a value that was changed after it
was made comes back as it was. (A msgspec Struct cannot be made without its
`__post_init__`; the fields are set again after it ran.)
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, EnumMeta, Flag
from operator import attrgetter
from typing import Any, ClassVar, Final

import msgspec

from semel.errors import SerializationError, ValidationError

NAME_MAX: Final = 255

# A class that is also one of these would lose what it holds beside its fields.
_BUILTINS: Final = (str, int, float, complex, bytes, bytearray, list, dict, tuple, set, frozenset, BaseException)


class Entry(ABC):
    """One registered class. `state` takes an instance apart; `restore` puts it back."""

    kind: ClassVar[str]

    def __init__(self, name: str, cls: type, fields: Iterable[str]) -> None:
        self.name = name
        self.cls = cls
        self.fields = tuple(fields)
        self._expected = frozenset(self.fields)
        self._read = _reader(self.fields)

    def state(self, value: Any) -> dict[str, Any]:
        """The fields by name. Raises AttributeError when one is not set."""
        return dict(zip(self.fields, self._read(value), strict=True))

    def extras(self, _value: Any) -> list[Any] | None:
        """What an instance keeps beside its fields, if anything."""
        return None

    @abstractmethod
    def restore(self, state: Any, extras: Any) -> Any:
        """An instance with what `state` and `extras` gave, and defaults for fields it did not have."""

    def default(self, field: str) -> Any:
        """The default of a field that was not stored. Raises KeyError when it has none."""
        raise KeyError(field)

    def hints(self) -> list[object]:
        """What the fields are annotated with."""
        return annotations_of(self.cls, only=self.fields)

    def complete(self, state: dict[str, Any]) -> dict[str, Any]:
        """The stored fields and the defaults of those that the class has gained since."""
        if state.keys() == self._expected:
            return state
        unknown = state.keys() - self._expected
        if unknown:
            raise SerializationError(
                f"stored value of {self.name!r}: found the fields {sorted(map(repr, unknown))}, "
                f"expected only {list(self.fields)} of {describe_class(self.cls)}; "
                f"give the class these fields again, or convert what is stored"
            )
        complete = {}
        for field in self.fields:
            try:
                complete[field] = state[field] if field in state else self.default(field)
            except KeyError:
                raise SerializationError(
                    f"stored value of {self.name!r}: found no field {field!r}, expected one, because "
                    f"{describe_class(self.cls)} has no default for it; give the field a default"
                ) from None
        return complete


class DataclassEntry(Entry):
    kind = "dataclass"

    def __init__(self, name: str, cls: type) -> None:
        self._fields = {field.name: field for field in dataclasses.fields(cls)}
        super().__init__(name, cls, self._fields)

    def default(self, field: str) -> Any:
        declared = self._fields[field]
        if declared.default is not dataclasses.MISSING:
            return declared.default
        if declared.default_factory is not dataclasses.MISSING:
            return declared.default_factory()
        raise KeyError(field)

    def restore(self, state: Any, extras: Any) -> Any:
        del extras
        value: Any = object.__new__(self.cls)
        put = object.__setattr__
        for field, content in self.complete(state).items():
            put(value, field, content)
        return value


class StructEntry(Entry):
    kind = "Struct"

    def __init__(self, name: str, cls: type[msgspec.Struct]) -> None:
        self._fields = {field.name: field for field in msgspec.structs.fields(cls)}
        self._has_post_init = hasattr(cls, "__post_init__")
        super().__init__(name, cls, self._fields)

    def default(self, field: str) -> Any:
        declared = self._fields[field]
        if declared.default is not msgspec.NODEFAULT:
            return declared.default
        if declared.default_factory is not msgspec.NODEFAULT:
            return declared.default_factory()
        raise KeyError(field)

    def restore(self, state: Any, extras: Any) -> Any:
        del extras
        complete = self.complete(state)
        value = self.cls(**complete)
        if self._has_post_init:
            for field, content in complete.items():
                msgspec.structs.force_setattr(value, field, content)
        return value


class NamedTupleEntry(Entry):
    kind = "named tuple"

    def __init__(self, name: str, cls: Any) -> None:
        self._defaults: Mapping[str, Any] = cls._field_defaults
        super().__init__(name, cls, cls._fields)

    def state(self, value: Any) -> dict[str, Any]:
        return dict(zip(self.fields, tuple.__iter__(value), strict=True))

    def default(self, field: str) -> Any:
        return self._defaults[field]

    def restore(self, state: Any, extras: Any) -> Any:
        del extras
        complete = self.complete(state)
        return tuple.__new__(self.cls, [complete[field] for field in self.fields])


class ModelEntry(Entry):
    """A pydantic model: put back without validation, with its extra and private values and `model_fields_set`."""

    kind = "pydantic model"

    def __init__(self, name: str, cls: Any) -> None:
        self._fields = cls.model_fields
        super().__init__(name, cls, self._fields)

    def state(self, value: Any) -> dict[str, Any]:
        # Not by attribute: reading a deprecated field would warn. A cached property lies beside the fields.
        content = value.__dict__
        try:
            return {field: content[field] for field in self.fields}
        except KeyError as missing:
            raise AttributeError(f"field {missing} is not set") from None

    def extras(self, value: Any) -> list[Any] | None:
        return [
            sorted(value.__pydantic_fields_set__),
            value.__pydantic_extra__,
            value.__pydantic_private__,
        ]

    def hints(self) -> list[object]:
        # Resolved by pydantic, which knew the scope that the class was written in.
        return [declared.annotation for declared in self._fields.values()]

    def default(self, field: str) -> Any:
        declared = self._fields[field]
        if declared.is_required():
            raise KeyError(field)
        return declared.get_default(call_default_factory=True)

    def restore(self, state: Any, extras: Any) -> Any:
        fields_set, extra, private = extras
        cls: Any = self.cls
        value = cls.__new__(cls)
        value.__setstate__(
            {
                "__dict__": self.complete(state),
                "__pydantic_fields_set__": set(fields_set),
                "__pydantic_extra__": extra,
                "__pydantic_private__": private,
            }
        )
        return value


class EnumEntry(Entry):
    """A member is stored by its name, so that its value may change; a flag by its bits."""

    kind = "enum"

    def __init__(self, name: str, cls: type[Enum]) -> None:
        self._is_flag = issubclass(cls, Flag)
        super().__init__(name, cls, ())

    def state(self, value: Any) -> Any:
        return value.value if self._is_flag else value.name

    def restore(self, state: Any, extras: Any) -> Any:
        del extras
        cls: Any = self.cls
        try:
            return cls(state) if self._is_flag else cls[state]
        except (KeyError, ValueError):
            raise SerializationError(
                f"stored value of {self.name!r}: found the member {state!r}, "
                f"expected one of {list(cls.__members__)}; give {describe_class(cls)} this member again"
            ) from None


class Registry:
    """Classes by name and names by class. A class may have several names; it is stored under the last."""

    def __init__(self) -> None:
        self._by_name: dict[str, Entry] = {}
        self._by_class: dict[type, Entry] = {}
        self.of_class: Final = self._by_class.get
        self.of_name: Final = self._by_name.get

    def add(self, name: str, cls: type) -> None:
        """Register `cls`. A class made again from the same source takes the name over.

        Raises ValidationError when the name belongs to another class, or the class has no fields to keep.
        """
        if not (isinstance(name, str) and 0 < len(name) <= NAME_MAX and name.isprintable()):
            raise ValidationError(
                f"name of a value class: found {name!r}, expected 1 to {NAME_MAX} printable characters; "
                f'write @semel.value("name")'
            )
        make = _entry_type(cls)
        if make is None:
            raise ValidationError(
                f"value class {name!r}: found {cls!r}, expected a dataclass, msgspec Struct, pydantic model, enum or "
                f"named tuple; put @semel.value above the decorator that makes it one "
                f"(exception classes need no registration)"
            )
        present = self._by_name.get(name)
        if present is not None and present.cls is not cls:
            if (present.cls.__module__, present.cls.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValidationError(
                    f"value class {name!r}: found {describe_class(cls)}, expected {describe_class(present.cls)}, "
                    f'which has the name already; name one of them with @semel.value("another-name")'
                )
            # An instance of the class that is gone would come back as one of the new class: refuse it instead.
            self._by_class.pop(present.cls, None)
        entry = make(name, cls)
        self._by_name[name] = entry
        self._by_class[cls] = entry

    def add_found(self, hint: object) -> None:
        """Register every class that `hint` mentions, through its fields, under its qualified name."""
        pending, seen = [hint], set[int]()
        kept = []  # ids stay unique only while the object lives
        while pending:
            found = pending.pop()
            if id(found) in seen:
                continue
            seen.add(id(found))
            kept.append(found)
            if is_value_class(found):
                if found not in self._by_class:
                    self.add(found.__qualname__.replace(".<locals>", ""), found)
                pending.extend(self._by_class[found].hints())
            else:
                pending.extend(_parts(found))


def is_value_class(found: object) -> typing.TypeGuard[type]:
    """Whether `found` is a class that can be registered."""
    return isinstance(found, type) and _entry_type(found) is not None


def describe_class(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def annotations_of(owner: object, *, only: Iterable[str] | None = None) -> list[object]:
    """The annotations of a function or class, those of its bases included; what does not resolve is left out."""
    wanted = None if only is None else frozenset(only)
    owners = owner.__mro__ if isinstance(owner, type) else (inspect.unwrap(_plain(owner)),)
    found = []
    for source in owners:
        module = sys.modules.get(getattr(source, "__module__", None) or "")
        known = {**vars(module)} if module else {}
        known.update(getattr(source, "__globals__", {}))
        known.update({parameter.__name__: parameter for parameter in getattr(source, "__type_params__", ())})
        if isinstance(source, type):
            known.setdefault(source.__name__, source)
        for name, annotation in _own_annotations(source).items():
            if wanted is None or name in wanted:
                found.extend(_resolved(annotation, known))
    return found


def _resolved(annotation: object, known: dict[str, Any]) -> list[object]:
    holder = types.SimpleNamespace(__annotations__={"hint": annotation})
    try:
        hint = typing.get_type_hints(holder, globalns=known, localns={}, include_extras=True)["hint"]
    except Exception:
        # An annotation may name anything, and evaluating it may raise anything.
        return []
    return [] if typing.get_origin(hint) is ClassVar or hint is ClassVar else [hint]


def _own_annotations(source: object) -> dict[str, Any]:
    try:
        return inspect.get_annotations(typing.cast("Any", source))
    except Exception:
        return {}


def _plain(function: object) -> Any:
    while hasattr(function, "func") and not hasattr(function, "__annotations__"):
        function = function.func
    return getattr(function, "__func__", function)


def _parts(hint: object) -> list[object]:
    """What an annotation is made of: arguments, origin, alias, bounds, and the class of a literal member."""
    parts = [typing.get_origin(hint), *typing.get_args(hint)]
    parts.extend(getattr(hint, name, None) for name in ("__supertype__", "__bound__"))
    if type(hint).__name__ == "TypeAliasType":
        parts.append(getattr(hint, "__value__", None))
    if isinstance(hint, typing.TypeVar):
        parts.extend(hint.__constraints__)
    parts.extend([type(part) for part in parts if isinstance(part, Enum)])
    return [part for part in parts if part is not None]


def _reader(fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if not fields:
        return lambda _value: ()
    read: Callable[[Any], Any] = attrgetter(*fields)
    return read if len(fields) > 1 else lambda value: (read(value),)


def _entry_type(cls: Any) -> Callable[[str, Any], Entry] | None:
    if not isinstance(cls, type):
        return None
    if isinstance(cls, EnumMeta):
        return EnumEntry if cls.__members__ else None
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults"):
        return NamedTupleEntry
    if issubclass(cls, _BUILTINS):
        return None
    if issubclass(cls, msgspec.Struct):
        return StructEntry if cls is not msgspec.Struct else None
    if dataclasses.is_dataclass(cls):
        return DataclassEntry if "__dataclass_fields__" in cls.__dict__ else None
    if hasattr(cls, "model_fields") and hasattr(cls, "__pydantic_fields_set__"):
        return ModelEntry if not cls.__module__.startswith("pydantic.") else None
    return None


# The one mutable object at module level: a class decorator has nowhere else to put what it learns.
REGISTRY: Final = Registry()
