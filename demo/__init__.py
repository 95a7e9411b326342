"""The demo: a sample service, an installation on embedded parts, and one job end to end. Started by ./run_demo."""
