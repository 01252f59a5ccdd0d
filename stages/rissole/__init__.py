"""RISSOLE, block by block. Imports run downwards only, from the last floor to the first.

- Ground: `errors`, `schema`, `config`, `files`, `runtime`, `blocks`.
- One idea each: `sources`, `images`, `quantiser`, `vqgan`, `vqgan_loss`, `latents`, `retrieval`,
  `diffusion`, `unet`, `conditioning`, `judges`, `scores`.
- Ideas put together: `denoiser`, `vqgan_training`, `ldm_training`, `sampling`, `tables`.

Letters of tensor shapes: b images, n blocks of an image in reading order, k neighbours, c latent
channels, h w sides of a latent or of a block, d width of a feature or query vector.
"""
