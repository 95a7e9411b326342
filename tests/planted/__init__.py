"""Bugs on purpose: what finds bugs is itself shown to find them."""
