"""Names: keys are refused before anything is stored, ids fit AWS's grammar, effect keys never change."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.errors import ValidationError
from semel.kernel import ids

AWS_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
PATHS = st.lists(st.integers(1, 10**9).map(str), min_size=1, max_size=12).map("-".join)


@pytest.mark.parametrize("key", ["k", "order-123", " ", "~", "a" * 255, "'; drop table stream; --"])
def test_a_key_of_printable_ascii_is_kept_as_it_is(key: str) -> None:
    assert ids.check_key(key) == key
    assert ids.check_name("function", key) == key


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("", "it is empty"),
        ("a" * 256, "it has 256 characters"),
        ("a" * 100_000, "it has 100000 characters"),
        ("a\0b", "outside printable ASCII"),
        ("a\n", "outside printable ASCII"),
        ("\ttab", "outside printable ASCII"),
        ("\x7f", "outside printable ASCII"),
        ("schlüssel", "outside printable ASCII"),
        ("\N{FULLWIDTH DIGIT ONE}", "outside printable ASCII"),
        ("\ud800", "outside printable ASCII"),
        (b"bytes", "found bytes"),
        (7, "found int"),
        (None, "found NoneType"),
        (["k"], "found list"),
    ],
)
def test_any_other_key_is_refused_with_what_was_found_and_what_is_expected(key: object, found: str) -> None:
    for check in (ids.check_key, lambda name: ids.check_name("idempotency key", name)):
        with pytest.raises(ValidationError) as refusal:
            check(key)
        message = str(refusal.value)
        assert message.startswith("idempotency key")
        assert found in message
        assert "expected 1 to 255 bytes of printable ASCII" in message
        assert len(message) < 500


@given(PATHS)
def test_an_operation_id_fits_the_grammar_of_aws(path: str) -> None:
    name = ids.operation_id(path)
    assert AWS_ID.fullmatch(name)
    assert name == ids.operation_id(path)
    assert (name == path) == (len(path) <= 64)


@given(st.lists(PATHS, unique=True, max_size=50))
def test_different_paths_have_different_operation_ids(paths: list[str]) -> None:
    assert len({ids.operation_id(path) for path in paths}) == len(paths)


def test_a_hashed_id_is_no_path_of_another_operation() -> None:
    hashed = ids.operation_id("1-" * 40 + "1")
    assert len(hashed) == 63
    assert not hashed[0].isdigit()
    assert not hashed.startswith("m")


@given(st.integers(0, 2**48 - 2), st.integers(1, 10**6), st.binary(min_size=10, max_size=10), st.binary(min_size=10))
def test_stream_uids_sort_by_time(now_ms: int, later_ms: int, one: bytes, other: bytes) -> None:
    first = ids.stream_uid(now_ms, one)
    second = ids.stream_uid(min(now_ms + later_ms, 2**48 - 1), other)
    assert first < second
    assert re.fullmatch(r"[0-9a-f]{32}", first)


@given(st.sets(st.binary(min_size=10, max_size=10), max_size=50))
def test_stream_uids_of_one_millisecond_differ_by_all_80_random_bits(entropies: set[bytes]) -> None:
    assert len({ids.stream_uid(1_700_000_000_000, entropy) for entropy in entropies}) == len(entropies)


def test_what_a_uid_and_a_hashed_id_look_like_never_changes() -> None:
    assert ids.stream_uid(1_700_000_000_000, bytes(range(10))) == "018bcfe5680000010203040506070809"
    assert ids.operation_id("1-" * 40) == "hb3e2cda7b8581cc57e8ce4e208fc1eabdd4d7d232a677a72bef28728925588"


def test_an_effect_key_never_changes() -> None:
    assert ids.effect_key("journal", "01hf7yat00", "1-2_7") == "ndhmteyhtskxcbm7ikeyq6mtnvde35ng"


@given(st.tuples(*[st.text("ab0", max_size=4)] * 3), st.tuples(*[st.text("ab0", max_size=4)] * 3))
def test_an_effect_key_names_one_operation_of_one_stream_of_one_journal(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (ids.effect_key(*one) == ids.effect_key(*other)) == (one == other)
    assert re.fullmatch(r"[a-z2-7]{32}", ids.effect_key(*one))
