"""The whole error tree. Every message says what failed, why, and what mends it.

SwarmError
├── BadArgument                what the user typed or passed cannot be meant
│   ├── MagnetError            not a magnet link that names a torrent
│   ├── LicenceNotAccepted     the weights' licence does not allow every use, and nobody said that this one is allowed
│   └── ContextLengthExceeded  prompt and max_tokens do not fit the model's context
├── ReleaseError               the release itself
│   ├── UnsupportedArchitecture
│   └── CorruptRelease         config, index or weight header contradict themselves, or each other
├── TransferError              moving its bytes
│   ├── MetadataTimeout        nobody gave us the torrent's metadata
│   ├── TransferStalled        pieces stopped coming
│   ├── DiskFull
│   └── VerificationError      bytes on disk are not what the torrent says
├── DiscoveryError             finding nodes
│   ├── NoNodesFound
│   └── LayersUncovered        nodes were found, but some layers have no host
├── RpcError                   talking to a node
│   ├── NodeUnreachable
│   ├── Unauthenticated        its certificate does not prove the node id
│   ├── RemoteProtocolError    it said something that the protocol does not allow
│   └── DeadlineExceeded
├── SessionError               a generation's state on the stages
│   ├── SessionLost            the stage no longer has it (or its next hop is gone): replay elsewhere
│   ├── StaleEpoch             a newer epoch of this session exists: the caller is a zombie
│   ├── PositionMismatch       the step starts after what is cached: replay from there
│   ├── StageFull              no room for another session; carries retry_after_s
│   └── ExpertUnavailable      nobody answers for an expert that a token needs; its message names layer and expert
├── GatewayError               a gateway does not take this request
│   ├── KeyRefused             no API key, or none that it knows
│   ├── TooManyRequests        the caller, or everybody together, is at a limit; carries retry_after_s
│   └── GatewayDraining        it is about to stop; carries retry_after_s
├── ListenError                an address could not be bound
├── Interrupted                the user ended it with work left; running again goes on from there
└── LocalProtocolError         our own code used a room wrongly (a bug)
"""

from __future__ import annotations


class SwarmError(Exception):
    """Base of every error that this project raises on purpose.

    exit_code: the process's exit status when a command ends with it (0 ok, 1 failure, 2 usage, 4 no nodes for
    a model or some layers of it, 5 network or timeout, 6 disk, 8 bytes that are not what they should be, 130
    interrupted).
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadArgument(SwarmError, ValueError):
    exit_code = 2


class MagnetError(BadArgument):
    pass


class LicenceNotAccepted(BadArgument):
    pass


class ContextLengthExceeded(BadArgument):
    pass


class ReleaseError(SwarmError):
    pass


class UnsupportedArchitecture(ReleaseError):
    pass


class CorruptRelease(ReleaseError):
    exit_code = 8


class TransferError(SwarmError):
    exit_code = 5


class MetadataTimeout(TransferError):
    pass


class TransferStalled(TransferError):
    pass


class DiskFull(TransferError):
    exit_code = 6


class VerificationError(TransferError):
    exit_code = 8


class DiscoveryError(SwarmError):
    exit_code = 4


class NoNodesFound(DiscoveryError):
    pass


class LayersUncovered(DiscoveryError):
    """layers: the layer indices that no serving node hosts."""

    def __init__(self, message: str, layers: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.layers = layers


class RpcError(SwarmError):
    exit_code = 5


class NodeUnreachable(RpcError):
    pass


class Unauthenticated(RpcError):
    pass


class RemoteProtocolError(RpcError):
    pass


class DeadlineExceeded(RpcError):
    pass


class SessionError(SwarmError):
    pass


class SessionLost(SessionError):
    pass


class StaleEpoch(SessionError):
    pass


class PositionMismatch(SessionError):
    pass


class StageFull(SessionError):
    exit_code = 5

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ExpertUnavailable(SessionError):
    exit_code = 4


class GatewayError(SwarmError):
    exit_code = 5


class KeyRefused(GatewayError):
    pass


class TooManyRequests(GatewayError):
    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GatewayDraining(GatewayError):
    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ListenError(SwarmError):
    pass


class Interrupted(SwarmError):
    exit_code = 130


class LocalProtocolError(SwarmError):
    pass
