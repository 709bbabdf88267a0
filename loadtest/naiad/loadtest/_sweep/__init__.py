"""Many runs that answer one question: how a server behaves as the load grows, and how much it can take."""
