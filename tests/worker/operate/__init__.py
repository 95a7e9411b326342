"""Tests of what the operator's verbs do."""
