"""What is sent: samples, and the serialised requests made from them."""
