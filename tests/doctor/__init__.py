"""Tests of check.py doctor and check.py init, on real services."""
