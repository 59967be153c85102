"""SyncShield over HTTP: parse, one call on the guard, answer. No rule lives here.

The guide's routes (`/spend`, `/check`, `/health`) answer plain text, or JSON when `Accept` asks for it; `/v1`
answers JSON, and errors as RFC 9457 problem details.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from kiki.clock import to_iso, wall_micros
from kiki.errors import InvalidInput, InvalidMoney, KikiError, NotFound
from kiki.shield import wire
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.audit_view import AuditViewProcess
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import Call, Switch, check_call, invalid_call, spend_call, switch
from kiki.shield.decision import Decision, Outcome
from kiki.shield.evidence import find_event, page
from kiki.shield.fact import Decided
from kiki.shield.metrics import ShieldMetrics
from kiki.shield.policy import Policy, parse_policy
from kiki.shield.scope import parse_scopes
from kiki.shield.window import Verb
from kiki.web import Check, Request, Response, Route, Service

logger = logging.getLogger("kiki.shield")
