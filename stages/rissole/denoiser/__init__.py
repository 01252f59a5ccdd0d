"""The denoiser of blocks: the process, the network, what a row tells it, training."""
