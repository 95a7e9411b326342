"""Tests of Batchferry; their folders mirror the code."""
