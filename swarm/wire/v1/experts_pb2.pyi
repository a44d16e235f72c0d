from swarm.wire.v1 import stage_pb2 as _stage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExpertOpen(_message.Message):
    __slots__ = ("release", "profile")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    release: bytes
    profile: str
    def __init__(self, release: _Optional[bytes] = ..., profile: _Optional[str] = ...) -> None: ...

class WantedRows(_message.Message):
    __slots__ = ("expert_idx", "row_idxs")
    EXPERT_IDX_FIELD_NUMBER: _ClassVar[int]
    ROW_IDXS_FIELD_NUMBER: _ClassVar[int]
    expert_idx: int
    row_idxs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, expert_idx: _Optional[int] = ..., row_idxs: _Optional[_Iterable[int]] = ...) -> None: ...

class ExpertCall(_message.Message):
    __slots__ = ("request_id", "layer_idx", "wanted", "rows")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_IDX_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    layer_idx: int
    wanted: _containers.RepeatedCompositeFieldContainer[WantedRows]
    rows: _stage_pb2.Rows
    def __init__(self, request_id: _Optional[int] = ..., layer_idx: _Optional[int] = ..., wanted: _Optional[_Iterable[_Union[WantedRows, _Mapping]]] = ..., rows: _Optional[_Union[_stage_pb2.Rows, _Mapping]] = ...) -> None: ...

class ExpertRequest(_message.Message):
    __slots__ = ("open", "call")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    open: ExpertOpen
    call: ExpertCall
    def __init__(self, open: _Optional[_Union[ExpertOpen, _Mapping]] = ..., call: _Optional[_Union[ExpertCall, _Mapping]] = ...) -> None: ...

class ExpertAnswer(_message.Message):
    __slots__ = ("request_id", "queue_s", "compute_s", "rows")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    queue_s: float
    compute_s: float
    rows: _stage_pb2.Rows
    def __init__(self, request_id: _Optional[int] = ..., queue_s: _Optional[float] = ..., compute_s: _Optional[float] = ..., rows: _Optional[_Union[_stage_pb2.Rows, _Mapping]] = ...) -> None: ...

class ExpertRefusal(_message.Message):
    __slots__ = ("request_id", "code", "message")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    code: str
    message: str
    def __init__(self, request_id: _Optional[int] = ..., code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ExpertReply(_message.Message):
    __slots__ = ("answer", "refusal")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    answer: ExpertAnswer
    refusal: ExpertRefusal
    def __init__(self, answer: _Optional[_Union[ExpertAnswer, _Mapping]] = ..., refusal: _Optional[_Union[ExpertRefusal, _Mapping]] = ...) -> None: ...
