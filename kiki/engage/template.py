"""The text of messages with fields in it: escaped where HTML needs it, and never sent with a gap.

    Dear {{ first_name | default("friend") }},
    here are {{ discount }} % off with the code {{ code }}.

The language is Jinja's, in its sandbox and without anything around it: no files, no imports, no macros of others, no
attributes or methods of values, because values are plain text and numbers. A field that is unknown or empty where it
is printed is an error with its name; `default` says what else to print, and `{% if first_name %}` asks.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from kiki.engage.channel import Content
from kiki.errors import ConfigurationError, InvalidInput, MissingExtra

try:
    import jinja2
    import jinja2.filters
    import jinja2.meta
    import jinja2.nodes
    import jinja2.runtime
    import jinja2.sandbox
    from markupsafe import Markup
except ModuleNotFoundError as error:  # pragma: no cover - the extra is installed where the tests run
    raise MissingExtra("engage", "a template") from error

PART_CHARS_MAX: Final = 200_000
"""The longest template, and the longest text that one may make."""
SUBJECT_CHARS_MAX: Final = 300
DECIMALS_MAX: Final = 12
MENTIONS_MAX: Final = 1_000
"""How often the fields may be named in one part: each time may be a long text."""
FILTERS: Final = (
    *("abs", "capitalize", "default", "e", "escape", "first", "float", "forceescape", "int", "join", "last", "length"),
    *("lower", "round", "sort", "string", "striptags", "title", "trim", "truncate", "upper", "urlencode"),
)
"""What may stand behind a `|`. `safe` may not: it would let a customer's name be HTML."""

Plain = str | int | bool | None
Value = Plain | tuple[Plain, ...]
"""What a field may hold."""


class MessageTemplate:
    """One message's parts. Renders the same for the same fields."""

    def __init__(self, *, text: str, subject: str = "", html: str = "", name: str = "template") -> None:
        """Raises `ConfigurationError` with every mistake: part, line and what is accepted."""
        self.name = name
        problems: list[str] = []
        self.fields: frozenset[str] = frozenset()
        """The names of the fields that the parts use."""
        parts = {"text": text, "subject": subject, "html": html}
        self._parts: dict[str, jinja2.Template | None] = {}
        for part, source in parts.items():
            if source or part == "text":
                self._parts[part], fields, wrong = _compiled(part, source)
                self.fields |= fields
                problems += [f"{name}: {problem}" for problem in wrong]
        if problems:
            raise ConfigurationError(problems)

    def unknown_fields(self, known: Collection[str]) -> list[str]:
        """What is wrong with the fields it uses, for somebody who knows which there are."""
        return [f"{self.name}: {problem}" for problem in _unknown(self.fields, known)]

    def render(self, fields: Mapping[str, Value]) -> Content:
        """The message for one person; raises `InvalidInput` when a field it needs is missing or empty."""
        context = {name: _value(name, value) for name, value in fields.items()}
        text = self._render("text", context)
        subject = " ".join(self._render("subject", context).split())
        if len(subject) > SUBJECT_CHARS_MAX:
            raise InvalidInput(f"{self.name}: the subject has {len(subject)} characters: at most {SUBJECT_CHARS_MAX}")
        return Content(text=text, subject=subject, html=self._render("html", context))

    def _render(self, part: str, context: Mapping[str, Any]) -> str:
        template = self._parts.get(part)
        if template is None:
            return ""
        made: list[str] = []
        length = 0
        try:
            for piece in template.generate(context):
                made.append(piece)
                length += len(piece)
                if length > PART_CHARS_MAX:
                    raise InvalidInput(f"{self.name}: {part} becomes longer than {PART_CHARS_MAX} characters")
        except InvalidInput:
            raise
        except jinja2.TemplateError as error:
            raise InvalidInput(f"{self.name}: {part}: {error}") from None
        except (
            TypeError,
            ValueError,
            ArithmeticError,
            RecursionError,
            MemoryError,
            NameError,
            AssertionError,
        ) as error:
            raise InvalidInput(f"{self.name}: {part} cannot be made: {type(error).__name__}") from None
        return "".join(made)


def part_problems(part: str, source: str, known: Collection[str]) -> list[str]:
    """What is wrong with one part of a message, `text`, `subject` or `html`, for somebody who knows which fields there are."""
    _, fields, wrong = _compiled(part, source)
    return [*wrong, *(f"{part}: {problem}" for problem in _unknown(fields, known))]


