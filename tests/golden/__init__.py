"""Fixtures of the authors' code, and what compares with them."""
