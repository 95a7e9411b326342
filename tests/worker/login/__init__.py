"""Tests of worker/login/."""
