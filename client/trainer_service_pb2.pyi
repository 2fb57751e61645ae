from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IDLE: _ClassVar[State]
    PREPARING: _ClassVar[State]
    TRAINING: _ClassVar[State]
    EVALUATING: _ClassVar[State]
    PAUSED: _ClassVar[State]
IDLE: State
PREPARING: State
TRAINING: State
EVALUATING: State
PAUSED: State

class TaskCall(_message.Message):
    __slots__ = ("document", "tensors", "ahead")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    document: str
    tensors: bytes
    ahead: bool
    def __init__(self, document: _Optional[str] = ..., tensors: _Optional[bytes] = ..., ahead: _Optional[bool] = ...) -> None: ...

class TaskAnswer(_message.Message):
    __slots__ = ("document", "tensors", "values")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    document: str
    tensors: bytes
    values: int
    def __init__(self, document: _Optional[str] = ..., tensors: _Optional[bytes] = ..., values: _Optional[int] = ...) -> None: ...

class CancelCall(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseCall(_message.Message):
    __slots__ = ("abandon",)
    ABANDON_FIELD_NUMBER: _ClassVar[int]
    abandon: bool
    def __init__(self, abandon: _Optional[bool] = ...) -> None: ...

class ResumeCall(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusCall(_message.Message):
    __slots__ = ("follow", "interval_s")
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    follow: bool
    interval_s: float
    def __init__(self, follow: _Optional[bool] = ..., interval_s: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("state", "site", "run", "round", "rounds", "step", "steps", "loss", "cases", "cases_left_out", "cases_cached", "cases_to_cache", "tasks_done", "last_error", "rss_bytes", "pid", "task_seconds", "notice")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    CASES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    CASES_CACHED_FIELD_NUMBER: _ClassVar[int]
    CASES_TO_CACHE_FIELD_NUMBER: _ClassVar[int]
    TASKS_DONE_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    TASK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    state: State
    site: str
    run: str
    round: int
    rounds: int
    step: int
    steps: int
    loss: float
    cases: int
    cases_left_out: int
    cases_cached: int
    cases_to_cache: int
    tasks_done: int
    last_error: str
    rss_bytes: int
    pid: int
    task_seconds: float
    notice: str
    def __init__(self, state: _Optional[_Union[State, str]] = ..., site: _Optional[str] = ..., run: _Optional[str] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., cases: _Optional[int] = ..., cases_left_out: _Optional[int] = ..., cases_cached: _Optional[int] = ..., cases_to_cache: _Optional[int] = ..., tasks_done: _Optional[int] = ..., last_error: _Optional[str] = ..., rss_bytes: _Optional[int] = ..., pid: _Optional[int] = ..., task_seconds: _Optional[float] = ..., notice: _Optional[str] = ...) -> None: ...
