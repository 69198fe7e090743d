"""What stops a training that goes wrong, with the likely cause."""
