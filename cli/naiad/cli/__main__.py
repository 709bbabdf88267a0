"""``python -m naiad.cli`` is ``naiad``."""

from naiad.cli.app import main

if __name__ == "__main__":
    main()
