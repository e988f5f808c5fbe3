"""Runnable examples of semel."""
