"""Two subjects, interleaved pairs, three verdicts: what ``naiad gate`` does."""
