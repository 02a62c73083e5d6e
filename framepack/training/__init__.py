"""Training: configuration, cached clips, the loss of one section, optimizers, and the loop that ties them together."""
