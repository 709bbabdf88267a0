"""Load on a model with Locust's own command line and web UI; the requests leave from Naiad's engine.

::

    locust -f loadtest/locustfile.py --host grpc://127.0.0.1:8001 --model digits
    locust -f loadtest/locustfile.py --host grpc://127.0.0.1:8001 --model digits --headless --users 64 --run-time 30s \
        --naiad-html report.html --naiad-slo "p99<20ms"
    locust -f loadtest/locustfile.py --master --expect-workers 2 --headless --users 64 --run-time 30s --model digits
    locust -f - --worker --master-host 10.0.0.1

Locust's users, shapes, workers and web UI work as they do elsewhere. ``naiad loadtest`` runs the same engine, finds out
when a run is steady and precise enough, and sweeps.
"""

from locust import events

from naiad.loadtest import TritonUser, add_options

add_options(events)


class ModelUser(TritonUser):
    """Keeps one request in flight to the model that ``--model`` names."""
