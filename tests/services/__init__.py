"""Real services for tests, demos and measurements; nothing in here needs pytest."""
