"""A Triton for tests: real gRPC on a real socket, models from Python functions, and everything that can go wrong.

::

    import numpy as np
    from naiad.client import Client
    from naiad.client.testing import FakeTriton

    def test_the_service_survives_a_server_that_is_away_for_a_moment():
        with FakeTriton({"double": lambda x: {"y": 2 * x}}) as fake, Client(fake.url) as triton:
            fake.fail(times=2, status="UNAVAILABLE")
            answer = triton.model("double", idempotent=True)(x=np.ones((1, 3), np.float32))
            assert answer["y"].tolist() == [[2, 2, 2]]
            assert [call.status for call in fake.calls()] == ["UNAVAILABLE", "UNAVAILABLE", "OK"]
"""

from naiad.client.testing._fake import FakeTriton as FakeTriton
from naiad.client.testing._faults import Fault as Fault
from naiad.client.testing._faults import Trouble as Trouble
from naiad.client.testing._line import Line as Line
from naiad.client.testing._listener import ServerTLS as ServerTLS
from naiad.client.testing._models import FakeModel as FakeModel
from naiad.client.testing._models import FakeSequence as FakeSequence
from naiad.client.testing._recorder import Recorder as Recorder
from naiad.client.testing._replay import Replay as Replay
from naiad.client.testing._requests import Request as Request
from naiad.client.testing._status import Refusal as Refusal
