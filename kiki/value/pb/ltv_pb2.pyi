from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class LTVRequest(_message.Message):
    __slots__ = ("customer_id", "recent_spend", "engagement_score")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    RECENT_SPEND_FIELD_NUMBER: _ClassVar[int]
    ENGAGEMENT_SCORE_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    recent_spend: float
    engagement_score: float
    def __init__(self, customer_id: _Optional[str] = ..., recent_spend: _Optional[float] = ..., engagement_score: _Optional[float] = ...) -> None: ...

class LTVResponse(_message.Message):
    __slots__ = ("predicted_ltv", "confidence_score", "explanation")
    PREDICTED_LTV_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_SCORE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    predicted_ltv: float
    confidence_score: float
    explanation: str
    def __init__(self, predicted_ltv: _Optional[float] = ..., confidence_score: _Optional[float] = ..., explanation: _Optional[str] = ...) -> None: ...
