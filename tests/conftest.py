"""Settings for every test."""

import signal

from hypothesis import settings

# A slow machine is not a failing test; pytest-timeout catches what hangs.
settings.register_profile("semel", deadline=None)
settings.load_profile("semel")

# A shell that starts the tests in the background has them ignore Ctrl-C, and programs they start
# inherit that: those that are interrupted on purpose would then go on for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
