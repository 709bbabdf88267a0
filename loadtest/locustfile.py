"""Load on a model with Locust's own command line and web UI; the requests leave from Naiad's engine.

::

    locust -f loadtest/locustfile.py --host grpc://127.0.0.1:8001 --model digits
    locust -f loadtest/locustfile.py --host grpc://127.0.0.1:8001 --model digits --headless --users 64 --run-time 30s

Locust shows milliseconds and has no objectives; ``naiad loadtest`` runs the same engine, and measures and judges.
"""

from locust import events

from naiad.loadtest.user import TritonUser, add_options

add_options(events)


class ModelUser(TritonUser):
    """Keeps one request in flight to the model that ``--model`` names."""
