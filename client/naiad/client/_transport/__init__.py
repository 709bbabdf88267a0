"""What moves the bytes: the seam, and what implements it."""
