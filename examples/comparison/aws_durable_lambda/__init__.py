"""Payments with idempotency: a durable function and a durable actor, killed while they run."""
