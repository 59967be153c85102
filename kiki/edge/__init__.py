"""What every HTTP service of kiki shares: routes, requests, answers, callers, listeners."""

from kiki.edge.answer import Answer, json_answer, plain_answer, problem_answer
from kiki.edge.caller import Principal, Tokens, parse_tokens
from kiki.edge.request import Request
from kiki.edge.route import Check, Route, Service
from kiki.edge.server import run, start

__all__ = [
    "Answer",
    "Check",
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
    "start",
]
