"""A job, and what becomes of it: pure. No files, no clock, no foreign system."""
