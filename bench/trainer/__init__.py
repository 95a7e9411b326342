"""The patchwise trainer against plain loops and bare Keras: see bench/README.md."""
