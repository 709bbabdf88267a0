"""What a repository is made of: its files, and the acts that change them."""
