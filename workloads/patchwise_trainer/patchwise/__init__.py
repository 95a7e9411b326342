"""The patchwise trainer, by place: job, pages, sampling (no Keras), then network, training, overlay, report."""
