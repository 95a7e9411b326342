"""Tests of worker/in_job/."""
