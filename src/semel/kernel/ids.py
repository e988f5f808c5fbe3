"""How streams, operations, keys and effects are named.

Everything random is an argument. An operation id fits AWS's grammar `[A-Za-z0-9_-]{1,64}`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from semel.errors import ValidationError

OPERATION_ID_LENGTH_MAX: Final = 64
KEY_BYTES_MAX: Final = 255
NAME_BYTES_MAX: Final = 255
PINNED: Final = "!"  # how the version of a pinned execution ends: no version of code does
UID_ENTROPY_BYTES: Final = 10
_SEAL_BYTES: Final = 12
_TIME_MASK: Final = (1 << 48) - 1
_OPERATION_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PRINTABLE_ASCII: Final = re.compile(r"[\x20-\x7e]+")


def stream_uid(now_ms: int, entropy: bytes) -> str:
    """Name a stream: 32 hexadecimal digits, 48 bits of time (so that an index grows at its end), 80 random bits."""
    return f"{(now_ms & _TIME_MASK) << 80 | int.from_bytes(entropy[:UID_ENTROPY_BYTES], 'big'):032x}"


def operation_id(path: str) -> str:
    """Spell a lineage path within AWS's grammar: as it is, or its hash when it is too long."""
    if len(path) <= OPERATION_ID_LENGTH_MAX:
        return path
    return "h" + hashlib.blake2b(path.encode(), digest_size=31).hexdigest()


def patch_id(lineage: str, name: str) -> str:
    """Name the marker of a patch within a scope, apart from the operations, which end in a number."""
    path = f"{lineage}_p-{name}"
    return path if _OPERATION_ID.fullmatch(path) else operation_id(path + " " * OPERATION_ID_LENGTH_MAX)


def effect_key(journal_id: str, origin_uid: str, operation: str) -> str:
    """Name an effect for its provider: derived once, the same on every retry, replay, fork and reset."""
    seed = f"{journal_id}\0{origin_uid}\0{operation}".encode()
    return base64.b32encode(hashlib.blake2b(seed, digest_size=20).digest()).decode().lower()


def callback_id(journal_id: str, uid: str, operation: str) -> str:
    """Name a callback for the outside, in AWS's grammar. It cannot be made by who knows only the execution."""
    named = f"{uid}:{operation}".encode()
    return base64.b64encode(_seal(journal_id, named) + named).decode()


def read_callback_id(journal_id: str, text: object) -> tuple[str, str]:
    """The stream's uid and the operation of a callback. Raises ValidationError for another journal's id."""
    wrong = f"callback id {text!r:.80}: it is not one of this journal's; expected what `Callback.id` gave, unchanged"
    if not isinstance(text, str):
        raise ValidationError(wrong)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValidationError(wrong) from None
    seal, named = data[:_SEAL_BYTES], data[_SEAL_BYTES:]
    if not hmac.compare_digest(seal, _seal(journal_id, named)):
        raise ValidationError(wrong)
    uid, _, operation = named.decode().partition(":")
    return uid, operation


def _seal(journal_id: str, named: bytes) -> bytes:
    return hashlib.blake2b(named, key=journal_id.encode()[:64], digest_size=_SEAL_BYTES).digest()


def check_key(key: object) -> str:
    """Return the idempotency key, or raise ValidationError: 1 to 255 bytes of printable ASCII."""
    return _printable("idempotency key", key, KEY_BYTES_MAX)


def check_name(subject: str, name: object) -> str:
    """Return a name of a namespace, function or actor, or raise ValidationError: 1 to 255 printable ASCII."""
    return _printable(subject, name, NAME_BYTES_MAX)


def _printable(subject: str, text: object, length_max: int) -> str:
    expected = f"expected 1 to {length_max} bytes of printable ASCII; send one of that form"
    if not isinstance(text, str):
        raise ValidationError(f"{subject}: found {type(text).__name__}; {expected}")
    if text == "":
        raise ValidationError(f"{subject}: it is empty; {expected}")
    if len(text) > length_max:
        raise ValidationError(f"{subject} {text[:20]!r}…: it has {len(text)} characters; {expected}")
    if _PRINTABLE_ASCII.fullmatch(text) is None:
        raise ValidationError(f"{subject} {text!r}: it has a character outside printable ASCII; {expected}")
    return text
