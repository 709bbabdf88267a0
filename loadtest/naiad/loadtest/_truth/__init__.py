"""What a run says about the server: the window, its figures, how sure they are, and whether they are valid."""
