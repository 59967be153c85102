from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BidSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BID_SOURCE_UNSPECIFIED: _ClassVar[BidSource]
    AI_PREDICTION: _ClassVar[BidSource]
    HEURISTIC_FALLBACK: _ClassVar[BidSource]
    MANUAL_OVERRIDE: _ClassVar[BidSource]

class BidStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BID_STATUS_UNSPECIFIED: _ClassVar[BidStatus]
    ACCEPTED: _ClassVar[BidStatus]
    REJECTED: _ClassVar[BidStatus]
    PENDING: _ClassVar[BidStatus]
    FAILED: _ClassVar[BidStatus]
    BUDGET_EXCEEDED: _ClassVar[BidStatus]
BID_SOURCE_UNSPECIFIED: BidSource
AI_PREDICTION: BidSource
HEURISTIC_FALLBACK: BidSource
MANUAL_OVERRIDE: BidSource
BID_STATUS_UNSPECIFIED: BidStatus
ACCEPTED: BidStatus
REJECTED: BidStatus
PENDING: BidStatus
FAILED: BidStatus
BUDGET_EXCEEDED: BidStatus

class PlaceBidRequest(_message.Message):
    __slots__ = ("request_id", "plan", "campaign", "bid_micros", "customer_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    BID_MICROS_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    plan: str
    campaign: str
    bid_micros: int
    customer_id: str
    def __init__(self, request_id: _Optional[str] = ..., plan: _Optional[str] = ..., campaign: _Optional[str] = ..., bid_micros: _Optional[int] = ..., customer_id: _Optional[str] = ...) -> None: ...

class PlaceBidResponse(_message.Message):
    __slots__ = ("request_id", "status", "source", "bid_micros", "ltv_micros", "message", "platform")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    BID_MICROS_FIELD_NUMBER: _ClassVar[int]
    LTV_MICROS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    status: BidStatus
    source: BidSource
    bid_micros: int
    ltv_micros: int
    message: str
    platform: str
    def __init__(self, request_id: _Optional[str] = ..., status: _Optional[_Union[BidStatus, str]] = ..., source: _Optional[_Union[BidSource, str]] = ..., bid_micros: _Optional[int] = ..., ltv_micros: _Optional[int] = ..., message: _Optional[str] = ..., platform: _Optional[str] = ...) -> None: ...

class PlaceBidBatchRequest(_message.Message):
    __slots__ = ("bids", "atomic")
    BIDS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    bids: _containers.RepeatedCompositeFieldContainer[PlaceBidRequest]
    atomic: bool
    def __init__(self, bids: _Optional[_Iterable[_Union[PlaceBidRequest, _Mapping]]] = ..., atomic: _Optional[bool] = ...) -> None: ...

class PlaceBidBatchResponse(_message.Message):
    __slots__ = ("results", "accepted", "failed")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PlaceBidResponse]
    accepted: int
    failed: int
    def __init__(self, results: _Optional[_Iterable[_Union[PlaceBidResponse, _Mapping]]] = ..., accepted: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class BudgetStatusRequest(_message.Message):
    __slots__ = ("plan", "campaign")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    plan: str
    campaign: str
    def __init__(self, plan: _Optional[str] = ..., campaign: _Optional[str] = ...) -> None: ...

class BudgetStatusResponse(_message.Message):
    __slots__ = ("run", "currency", "limit_micros", "spent_micros", "held_micros", "remaining_micros", "utilization")
    RUN_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MICROS_FIELD_NUMBER: _ClassVar[int]
    SPENT_MICROS_FIELD_NUMBER: _ClassVar[int]
    HELD_MICROS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MICROS_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    run: str
    currency: str
    limit_micros: int
    spent_micros: int
    held_micros: int
    remaining_micros: int
    utilization: float
    def __init__(self, run: _Optional[str] = ..., currency: _Optional[str] = ..., limit_micros: _Optional[int] = ..., spent_micros: _Optional[int] = ..., held_micros: _Optional[int] = ..., remaining_micros: _Optional[int] = ..., utilization: _Optional[float] = ...) -> None: ...

class CircuitBreakerStatusRequest(_message.Message):
    __slots__ = ("platform",)
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    platform: str
    def __init__(self, platform: _Optional[str] = ...) -> None: ...

class CircuitBreakerStatusResponse(_message.Message):
    __slots__ = ("breakers",)
    BREAKERS_FIELD_NUMBER: _ClassVar[int]
    breakers: _containers.RepeatedCompositeFieldContainer[CircuitBreaker]
    def __init__(self, breakers: _Optional[_Iterable[_Union[CircuitBreaker, _Mapping]]] = ...) -> None: ...

class CircuitBreaker(_message.Message):
    __slots__ = ("platform", "operation", "state", "retry_at_ms")
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AT_MS_FIELD_NUMBER: _ClassVar[int]
    platform: str
    operation: str
    state: str
    retry_at_ms: int
    def __init__(self, platform: _Optional[str] = ..., operation: _Optional[str] = ..., state: _Optional[str] = ..., retry_at_ms: _Optional[int] = ...) -> None: ...
