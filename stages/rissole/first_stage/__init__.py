"""The VQ-GAN, which turns images into latents and back."""
