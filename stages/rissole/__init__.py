"""RISSOLE, block by block. A package here imports those above it in this list, and no other.

- `harness`: command line, errors, progress, locks, signals, checkpoints; changes no number.
- `core`: settings, files, numerics, processes, optimizer; what can change a number of any stage.
- `dataset`: where images come from; decoding, cropping, shards; each through a network once.
- `pretrained`: networks that others trained.
- `first_stage`: the VQ-GAN and its training.
- `latent`: codes and codebook; pictures in their place; embeddings; cutting into blocks.
- `retrieval`: what is looked up by, search, who may be a neighbour, how good they are.
- `denoiser`: the diffusion process, the networks, what a row tells and shows them; training.
- `drawing`: the reverse process over all blocks; any batch of a row anew.
- `speed`: the algorithm as the paper writes it, to be measured against; a clock.
- `judging`: frozen networks, what they see, and what is compared with true images.
- `auditing`: what no distance sees: copies, seams, incoherence; the cheats that show it.
- `results`: what was measured, what is asserted about it, tables, pages, publications.
- `report`: the page one looks at: samples and where they come from, plots, the pipeline.
- `export`: a row's model as a folder to take away, and what draws with it there.

Letters of tensor shapes: b images, n blocks of an image in reading order, k neighbours, c latent
channels, h w sides of a latent or of a block, d width of a feature or query vector.
"""

import os

# Threads of one operation (OpenMP's) spin this often while they wait for each other before they
# sleep: a thirtieth of the default, which costs a twentieth at most on idle cores, and beside other
# work saves a third.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when torch is loaded
