"""What an export starts from: a model, its samples, and the answers that it gives to them."""
