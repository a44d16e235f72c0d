from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ReserveRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReserveReply(_message.Message):
    __slots__ = ("tunnel",)
    TUNNEL_FIELD_NUMBER: _ClassVar[int]
    tunnel: bytes
    def __init__(self, tunnel: _Optional[bytes] = ...) -> None: ...

class RelayFrame(_message.Message):
    __slots__ = ("target", "tunnel", "data")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    target: str
    tunnel: bytes
    data: bytes
    def __init__(self, target: _Optional[str] = ..., tunnel: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...
