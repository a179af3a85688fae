"""What only a GPU needs."""
