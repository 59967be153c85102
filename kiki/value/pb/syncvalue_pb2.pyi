from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PredictionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUCCESS: _ClassVar[PredictionStatus]
    MODEL_ERROR: _ClassVar[PredictionStatus]
    INVALID_INPUT: _ClassVar[PredictionStatus]
    INSUFFICIENT_DATA: _ClassVar[PredictionStatus]
    TIMEOUT: _ClassVar[PredictionStatus]
    FALLBACK: _ClassVar[PredictionStatus]
SUCCESS: PredictionStatus
MODEL_ERROR: PredictionStatus
INVALID_INPUT: PredictionStatus
INSUFFICIENT_DATA: PredictionStatus
TIMEOUT: PredictionStatus
FALLBACK: PredictionStatus

class LTVPredictionRequest(_message.Message):
    __slots__ = ("request_id", "timestamp_ms", "customer_id", "platform", "event_history", "current_cac", "campaign_id", "ad_group_id", "features", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    EVENT_HISTORY_FIELD_NUMBER: _ClassVar[int]
    CURRENT_CAC_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    AD_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    timestamp_ms: int
    customer_id: str
    platform: str
    event_history: _containers.RepeatedCompositeFieldContainer[CustomerEvent]
    current_cac: float
    campaign_id: str
    ad_group_id: str
    features: _containers.RepeatedScalarFieldContainer[float]
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, request_id: _Optional[str] = ..., timestamp_ms: _Optional[int] = ..., customer_id: _Optional[str] = ..., platform: _Optional[str] = ..., event_history: _Optional[_Iterable[_Union[CustomerEvent, _Mapping]]] = ..., current_cac: _Optional[float] = ..., campaign_id: _Optional[str] = ..., ad_group_id: _Optional[str] = ..., features: _Optional[_Iterable[float]] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CustomerEvent(_message.Message):
    __slots__ = ("timestamp_ms", "event_type", "event_value", "source", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_VALUE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    timestamp_ms: int
    event_type: str
    event_value: float
    source: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, timestamp_ms: _Optional[int] = ..., event_type: _Optional[str] = ..., event_value: _Optional[float] = ..., source: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LTVPredictionResponse(_message.Message):
    __slots__ = ("request_id", "timestamp_ms", "predicted_ltv", "confidence", "ltv_lower_bound", "ltv_upper_bound", "model_version", "top_features", "inference_time_us", "status", "error_message")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_LTV_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LTV_LOWER_BOUND_FIELD_NUMBER: _ClassVar[int]
    LTV_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_FEATURES_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    timestamp_ms: int
    predicted_ltv: float
    confidence: float
    ltv_lower_bound: float
    ltv_upper_bound: float
    model_version: str
    top_features: _containers.RepeatedCompositeFieldContainer[Feature]
    inference_time_us: int
    status: PredictionStatus
    error_message: str
    def __init__(self, request_id: _Optional[str] = ..., timestamp_ms: _Optional[int] = ..., predicted_ltv: _Optional[float] = ..., confidence: _Optional[float] = ..., ltv_lower_bound: _Optional[float] = ..., ltv_upper_bound: _Optional[float] = ..., model_version: _Optional[str] = ..., top_features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., inference_time_us: _Optional[int] = ..., status: _Optional[_Union[PredictionStatus, str]] = ..., error_message: _Optional[str] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "importance", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    importance: float
    value: float
    def __init__(self, name: _Optional[str] = ..., importance: _Optional[float] = ..., value: _Optional[float] = ...) -> None: ...

class LTVBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[LTVPredictionRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[LTVPredictionRequest, _Mapping]]] = ...) -> None: ...

class LTVBatchResponse(_message.Message):
    __slots__ = ("responses", "total_processed", "successful", "failed")
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    SUCCESSFUL_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[LTVPredictionResponse]
    total_processed: int
    successful: int
    failed: int
    def __init__(self, responses: _Optional[_Iterable[_Union[LTVPredictionResponse, _Mapping]]] = ..., total_processed: _Optional[int] = ..., successful: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ("include_metrics",)
    INCLUDE_METRICS_FIELD_NUMBER: _ClassVar[int]
    include_metrics: bool
    def __init__(self, include_metrics: _Optional[bool] = ...) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ("is_healthy", "model_version", "uptime_seconds", "current_accuracy", "target_accuracy", "predictions_today", "avg_latency_ms", "p95_latency_ms", "p99_latency_ms", "cpu_usage_percent", "memory_usage_mb", "active_connections")
    IS_HEALTHY_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    TARGET_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_TODAY_FIELD_NUMBER: _ClassVar[int]
    AVG_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    P95_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    P99_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    CPU_USAGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_MB_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    is_healthy: bool
    model_version: str
    uptime_seconds: int
    current_accuracy: float
    target_accuracy: float
    predictions_today: int
    avg_latency_ms: float
    p95_latency_ms: float
    p99_latency_ms: float
    cpu_usage_percent: float
    memory_usage_mb: float
    active_connections: int
    def __init__(self, is_healthy: _Optional[bool] = ..., model_version: _Optional[str] = ..., uptime_seconds: _Optional[int] = ..., current_accuracy: _Optional[float] = ..., target_accuracy: _Optional[float] = ..., predictions_today: _Optional[int] = ..., avg_latency_ms: _Optional[float] = ..., p95_latency_ms: _Optional[float] = ..., p99_latency_ms: _Optional[float] = ..., cpu_usage_percent: _Optional[float] = ..., memory_usage_mb: _Optional[float] = ..., active_connections: _Optional[int] = ...) -> None: ...
