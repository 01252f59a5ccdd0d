"""What frozen networks see in images, and how far it is from what they see in true ones."""
