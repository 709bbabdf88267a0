"""A served model as an object: requests are checked against its metadata before a byte is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from naiad.client._model import many
from naiad.client._model.batched import Batched
from naiad.client._model.flow import Wish
from naiad.client._model.handle import Description, Handle
from naiad.client._model.sequences import Sequence, SequenceOptions
from naiad.client._model.streams import Stream
from naiad.client._protocol.operations import Operation
from naiad.client._protocol.request import NO_OPTIONS, InferKeywords, InferOptions, Inputs, options_of
from naiad.client.config import ModelConfig
from naiad.client.errors import InvalidInput, ModelNotFound
from naiad.client.metadata import ModelMetadata
from naiad.client.options import NOT_GIVEN, NotGiven
from naiad.client.result import Result

if TYPE_CHECKING:
    from naiad.client._calling.call import Call
    from naiad.client._client import Client

T = TypeVar("T")


class Model(Handle):
    """A model on a server, made by :meth:`Client.model`.

    Metadata and configuration are fetched at the first use and kept. They are fetched again when the server refuses a
    request, when another version answers, and before a request is refused here because of a description older than
    a second: a model that was replaced by another is noticed.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        version: str | None,
        *,
        idempotent: bool = False,
        cast: Literal["safe"] | None = None,
    ) -> None:
        super().__init__(name, version, idempotent=idempotent, cast=cast, total_s=client._settings.timeout.total_s)
        self._client = client

    def __call__(self, **inputs: Any) -> Result:
        """Infer with the inputs as keyword arguments: ``model(x=batch)["y"]``. See :meth:`infer`."""
        return self._infer(inputs, NO_OPTIONS, NOT_GIVEN)

    def infer(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Result:
        """Check the inputs, send them, return the outputs.

        Values are arrays, anything with DLPack (torch tensors; with ``cuda_memory``, on a GPU too), or Python numbers,
        strings and lists, which take the model's data type. The type of an array is never changed silently;
        ``cast="safe"`` converts where NumPy's rule of that name says that no value is lost.

        Keywords: ``outputs`` (names or :class:`Output`; all by default), ``out`` (arrays or tensors of the caller's
        that receive outputs in place, by name), ``outputs_on`` (``"cuda"`` leaves outputs on a GPU, for
        :attr:`Result.cuda`), ``cast``, ``request_id``, ``priority`` (1 is the highest),
        ``sequence_id`` with ``sequence_start`` and ``sequence_end``, ``parameters`` (passed to the model).

        Raises:
            InvalidInput: an input has a wrong name, type or shape; nothing was sent.
            ClientError: see :mod:`naiad.client.errors`.
        """
        return self._infer(inputs, options_of(keywords), timeout_s)

    def submit(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Call[Result]:
        """Send a request without waiting: ``call.result()`` waits, ``call.cancel()`` ends it on the server too.

        The arguments and errors are those of :meth:`infer`; wrong inputs are refused here, the rest in ``result()``.
        """
        _, operation = self._prepare(inputs, options_of(keywords), timeout_s)
        return self._client._start(operation, timeout_s)

    def stream(self, **inputs: Any) -> Stream:
        """Iterate over the parts of one answer: ``for part in model.stream(prompt="hi")``. See :meth:`stream_infer`."""
        return Stream(self, Wish(inputs=inputs, options=NO_OPTIONS, timeout_s=NOT_GIVEN, idle_timeout_s=None))

    def stream_infer(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | NotGiven = NOT_GIVEN,
        idle_timeout_s: float | None = None,
        **keywords: Unpack[InferKeywords],
    ) -> Stream:
        """Iterate over the parts of one answer: of a decoupled model any number, of others the one.

        The keywords are those of :meth:`infer` without ``out``; ``timeout_s`` limits the whole stream
        (``Timeout.stream_s`` by default), ``idle_timeout_s`` the wait for each part. The request is checked and sent
        when the first part is asked for; :class:`Stream` says what may be raised, and how to leave.
        """
        options = options_of(keywords)
        return Stream(self, Wish(inputs=inputs, options=options, timeout_s=timeout_s, idle_timeout_s=idle_timeout_s))

    @overload
    def infer_many(
        self,
        inputs: Inputs,
        *,
        inflight: int = 4,
        rows: int | None = None,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Result: ...

    @overload
    def infer_many(
        self,
        inputs: Iterable[Inputs],
        *,
        inflight: int = 4,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Iterator[Result]: ...

    def infer_many(
        self,
        inputs: Inputs | Iterable[Inputs],
        *,
        inflight: int = 4,
        rows: int | None = None,
        timeout_s: float | NotGiven = NOT_GIVEN,
        **keywords: Unpack[InferKeywords],
    ) -> Result | Iterator[Result]:
        """Infer with more rows than fit a request, or with many requests, ``inflight`` of them at once.

        *Arrays by name*, with any number of rows: they are sent in requests of ``rows`` rows (at most, and by default,
        the model's ``max_batch_size``), and the outputs of all come back as one. ``timeout_s`` is for all of it. The
        first failure cancels the rest and is raised; ``error.rows`` says which rows it is about.

        *Any other iterable*, of inputs as :meth:`infer` takes them: the answers are yielded in their order. Requests
        are taken and sent as answers are asked for, at most ``inflight`` ahead of them; ``timeout_s`` is for each. A
        failure is raised when its turn comes and ends the iteration.

        The keywords are those of :meth:`infer`; ``out`` has the rows of all.

        Raises:
            InvalidInput: an input has a wrong name, type or shape, or the model has no batch dimension to divide along.
            InvalidResponse: the parts' outputs do not make one array.
            ClientError: see :mod:`naiad.client.errors`.
        """
        many.check(inflight, rows, keywords, divided=isinstance(inputs, Mapping))
        if not isinstance(inputs, Mapping):
            return many.infer_each(self, inputs, inflight=inflight, timeout_s=timeout_s, keywords=keywords)
        limit_s = self._limit_s(timeout_s)
        division = self._with_description(
            lambda description: many.Division(description, inputs, keywords, rows=rows, limit_s=limit_s)
        )
        return many.infer_rows(self, division, inflight)

    def batched(
        self, *, max_rows: int | None = None, max_wait_s: float = 0.0, inflight: int = 2, max_waiting: int = 10_000
    ) -> Batched:
        """Return this model for many concurrent callers, whose requests are sent joined: far more of them a second.

        A request leaves at once while fewer than ``inflight`` are under way; those that come meanwhile leave together.
        ``max_wait_s`` lets the first one wait for others even then. A request to the server has at most ``max_rows``
        rows (at most, and by default, the model's ``max_batch_size``); ``max_waiting`` callers may wait to be sent,
        more get :class:`Overloaded`.

        Each caller has its own deadline, and may be interrupted, without harm for the others. A batch that the server
        refuses as wrong is sent again one by one, so that only who is wrong fails; so is one that broke while it ran,
        if the handle is ``idempotent``. Other errors concern all.

        The model must compute each row by itself, and have a batch dimension. Use the result as a context manager, or
        call its ``close()``, which waits for those who wait.
        """
        return Batched(self, max_rows=max_rows, max_wait_s=max_wait_s, inflight=inflight, max_waiting=max_waiting)

    def sequence(
        self,
        sequence_id: int | str | None = None,
        *,
        end_on_exit: bool = True,
        retry: bool = False,
        timeout_s: float | NotGiven = NOT_GIVEN,
    ) -> Sequence:
        """Begin a sequence of requests to a stateful model: ``with model.sequence() as seq: seq(x=...)``.

        ``sequence_id`` is random if not given. ``end_on_exit=False`` leaves a sequence without an end to the model's
        idle time-out; ``retry`` sends what surely did not run again; ``timeout_s`` is for each request.
        """
        return Sequence(
            self,
            SequenceOptions(sequence_id=sequence_id, end_on_exit=end_on_exit, retry=retry, timeout_s=timeout_s),
        )

    @property
    def metadata(self) -> ModelMetadata:
        """The model's tensors and ready versions."""
        return self._describe().metadata

    @property
    def config(self) -> ModelConfig:
        """The model's configuration as the server completed it."""
        return self._describe().config

    def __repr__(self) -> str:
        return f"<Model {self.name}{'/' + self.version if self.version else ''} at {self._client.url}>"

    def _infer(self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven) -> Result:
        description = self._described
        if description is None:
            description = self._describe()
        try:
            operation = self._operation(description, inputs, options, timeout_s)
        except InvalidInput:  # again, with a new description where that one is old
            description, operation = self._prepare(inputs, options, timeout_s)
        client = self._client
        try:
            result = client._caller.run(operation, timeout_s, None, client._pinned)
        except (InvalidInput, ModelNotFound):
            self.refresh()
            raise
        self._notice(description, result)
        return result

    def _result(self, call: Call[Result]) -> Result:
        """Wait for a request that was submitted, and notice what its answer says about the model."""
        try:
            result = call.result()
        except (InvalidInput, ModelNotFound):
            self.refresh()
            raise
        if self._described is not None:
            self._notice(self._described, result)
        return result

    def _prepare(
        self, inputs: Inputs, options: InferOptions, timeout_s: float | NotGiven
    ) -> tuple[Description, Operation[Result]]:
        return self._with_description(
            lambda description: (description, self._operation(description, inputs, options, timeout_s))
        )

    def _with_description(self, check: Callable[[Description], T]) -> T:
        """Return what ``check`` makes of the model's description; of a new one, where it refuses an old one."""
        description = self._described or self._describe()
        try:
            return check(description)
        except InvalidInput:
            if not description.old:
                raise
        self.refresh()
        return check(self._describe())

    def _describe(self) -> Description:
        description = self._described
        if description is None:
            metadata = self._client.model_metadata(self.name, self.version)
            config = self._client.model_config(self.name, self.version)
            settings = self._client._settings
            description = self._described = Description(
                self.name, self.version, metadata, config, settings.shared_memory, self._cast, settings.devices
            )
        return description
