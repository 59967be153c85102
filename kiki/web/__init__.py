"""What every HTTP service of kiki shares: routes, requests, answers, callers, listeners."""

from kiki.web.answer import Answer, json_answer, plain_answer, problem_answer
from kiki.web.caller import Principal, Tokens, parse_tokens
from kiki.web.request import Request
from kiki.web.route import Check, Route, Service
from kiki.web.server import Listening, run

__all__ = [
    "Answer",
    "Check",
    "Listening",
    "Principal",
    "Request",
    "Route",
    "Service",
    "Tokens",
    "json_answer",
    "parse_tokens",
    "plain_answer",
    "problem_answer",
    "run",
]
