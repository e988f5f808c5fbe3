"""The rules: pure functions and values. No I/O, clock, tasks, threads or randomness."""