def _unknown(fields: Collection[str], known: Collection[str]) -> list[str]:
    problems = []
    for field in sorted(set(fields) - set(known)):
        near = difflib.get_close_matches(field, known, 1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        problems.append(f"there is no field {field!r}; {advice}")
    return problems


def _compiled(part: str, source: str) -> tuple[jinja2.Template | None, set[str], list[str]]:
    """A part as it is rendered, the fields that it uses, and what is wrong with it."""
    if part == "text" and not source.strip():
        return None, set(), ["text is missing: every message has a plain text, mail with html too"]
    if len(source) > PART_CHARS_MAX:
        return None, set(), [f"{part} has {len(source)} characters: at most {PART_CHARS_MAX}"]
    environment = _HTML if part == "html" else _TEXT
    fields: set[str] = set()
    try:
        tree = environment.parse(source)
        fields = jinja2.meta.find_undeclared_variables(tree)
        forbidden = [f"{part}, line {line}: {what}" for line, what in _forbidden(tree)]
        return None if forbidden else environment.from_string(source), fields, forbidden
    except jinja2.TemplateSyntaxError as error:
        return None, fields, [f"{part}, line {error.lineno}: {error.message}"]
    except (jinja2.TemplateError, RecursionError, MemoryError, OverflowError, SyntaxError) as error:
        return None, fields, [f"{part}: {type(error).__name__}: {error}"]


class _Missing(jinja2.StrictUndefined):
    """A field that nobody has given."""

    @property
    def _undefined_message(self) -> str:
        name = self._undefined_name
        return f'the field {name!r} is missing: give it, or write {{{{ {name} | default("…") }}}}'


class _Empty(_Missing):
    """A field that this person does not have: printing it is an error, asking for it is not."""

    def __bool__(self) -> bool:  # type: ignore[override]  # the parent's raises
        return False


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox with nothing in it."""

    intercepted_binops = frozenset({"**", "*", "%"})

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(autoescape=autoescape, undefined=_Missing, keep_trailing_newline=False)
        self.globals = {}
        self.filters = {name: self.filters[name] for name in FILTERS if name in self.filters}
        self.filters |= {"join": _joined, "round": _rounded}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """None is but those of a loop: the values are plain."""
        return isinstance(obj, jinja2.runtime.LoopContext) and not attr.startswith("_")

    def is_safe_callable(self, obj: Any) -> bool:
        """None is: there is nothing to call."""
        return False

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiplication is for numbers: a text times a million is an attack."""
        plain = all(isinstance(one, int | float) and abs(one) < 10**12 for one in (left, right))
        if operator == "**" or not plain:
            raise jinja2.TemplateRuntimeError(f"{operator} works with numbers only, and ** not at all")
        return super().call_binop(context, operator, left, right)


@jinja2.pass_eval_context
def _joined(
    context: jinja2.nodes.EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    """Jinja's `join`, without what grows by multiplying: every letter of a text with another text behind it."""
    items = list(value)
    if len(items) * len(str(d)) > PART_CHARS_MAX:
        raise jinja2.TemplateRuntimeError(f"join makes more than {PART_CHARS_MAX} characters")
    return str(jinja2.filters.sync_do_join(context, items, d, attribute))


def _rounded(value: float, precision: int = 0, method: str = "common") -> float:
    """Jinja's `round`, which takes ten to the power of whatever precision it is told."""
    if not -DECIMALS_MAX <= precision <= DECIMALS_MAX:
        raise jinja2.TemplateRuntimeError(f"round works with at most {DECIMALS_MAX} decimals")
    return jinja2.filters.do_round(value, precision, method)  # type: ignore[arg-type]  # it looks at the method itself


_TEXT: Final = _Environment(autoescape=False)
_HTML: Final = _Environment(autoescape=True)

_NOT_HERE: Final = {
    jinja2.nodes.Call: "nothing can be called",
    jinja2.nodes.Getattr: "a field has no attributes",
    jinja2.nodes.Include: "include is not possible: a template stands alone",
    jinja2.nodes.Import: "import is not possible: a template stands alone",
    jinja2.nodes.FromImport: "import is not possible: a template stands alone",
    jinja2.nodes.Extends: "extends is not possible: a template stands alone",
    jinja2.nodes.Macro: "macro is not possible",
    jinja2.nodes.CallBlock: "call is not possible",
    jinja2.nodes.Assign: "set is not possible",
    jinja2.nodes.AssignBlock: "set is not possible",
    jinja2.nodes.With: "with is not possible",
    jinja2.nodes.FilterBlock: "filter is not possible around a block: write {{ field | upper }}",
    jinja2.nodes.Pow: "** is not possible",
}


def _forbidden(tree: jinja2.nodes.Template) -> list[tuple[int, str]]:
    """What a message has no use for, with its line. `loop` alone has attributes."""
    found = []
    for kind, what in _NOT_HERE.items():
        for node in tree.find_all(kind):
            of = node.node if isinstance(node, jinja2.nodes.Getattr) else None
            if not (isinstance(of, jinja2.nodes.Name) and of.name == "loop"):
                found.append((node.lineno, what))
    nested = [inner for outer in tree.find_all(jinja2.nodes.For) for inner in outer.find_all(jinja2.nodes.For)]
    found += [(node.lineno, "a loop within a loop is not possible") for node in nested]
    mentions = list(tree.find_all(jinja2.nodes.Name))
    if len(mentions) > MENTIONS_MAX:
        line = mentions[MENTIONS_MAX].lineno
        found.append((line, f"fields are named {len(mentions)} times: at most {MENTIONS_MAX}"))
    return sorted(set(found))


def _value(name: str, value: Value) -> Any:
    if value is None or value in ("", ()):
        return _Empty(name=name)
    if isinstance(value, Markup) or not isinstance(value, str | int | tuple | list):
        raise InvalidInput(f"the field {name!r} holds a {type(value).__name__}: text, whole numbers and lists of them")
    return value
