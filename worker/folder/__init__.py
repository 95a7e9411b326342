"""The jobs folder: every file in it, and every durable write."""
