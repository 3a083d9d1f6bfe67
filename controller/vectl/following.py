"""A channel that leads to whichever controller is the leader now: stubs are made on it once, and go along.

Only what begins after a change goes to the new leader; a call that is under way ends as its own connection does.
"""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

Make = Callable[[grpc.aio.Channel], Callable[..., Any]]


class Following:
    """A method that can be called; made anew for each channel that it is called on."""

    def __init__(self, leader: "LeaderChannel", path: str, make: Make) -> None:
        """`path` of the method: /package.Service/Method."""
        self.name = path.rpartition("/")[2]
        self._leader = leader
        self._make = make
        self._made: tuple[grpc.aio.Channel, Callable[..., Any]] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the method of the channel that is in use."""
        channel = self._leader.current
        if self._made is None or self._made[0] is not channel:
            self._made = (channel, self._make(channel))
        return self._made[1](*args, **kwargs)

    async def find_leader(self, named: str) -> None:
        """What is called afterwards goes to the leader: `named` perhaps. Unavailable when none is found."""
        await self._leader.find(named)


class LeaderChannel(grpc.aio.Channel):
    """Stands before the channels of `channel_in_use`; `find` looks for the leader and changes what is in use."""

    def __init__(
        self,
        channel_in_use: Callable[[], grpc.aio.Channel],
        find: Callable[[str], Awaitable[None]],
    ) -> None:
        self._channel_in_use = channel_in_use
        self.find = find

    @property
    def current(self) -> grpc.aio.Channel:
        return self._channel_in_use()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return Following(self, method, lambda channel: channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return Following(
            self, method, lambda channel: channel.unary_stream(method, *args, **kwargs)
        )

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return Following(
            self, method, lambda channel: channel.stream_unary(method, *args, **kwargs)
        )

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return Following(
            self, method, lambda channel: channel.stream_stream(method, *args, **kwargs)
        )

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - gRPC's
        return self.current.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.current.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Of the one in use."""
        await self.current.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        await self.close()
        return None
