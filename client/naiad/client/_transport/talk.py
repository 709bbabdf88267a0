"""Carries out conversations with a server: what they yield is called, what was answered they are sent."""

from __future__ import annotations

import time
from typing import TypeVar

from naiad.client._transport.registry import Talk
from naiad.client._transport.seam import AsyncTransport, Headers, RpcFailed, Transport
from naiad.client.errors import ClientError

T = TypeVar("T")


def converse(transport: Transport, talk: Talk[T], deadline: float, headers: Headers) -> T:
    """Carry out a conversation with a server, and return what came of it."""
    try:
        operation = next(talk)
        while True:
            try:
                message = transport.call(operation.method, operation.request, left_s(deadline), headers)
                answer = operation.decode(message)
            except RpcFailed as failure:
                operation = talk.throw(failure)
            except ClientError as error:  # the answer is none
                operation = talk.throw(RpcFailed("INTERNAL", str(error)))
            else:
                operation = talk.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


async def converse_async(transport: AsyncTransport, talk: Talk[T], deadline: float, headers: Headers) -> T:
    """Carry out a conversation with a server, and return what came of it."""
    try:
        operation = next(talk)
        while True:
            try:
                message = await transport.call(operation.method, operation.request, left_s(deadline), headers)
                answer = operation.decode(message)
            except RpcFailed as failure:
                operation = talk.throw(failure)
            except ClientError as error:
                operation = talk.throw(RpcFailed("INTERNAL", str(error)))
            else:
                operation = talk.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def left_s(deadline: float) -> float:
    """Return how long it is until ``deadline``."""
    return max(deadline - time.monotonic(), 0.0)
