"""`check.py report`: what is counted, what the page shows, and that a hostile history stays text in a real browser."""
