"""One file for each backbone: how the host calls it. Found by the backbone's key; `CONFIG` and `latent_format`."""
