"""Settings for every test."""

from hypothesis import settings

# A slow machine is not a failing test; pytest-timeout catches what hangs.
settings.register_profile("semel", deadline=None)
settings.load_profile("semel")
