"""What the README cannot hold."""
