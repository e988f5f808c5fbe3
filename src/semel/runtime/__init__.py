"""Time and tasks: the only place that reads a clock, starts threads or awaits."""
