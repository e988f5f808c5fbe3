"""What semel costs, beside a floor without features and the disk itself: `python -m benchmarks`."""
