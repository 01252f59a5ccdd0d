"""What no distance sees: copies, seams, incoherence; and the cheats that show it."""
