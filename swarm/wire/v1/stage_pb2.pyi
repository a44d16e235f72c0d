from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[Dtype]
    DTYPE_FP32: _ClassVar[Dtype]
    DTYPE_BF16: _ClassVar[Dtype]
DTYPE_UNSPECIFIED: Dtype
DTYPE_FP32: Dtype
DTYPE_BF16: Dtype

class Span(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Hop(_message.Message):
    __slots__ = ("node_id", "address", "span")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    address: str
    span: Span
    def __init__(self, node_id: _Optional[str] = ..., address: _Optional[str] = ..., span: _Optional[_Union[Span, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("session_id", "epoch", "release", "client_id", "hops", "hop_idx", "profile", "max_positions", "n_top", "page_hashes", "fed_positions", "known_positions")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    HOP_IDX_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    N_TOP_FIELD_NUMBER: _ClassVar[int]
    PAGE_HASHES_FIELD_NUMBER: _ClassVar[int]
    FED_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    epoch: int
    release: bytes
    client_id: str
    hops: _containers.RepeatedCompositeFieldContainer[Hop]
    hop_idx: int
    profile: str
    max_positions: int
    n_top: int
    page_hashes: _containers.RepeatedScalarFieldContainer[bytes]
    fed_positions: int
    known_positions: int
    def __init__(self, session_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., release: _Optional[bytes] = ..., client_id: _Optional[str] = ..., hops: _Optional[_Iterable[_Union[Hop, _Mapping]]] = ..., hop_idx: _Optional[int] = ..., profile: _Optional[str] = ..., max_positions: _Optional[int] = ..., n_top: _Optional[int] = ..., page_hashes: _Optional[_Iterable[bytes]] = ..., fed_positions: _Optional[int] = ..., known_positions: _Optional[int] = ...) -> None: ...

class HopTime(_message.Message):
    __slots__ = ("node_id", "queue_s", "compute_s")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    queue_s: float
    compute_s: float
    def __init__(self, node_id: _Optional[str] = ..., queue_s: _Optional[float] = ..., compute_s: _Optional[float] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("n_rows", "dtype", "data")
    N_ROWS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    n_rows: int
    dtype: Dtype
    data: bytes
    def __init__(self, n_rows: _Optional[int] = ..., dtype: _Optional[_Union[Dtype, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("epoch", "position", "token_ids", "rows", "n_logit_rows", "hop_times", "allowed", "page_hashes")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    N_LOGIT_ROWS_FIELD_NUMBER: _ClassVar[int]
    HOP_TIMES_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    PAGE_HASHES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    position: int
    token_ids: TokenIds
    rows: Rows
    n_logit_rows: int
    hop_times: _containers.RepeatedCompositeFieldContainer[HopTime]
    allowed: bytes
    page_hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, epoch: _Optional[int] = ..., position: _Optional[int] = ..., token_ids: _Optional[_Union[TokenIds, _Mapping]] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ..., n_logit_rows: _Optional[int] = ..., hop_times: _Optional[_Iterable[_Union[HopTime, _Mapping]]] = ..., allowed: _Optional[bytes] = ..., page_hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("open", "step", "leave")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    open: Open
    step: Step
    leave: Leave
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("epoch", "cached", "answered")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    cached: int
    answered: int
    def __init__(self, epoch: _Optional[int] = ..., cached: _Optional[int] = ..., answered: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("hop_idx", "node_id", "code", "message", "retry_after_s")
    HOP_IDX_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    hop_idx: int
    node_id: str
    code: str
    message: str
    retry_after_s: float
    def __init__(self, hop_idx: _Optional[int] = ..., node_id: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class RunReply(_message.Message):
    __slots__ = ("opened", "failure")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    failure: Failure
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class ResultsRequest(_message.Message):
    __slots__ = ("session_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    epoch: int
    def __init__(self, session_id: _Optional[bytes] = ..., epoch: _Optional[int] = ...) -> None: ...

class TopLogits(_message.Message):
    __slots__ = ("ids", "logits", "log_sum_exp")
    IDS_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    LOG_SUM_EXP_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    logits: _containers.RepeatedScalarFieldContainer[float]
    log_sum_exp: float
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., logits: _Optional[_Iterable[float]] = ..., log_sum_exp: _Optional[float] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("epoch", "position", "rows", "hop_times")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HOP_TIMES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    position: int
    rows: _containers.RepeatedCompositeFieldContainer[TopLogits]
    hop_times: _containers.RepeatedCompositeFieldContainer[HopTime]
    def __init__(self, epoch: _Optional[int] = ..., position: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[TopLogits, _Mapping]]] = ..., hop_times: _Optional[_Iterable[_Union[HopTime, _Mapping]]] = ...) -> None: ...
