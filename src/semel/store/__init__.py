"""Bytes and transactions: knows SQL, knows no meaning."""
