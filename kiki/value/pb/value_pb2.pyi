from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_SCORED: _ClassVar[Source]
    SOURCE_HISTORY: _ClassVar[Source]
    SOURCE_NEW_CUSTOMER: _ClassVar[Source]
    SOURCE_UNKNOWN_CUSTOMER: _ClassVar[Source]
    SOURCE_NOT_FOUND: _ClassVar[Source]
SOURCE_UNSPECIFIED: Source
SOURCE_SCORED: Source
SOURCE_HISTORY: Source
SOURCE_NEW_CUSTOMER: Source
SOURCE_UNKNOWN_CUSTOMER: Source
SOURCE_NOT_FOUND: Source

class PredictRequest(_message.Message):
    __slots__ = ("customer_id", "history", "new_customer", "horizon", "reasons")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    NEW_CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    history: History
    new_customer: NewCustomer
    horizon: float
    reasons: bool
    def __init__(self, customer_id: _Optional[str] = ..., history: _Optional[_Union[History, _Mapping]] = ..., new_customer: _Optional[_Union[NewCustomer, _Mapping]] = ..., horizon: _Optional[float] = ..., reasons: _Optional[bool] = ...) -> None: ...

class History(_message.Message):
    __slots__ = ("orders", "summary", "as_of")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[Order]
    summary: Summary
    as_of: str
    def __init__(self, orders: _Optional[_Iterable[_Union[Order, _Mapping]]] = ..., summary: _Optional[_Union[Summary, _Mapping]] = ..., as_of: _Optional[str] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("date", "amount_micros")
    DATE_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MICROS_FIELD_NUMBER: _ClassVar[int]
    date: str
    amount_micros: int
    def __init__(self, date: _Optional[str] = ..., amount_micros: _Optional[int] = ...) -> None: ...

class Summary(_message.Message):
    __slots__ = ("frequency", "recency_days", "age_days", "mean_order_micros")
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    RECENCY_DAYS_FIELD_NUMBER: _ClassVar[int]
    AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    MEAN_ORDER_MICROS_FIELD_NUMBER: _ClassVar[int]
    frequency: int
    recency_days: int
    age_days: int
    mean_order_micros: int
    def __init__(self, frequency: _Optional[int] = ..., recency_days: _Optional[int] = ..., age_days: _Optional[int] = ..., mean_order_micros: _Optional[int] = ...) -> None: ...

class NewCustomer(_message.Message):
    __slots__ = ("cohort",)
    COHORT_FIELD_NUMBER: _ClassVar[int]
    cohort: str
    def __init__(self, cohort: _Optional[str] = ...) -> None: ...

class Quantity(_message.Message):
    __slots__ = ("mean", "median", "lower_80", "upper_80", "lower_90", "upper_90", "lower_95", "upper_95")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    LOWER_80_FIELD_NUMBER: _ClassVar[int]
    UPPER_80_FIELD_NUMBER: _ClassVar[int]
    LOWER_90_FIELD_NUMBER: _ClassVar[int]
    UPPER_90_FIELD_NUMBER: _ClassVar[int]
    LOWER_95_FIELD_NUMBER: _ClassVar[int]
    UPPER_95_FIELD_NUMBER: _ClassVar[int]
    mean: float
    median: float
    lower_80: float
    upper_80: float
    lower_90: float
    upper_90: float
    lower_95: float
    upper_95: float
    def __init__(self, mean: _Optional[float] = ..., median: _Optional[float] = ..., lower_80: _Optional[float] = ..., upper_80: _Optional[float] = ..., lower_90: _Optional[float] = ..., upper_90: _Optional[float] = ..., lower_95: _Optional[float] = ..., upper_95: _Optional[float] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("purchases", "revenue", "probability_alive", "probability_no_purchase", "expected_order_amount", "discounted_value", "source", "horizon", "unit", "model_version", "as_of", "currency", "coverage_claimed", "reasons")
    PURCHASES_FIELD_NUMBER: _ClassVar[int]
    REVENUE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_ALIVE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_NO_PURCHASE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ORDER_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    DISCOUNTED_VALUE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_CLAIMED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    purchases: Quantity
    revenue: Quantity
    probability_alive: float
    probability_no_purchase: float
    expected_order_amount: float
    discounted_value: float
    source: Source
    horizon: float
    unit: str
    model_version: str
    as_of: str
    currency: str
    coverage_claimed: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, purchases: _Optional[_Union[Quantity, _Mapping]] = ..., revenue: _Optional[_Union[Quantity, _Mapping]] = ..., probability_alive: _Optional[float] = ..., probability_no_purchase: _Optional[float] = ..., expected_order_amount: _Optional[float] = ..., discounted_value: _Optional[float] = ..., source: _Optional[_Union[Source, str]] = ..., horizon: _Optional[float] = ..., unit: _Optional[str] = ..., model_version: _Optional[str] = ..., as_of: _Optional[str] = ..., currency: _Optional[str] = ..., coverage_claimed: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class PredictBatchRequest(_message.Message):
    __slots__ = ("customer_ids", "means_only")
    CUSTOMER_IDS_FIELD_NUMBER: _ClassVar[int]
    MEANS_ONLY_FIELD_NUMBER: _ClassVar[int]
    customer_ids: _containers.RepeatedScalarFieldContainer[str]
    means_only: bool
    def __init__(self, customer_ids: _Optional[_Iterable[str]] = ..., means_only: _Optional[bool] = ...) -> None: ...

class Quantities(_message.Message):
    __slots__ = ("mean", "median", "lower_80", "upper_80", "lower_90", "upper_90", "lower_95", "upper_95")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    LOWER_80_FIELD_NUMBER: _ClassVar[int]
    UPPER_80_FIELD_NUMBER: _ClassVar[int]
    LOWER_90_FIELD_NUMBER: _ClassVar[int]
    UPPER_90_FIELD_NUMBER: _ClassVar[int]
    LOWER_95_FIELD_NUMBER: _ClassVar[int]
    UPPER_95_FIELD_NUMBER: _ClassVar[int]
    mean: _containers.RepeatedScalarFieldContainer[float]
    median: _containers.RepeatedScalarFieldContainer[float]
    lower_80: _containers.RepeatedScalarFieldContainer[float]
    upper_80: _containers.RepeatedScalarFieldContainer[float]
    lower_90: _containers.RepeatedScalarFieldContainer[float]
    upper_90: _containers.RepeatedScalarFieldContainer[float]
    lower_95: _containers.RepeatedScalarFieldContainer[float]
    upper_95: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, mean: _Optional[_Iterable[float]] = ..., median: _Optional[_Iterable[float]] = ..., lower_80: _Optional[_Iterable[float]] = ..., upper_80: _Optional[_Iterable[float]] = ..., lower_90: _Optional[_Iterable[float]] = ..., upper_90: _Optional[_Iterable[float]] = ..., lower_95: _Optional[_Iterable[float]] = ..., upper_95: _Optional[_Iterable[float]] = ...) -> None: ...

class PredictBatchResponse(_message.Message):
    __slots__ = ("purchases", "revenue", "probability_alive", "probability_no_purchase", "expected_order_amount", "discounted_value", "source", "horizon", "unit", "model_version", "as_of", "currency", "coverage_claimed")
    PURCHASES_FIELD_NUMBER: _ClassVar[int]
    REVENUE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_ALIVE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_NO_PURCHASE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ORDER_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    DISCOUNTED_VALUE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_CLAIMED_FIELD_NUMBER: _ClassVar[int]
    purchases: Quantities
    revenue: Quantities
    probability_alive: _containers.RepeatedScalarFieldContainer[float]
    probability_no_purchase: _containers.RepeatedScalarFieldContainer[float]
    expected_order_amount: _containers.RepeatedScalarFieldContainer[float]
    discounted_value: _containers.RepeatedScalarFieldContainer[float]
    source: _containers.RepeatedScalarFieldContainer[Source]
    horizon: float
    unit: str
    model_version: str
    as_of: str
    currency: str
    coverage_claimed: bool
    def __init__(self, purchases: _Optional[_Union[Quantities, _Mapping]] = ..., revenue: _Optional[_Union[Quantities, _Mapping]] = ..., probability_alive: _Optional[_Iterable[float]] = ..., probability_no_purchase: _Optional[_Iterable[float]] = ..., expected_order_amount: _Optional[_Iterable[float]] = ..., discounted_value: _Optional[_Iterable[float]] = ..., source: _Optional[_Iterable[_Union[Source, str]]] = ..., horizon: _Optional[float] = ..., unit: _Optional[str] = ..., model_version: _Optional[str] = ..., as_of: _Optional[str] = ..., currency: _Optional[str] = ..., coverage_claimed: _Optional[bool] = ...) -> None: ...

class ModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Coverage(_message.Message):
    __slots__ = ("of", "nominal", "measured")
    OF_FIELD_NUMBER: _ClassVar[int]
    NOMINAL_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    of: str
    nominal: float
    measured: float
    def __init__(self, of: _Optional[str] = ..., nominal: _Optional[float] = ..., measured: _Optional[float] = ...) -> None: ...

class ModelInfoResponse(_message.Message):
    __slots__ = ("model_version", "model", "unit", "horizon", "calibration_end", "currency", "data_fingerprint", "customers", "customers_as_of", "batch_max", "coverage_claimed", "coverage_reason", "coverage", "details_json")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_END_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    DATA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CUSTOMERS_FIELD_NUMBER: _ClassVar[int]
    CUSTOMERS_AS_OF_FIELD_NUMBER: _ClassVar[int]
    BATCH_MAX_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_CLAIMED_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_REASON_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    model: str
    unit: str
    horizon: float
    calibration_end: str
    currency: str
    data_fingerprint: str
    customers: int
    customers_as_of: str
    batch_max: int
    coverage_claimed: bool
    coverage_reason: str
    coverage: _containers.RepeatedCompositeFieldContainer[Coverage]
    details_json: str
    def __init__(self, model_version: _Optional[str] = ..., model: _Optional[str] = ..., unit: _Optional[str] = ..., horizon: _Optional[float] = ..., calibration_end: _Optional[str] = ..., currency: _Optional[str] = ..., data_fingerprint: _Optional[str] = ..., customers: _Optional[int] = ..., customers_as_of: _Optional[str] = ..., batch_max: _Optional[int] = ..., coverage_claimed: _Optional[bool] = ..., coverage_reason: _Optional[str] = ..., coverage: _Optional[_Iterable[_Union[Coverage, _Mapping]]] = ..., details_json: _Optional[str] = ...) -> None: ...
