"""What every aiohttp service of kiki shares: routes, requests, answers, callers, and a life with a clean end."""

from kiki.web.edge import stream
from kiki.web.refusals import HttpRefusal, headers_of, status_of, whole_seconds
from kiki.web.reply import Reply, json_reply, page, plain, problem, refusal
from kiki.web.request import Request, pairs, read_body, read_json, read_json_text, wants_json
from kiki.web.routes import Check, Route, Service
from kiki.web.serving import Listening, Prepared, build_server, listening, run, run_all
from kiki.web.tokens import Principal, Role, Tokens, load_tokens, parse_tokens

__all__ = [
    "Check",
    "HttpRefusal",
    "Listening",
    "Prepared",
    "Principal",
    "Reply",
    "Request",
    "Role",
    "Route",
    "Service",
    "Tokens",
    "build_server",
    "headers_of",
    "json_reply",
    "listening",
    "load_tokens",
    "page",
    "pairs",
    "parse_tokens",
    "plain",
    "problem",
    "read_body",
    "read_json",
    "read_json_text",
    "refusal",
    "run",
    "run_all",
    "status_of",
    "stream",
    "wants_json",
    "whole_seconds",
]
