"""Drawing images: the reverse process over all blocks, and any batch of a row anew."""
