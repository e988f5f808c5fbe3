"""The places of the runtime's tests."""

from tests.runtime.conftest import place

__all__ = ["place"]
