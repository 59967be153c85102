"""Settings: what the environment may say, what it becomes, and that every mistake is told at once."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import SettingsError
from kiki.settings import (
    ARCHIVE_VARIABLES,
    CLIENT_VARIABLES,
    DATABASE_VARIABLES,
    KEY_VARIABLES,
    LISTEN_VARIABLES,
    REDIS_VARIABLES,
    SHIELD_VARIABLES,
    VALUE_VARIABLES,
    VARIABLES,
    LedgerSettings,
    ListenSettings,
    RedisAddress,
    Secret,
    ShieldSettings,
    ValueSettings,
    is_loopback,
    ltv_address,
    parse_listen,
    parse_url,
    redis_address,
    shield_url,
)


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        ShieldSettings.parse(environ)
    return caught.value.problems


def problem(**environ: str) -> str:
    (only,) = problems(**environ)
    return only


class TestDefaults:
    def test_an_empty_environment_gives_the_guides_defaults(self):
        settings = ShieldSettings.parse({})
        assert (settings.listen.port, settings.listen.host) == (8081, "127.0.0.1")
        assert settings.listen.public_port is None
        assert settings.listen.public_host == "127.0.0.1"
        assert (settings.listen.rate, settings.listen.public_rate) == (0.0, 200.0)
        assert settings.listen.allowed_hosts == ()
        assert settings.listen.body_bytes_max == 1024 * 1024
        assert (settings.listen.request_seconds_max, settings.listen.drain_seconds) == (10.0, 10.0)
        assert settings.budget_micros == 500_000_000
        assert settings.window_micros == 60_000_000
        assert (settings.ltv_min_micros, settings.ltv_max_micros) == (10_000_000, 10_000_000_000)
        assert (settings.currency, settings.retention_days) == ("USD", 2555)
        assert settings.data_dir == Path("./kiki-data")
        assert (settings.policy_file, settings.listen.tokens_file) == (None, None)
        assert settings.redis == RedisAddress((("localhost", 6379),))
        assert (settings.redis_mode, settings.redis_prefix, settings.redis_timeout_seconds) == ("auto", "kiki", 0.25)
        assert (settings.scopes_max, settings.keys_max) == (1_000_000, 10_000_000)
        assert (settings.audit_csv, settings.audit_csv_bytes_max) == (True, 256 * 1024 * 1024)
        assert settings.log_level == "info"

    def test_names_of_other_programs_are_ignored(self):
        assert ShieldSettings.parse({"PATH": "/bin", "HOME": "/root", "REDIS_URL": "x"}) == ShieldSettings.parse({})

    def test_settings_are_frozen(self):
        with pytest.raises(FrozenInstanceError):
            ShieldSettings.parse({}).currency = "EUR"

    def test_another_service_has_its_own_port(self):
        assert parse_listen({}, port=8083).port == 8083
        assert parse_listen({"PORT": "9"}, port=8083).port == 9


class TestTheTables:
    def test_every_variable_is_listed_once_and_explained(self):
        names = [variable.name for variable in VARIABLES]
        assert len(set(names)) == len(names)
        assert [variable.name for variable in VARIABLES if not variable.help] == []

    @pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
    def test_every_default_is_accepted_by_its_own_parser(self, variable):
        if variable.default is not None:
            assert variable.read({variable.name: variable.default}) == variable.read({})
        else:
            assert variable.read({}) is None
            assert variable.read({variable.name: ""}) is None

    @pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
    def test_an_empty_text_is_never_quietly_a_default(self, variable):
        if variable.default is not None:
            with pytest.raises(ValueError, match=f"^{variable.name}=''"):
                variable.read({variable.name: ""})

    def test_the_tables_fill_every_field(self):
        listen = {variable.field for variable in LISTEN_VARIABLES} | {"otel"}
        assert listen == {field.name for field in fields(ListenSettings)}
        own = {variable.field for variable in SHIELD_VARIABLES} | {"listen", "redis"}
        own |= {variable.field for variable in REDIS_VARIABLES if not variable.name.startswith("REDIS_")}
        assert own | {"ledger"} == {field.name for field in fields(ShieldSettings)}
        ledger = {variable.field for variable in (*KEY_VARIABLES, *DATABASE_VARIABLES, *ARCHIVE_VARIABLES)}
        ledger = {field for field in ledger if not field.startswith("db_")} - {"postgres_password"} | {"data_dir"}
        assert ledger == {field.name for field in fields(LedgerSettings)}

    @pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
    @given(text=st.text(max_size=80))
    def test_no_text_makes_a_parser_fail_otherwise(self, variable, text):
        """A parser gives a value or raises ValueError with the variable's name first, whatever it is given."""
        try:
            variable.read({variable.name: text})
        except ValueError as error:
            assert str(error).startswith(variable.name)  # noqa: PT017


ACCEPTED = [
    ("PORT", "0", lambda s: s.listen.port, 0),
    ("PORT", "65535", lambda s: s.listen.port, 65535),
    ("KIKI_HOST", "::1", lambda s: s.listen.host, "::1"),
    ("KIKI_HOST", "[::]", lambda s: s.listen.host, "::"),
    ("KIKI_HOST", "0.0.0.0", lambda s: s.listen.host, "0.0.0.0"),
    ("KIKI_RATE", "0.5", lambda s: s.listen.rate, 0.5),
    ("KIKI_ALLOWED_HOSTS", "Shield.kiki.io, 10.0.0.5,[::1]", lambda s: s.listen.allowed_hosts,
     ("shield.kiki.io", "10.0.0.5", "::1")),
    ("KIKI_BODY_BYTES_MAX", "64KiB", lambda s: s.listen.body_bytes_max, 65536),
    ("KIKI_BODY_BYTES_MAX", "2048", lambda s: s.listen.body_bytes_max, 2048),
    ("KIKI_DRAIN_SECONDS", "0", lambda s: s.listen.drain_seconds, 0.0),
    ("KIKI_ACCESS_LOG", "Yes", lambda s: s.listen.access_log, True),
    ("MAX_BURST_BUDGET", "1000", lambda s: s.budget_micros, 1_000_000_000),
    ("MAX_BURST_BUDGET", "0.000001", lambda s: s.budget_micros, 1),
    ("WINDOW_SECONDS", "60", lambda s: s.window_micros, 60_000_000),
    ("WINDOW_SECONDS", "60.0", lambda s: s.window_micros, 60_000_000),
    ("WINDOW_SECONDS", "0.5", lambda s: s.window_micros, 500_000),
    ("WINDOW_SECONDS", "0.000001", lambda s: s.window_micros, 1),
    ("WINDOW_SECONDS", "31622400", lambda s: s.window_micros, 366 * 86400 * 1_000_000),
    ("KIKI_CURRENCY", "EUR", lambda s: s.currency, "EUR"),
    ("KIKI_POLICY_FILE", "/etc/budgets.yaml", lambda s: s.policy_file, Path("/etc/budgets.yaml")),
    ("RETENTION_DAYS", "36500", lambda s: s.retention_days, 36500),
    ("REDIS_ADDR", "redis:6379", lambda s: s.redis.hosts, (("redis", 6379),)),
    ("REDIS_PASSWORD", "pässword", lambda s: s.redis.password.reveal(), "pässword"),
    ("REDIS_USERNAME", "kiki", lambda s: s.redis.username, "kiki"),
    ("REDIS_TLS", "on", lambda s: s.redis.tls, True),
    ("KIKI_REDIS", "off", lambda s: s.redis_mode, "off"),
    ("KIKI_REDIS_PREFIX", "a.b-c_D9", lambda s: s.redis_prefix, "a.b-c_D9"),
    ("KIKI_REDIS_TIMEOUT_SECONDS", "1.5", lambda s: s.redis_timeout_seconds, 1.5),
    ("KIKI_AUDIT_CSV", "0", lambda s: s.audit_csv, False),
    ("KIKI_AUDIT_CSV_BYTES_MAX", "1GiB", lambda s: s.audit_csv_bytes_max, 2**30),
    ("KIKI_LOG_LEVEL", "debug", lambda s: s.log_level, "debug"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "get", "expected"), ACCEPTED, ids=[f"{row[0]}={row[1]}" for row in ACCEPTED])
def test_accepted(name, text, get, expected):
    assert get(ShieldSettings.parse({name: text})) == expected


REFUSED = [
    *[("PORT", text) for text in ("65536", "-1", "+1", " 80", "80 ", "8_0", "80.0", "0x50", "٨٠", "abc", "80\n")],
    *[("KIKI_HOST", text) for text in ("a b", "300.1.1.1", "[127.0.0.1]", "host:80", "-x", "http://x", "x" * 300)],
    *[("KIKI_RATE", text) for text in ("-1", "nan", "inf", "1e3", "1_0", " 1", "1000001")],
    *[("KIKI_ALLOWED_HOSTS", text) for text in ("a,,b", "a:80", ",", "http://a")],
    *[("KIKI_BODY_BYTES_MAX", text) for text in ("1", "1TiB", "1.5MiB", "-1", "64 KiB", "2GiB")],
    *[("KIKI_ACCESS_LOG", text) for text in ("2", "ja", "true ")],
    *[("MAX_BURST_BUDGET", text) for text in ("0", "-5", "nan", "inf", "1e400", "1.0000001", "5_00", "500.0 ", "$5")],
    *[("WINDOW_SECONDS", t) for t in ("0", "0.0", "-1", "nan", "Infinity", "1e3", "6_0", "60s", ".5", "5.", "0.0000001")],
    ("WINDOW_SECONDS", "31622400.000001"),
    *[("KIKI_CURRENCY", text) for text in ("usd", "US", "USDT", "ÜSD", "US\n")],
    *[("RETENTION_DAYS", text) for text in ("0", "36501", "7.5", "-1")],
    *[("KIKI_REDIS", text) for text in ("on", "AUTO", "none")],
    *[("KIKI_REDIS_PREFIX", text) for text in ("{kiki}", "a:b", "x" * 65, "a b")],
    *[("KIKI_LOG_LEVEL", text) for text in ("INFO", "trace")],
    ("KIKI_DATA_DIR", "a\0b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), REFUSED, ids=[f"{name}={text[:20]!r}" for name, text in REFUSED])
def test_refused_with_name_value_and_what_is_accepted(name, text):
    told = problem(**{name: text})
    assert told.startswith(f"{name}={repr(text)[:60]}")
    assert "expected" in told or "write" in told or "amount" in told


def test_every_mistake_is_told_at_once():
    """Five mistakes of five kinds come in one error."""
    found = problems(
        PORT="x", MAX_BURST_BUDGET="-1", REDIS_ADDR="a:b:c", KIKI_POLICYFILE="x", MIN_LTV="20", MAX_LTV="10"
    )
    told = "\n".join(found)
    assert len(found) == 5
    for name in ("PORT=", "MAX_BURST_BUDGET=", "REDIS_ADDR=", "KIKI_POLICYFILE:", "MIN_LTV="):
        assert name in told


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("KIKI_DATADIR", "KIKI_DATA_DIR"),
            ("KIKI_SHEILD_URL", "KIKI_SHIELD_URL"),
            ("KIKI_TOKEN_FILE", "KIKI_TOKENS_FILE"),
            ("kiki_rate", "KIKI_RATE"),
        ],
    )
    def test_a_typo_gets_the_nearest_name(self, name, near):
        assert problem(**{name: "1"}) == f"{name}: unknown; did you mean {near}?"

    def test_a_name_like_nothing_is_told_to_go(self):
        """Such as Kubernetes' service links inject."""
        assert "remove it" in problem(KIKI_XYZZY_FROTZ_QUUX_PLUGH="tcp://10.0.0.1:80")

    def test_client_names_are_known_to_the_service_too(self):
        ShieldSettings.parse({"KIKI_SHIELD_URL": "http://x", "SHIELD_URL": "http://x/check"})


class TestPublicPort:
    def test_it_needs_tokens(self):
        assert "KIKI_TOKENS_FILE" in problem(KIKI_PUBLIC_PORT="8443")

    def test_it_may_not_be_the_internal_one(self):
        assert "another port" in problem(KIKI_PUBLIC_PORT="8081", KIKI_TOKENS_FILE="t.yaml")

    def test_two_free_ports_are_two(self):
        listen = parse_listen({"PORT": "0", "KIKI_PUBLIC_PORT": "0", "KIKI_TOKENS_FILE": "t.yaml"})
        assert (listen.port, listen.public_port) == (0, 0)

    def test_it_binds_where_the_internal_port_does_unless_told(self):
        environ = {"KIKI_PUBLIC_PORT": "1", "KIKI_TOKENS_FILE": "t.yaml", "KIKI_HOST": "10.0.0.1"}
        assert parse_listen(environ).public_host == "10.0.0.1"
        assert parse_listen({**environ, "KIKI_PUBLIC_HOST": "0.0.0.0"}).public_host == "0.0.0.0"


REDIS_FORMS = [
    ("localhost:6379", RedisAddress((("localhost", 6379),))),
    ("redis", RedisAddress((("redis", 6379),))),
    ("10.1.2.3:1", RedisAddress((("10.1.2.3", 1),))),
    ("[::1]:7000", RedisAddress((("::1", 7000),))),
    ("[2001:DB8::1]", RedisAddress((("2001:db8::1", 6379),))),
    ("redis://cache", RedisAddress((("cache", 6379),))),
    ("redis://cache:7/3", RedisAddress((("cache", 7),), db=3)),
    ("redis://cache:7/", RedisAddress((("cache", 7),))),
    ("rediss://cache", RedisAddress((("cache", 6379),), tls=True)),
    ("redis://me:p%40ss%3A@cache:7", RedisAddress((("cache", 7),), username="me", password=Secret("p@ss:"))),
    ("redis://:secret@cache", RedisAddress((("cache", 6379),), password=Secret("secret"))),
    ("redis://me@cache", RedisAddress((("cache", 6379),), username="me")),
    ("redis+cluster://a:1,b,[::1]:3", RedisAddress((("a", 1), ("b", 6379), ("::1", 3)), cluster=True)),
    (
        "kiki-prod-redis.xxxxx.ng.0001.use1.cache.amazonaws.com:6379",
        RedisAddress((("kiki-prod-redis.xxxxx.ng.0001.use1.cache.amazonaws.com", 6379),)),
    ),
]


class TestRedisAddress:
    @pytest.mark.parametrize(("text", "expected"), REDIS_FORMS, ids=[text for text, _ in REDIS_FORMS])
    def test_every_form(self, text, expected):
        assert redis_address(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "", ":6379", "a:0", "a:65536", "a:b", "a:", "::1", "::1:6379", "[::1", "[1.2.3.4]:1", "a b", "a/1",
            "a,b", "redis://a,b", "user@a", "http://a", "redis://", "redis://a/x", "redis://a/-1", "redis://a/1/2",
            "redis://a?db=1", "redis://a#1", "redis+cluster://a/1", "redis+cluster://a,,b", "unix:///tmp/x",
            "redis://u:%ff@a", "REDIS://a:x", "a:６３７９",
        ],
    )  # fmt: skip
    def test_everything_else_is_refused(self, text):
        assert problem(REDIS_ADDR=text).startswith("REDIS_ADDR=")

    @pytest.mark.parametrize("text", ["redis://me:hunter2@a b", "redis://:hunter2@x:y", "me:hunter2@a:1"])
    def test_a_wrong_address_is_told_without_its_password(self, text):
        told = problem(REDIS_ADDR=text)
        assert "hunter2" not in told
        assert "***@" in told

    @pytest.mark.parametrize("name", ["KIKI_WITNESS_URL", "KIKI_TSA_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"])
    @pytest.mark.parametrize("password", ["hunter2", "hun/ter2@x"])
    def test_an_address_that_takes_no_password_is_told_without_the_one_it_was_given(self, name, password):
        told = problem(**{name: f"http://me:{password}@a/b"})
        assert f"{name}='http://***@a/b': expected" in told
        assert "hun" not in told

    def test_the_variables_fill_what_the_address_leaves_open(self):
        settings = ShieldSettings.parse(
            {"REDIS_ADDR": "cache:1", "REDIS_USERNAME": "me", "REDIS_PASSWORD": "pw", "REDIS_TLS": "true"}
        )
        assert settings.redis == RedisAddress((("cache", 1),), tls=True, username="me", password=Secret("pw"))

    @pytest.mark.parametrize(
        ("environ", "name"),
        [
            ({"REDIS_ADDR": "redis://me:hunter1@a", "REDIS_PASSWORD": "hunter2"}, "REDIS_PASSWORD"),
            ({"REDIS_ADDR": "redis://me:hunter1@a", "REDIS_USERNAME": "you"}, "REDIS_USERNAME"),
            ({"REDIS_ADDR": "rediss://a", "REDIS_TLS": "false"}, "REDIS_TLS"),
        ],
    )
    def test_contradictions_are_told_without_secrets(self, environ, name):
        told = problem(**environ)
        assert told.startswith(name)
        assert "hunter" not in told

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("localhost", True),
            ("127.0.0.1:1", True),
            ("127.8.8.8", True),
            ("[::1]", True),
            ("[::ffff:127.0.0.1]", True),
            ("redis", False),
            ("localhost.example.com", False),
            ("0.0.0.0", False),
            ("redis+cluster://localhost,127.0.0.1", True),
            ("redis+cluster://localhost,10.0.0.1", False),
        ],
    )
    def test_loopback_means_every_host(self, text, expected):
        assert redis_address(text).is_loopback is expected

    def test_it_is_shown_without_credentials(self):
        assert redis_address("rediss://me:pw@a:7/2").shown() == "rediss://a:7/2"
        assert redis_address("redis+cluster://a,[::1]:2").shown() == "redis+cluster://a:6379,[::1]:2"
        assert "pw" not in repr(redis_address("redis://me:pw@a"))

    @given(
        st.lists(
            st.tuples(
                st.one_of(
                    st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z][a-z0-9]{0,10}){0,3}", fullmatch=True),
                    st.ip_addresses(v=4).map(str),
                    st.ip_addresses(v=6).map(str),
                ),
                st.integers(1, 65535),
            ),
            min_size=1,
            max_size=5,
        ),
        st.booleans(),
        st.integers(0, 15),
    )
    def test_what_is_shown_is_read_back_as_the_same(self, hosts, tls, db):
        cluster = len(hosts) > 1
        address = RedisAddress(tuple(hosts), tls and not cluster, cluster, db=0 if cluster else db)
        assert redis_address(address.shown()) == address


class TestSecret:
    def test_it_never_prints(self):
        secret = Secret("hunter2")
        assert [str(secret), repr(secret), f"{secret}", f"{secret:>20}", f"{secret!r}"] == ["***"] * 5
        assert "hunter2" not in repr({"a": [secret]})
        assert secret.reveal() == "hunter2"

    def test_it_is_a_value(self):
        assert Secret("a") == Secret("a") != Secret("b")
        assert Secret("a") != "a"
        assert len({Secret("a"), Secret("a")}) == 1
        assert not Secret("")
        assert copy.deepcopy(Secret("a")) == Secret("a")

    def test_it_is_not_pickled(self):
        with pytest.raises(TypeError):
            pickle.dumps(Secret("hunter2"))

    def test_no_representation_of_the_settings_holds_one(self):
        settings = ShieldSettings.parse({"REDIS_PASSWORD": "hunter2"})
        assert "hunter2" not in repr(settings)


class TestShieldUrl:
    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({}, "http://localhost:8081"),
            ({"SHIELD_URL": "http://localhost:8081/check"}, "http://localhost:8081"),
            ({"SHIELD_URL": "http://syncshield:80/check"}, "http://syncshield:80"),
            ({"SHIELD_URL": "https://x/base/check/"}, "https://x/base"),
            ({"SHIELD_URL": "http://a", "KIKI_SHIELD_URL": "http://b/"}, "http://b"),
            ({"SHIELD_URL": "http://a", "KIKI_SHIELD_URL": ""}, "http://a"),
            ({"SHIELD_URL": ""}, "http://localhost:8081"),
            ({"KIKI_SHIELD_URL": "http://[::1]:8081"}, "http://[::1]:8081"),
        ],
    )
    def test_the_first_that_is_set_counts(self, environ, expected):
        assert shield_url(environ) == expected

    @pytest.mark.parametrize(
        "text",
        ["localhost:8081", "ftp://x", "http://", "http://x?y", "http://x#y", "http://u:p@x", "http://x y", "http://x:99999", "http://x:0"],
    )  # fmt: skip
    def test_anything_else_is_refused(self, text):
        with pytest.raises(SettingsError, match="http://localhost:8081"):
            parse_url(text)
        with pytest.raises(SettingsError, match="KIKI_SHIELD_URL"):
            shield_url({"KIKI_SHIELD_URL": text})

    def test_both_names_are_first_in_the_table(self):
        assert [variable.name for variable in CLIENT_VARIABLES[:2]] == ["KIKI_SHIELD_URL", "SHIELD_URL"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("LOCALHOST.", True), ("a.localhost", True), ("::1", True), ("example.com", False), ("", False)],
)  # fmt: skip
def test_loopback_names(host, expected):
    assert is_loopback(host) is expected


class TestValue:
    def problem(self, **environ: str) -> str:
        with pytest.raises(SettingsError) as caught:
            ValueSettings.parse(environ)
        (only,) = caught.value.problems
        return only

    def test_an_empty_environment_gives_both_ports_on_the_loopback(self):
        settings = ValueSettings.parse({})
        assert (settings.port, settings.listen.port, settings.listen.host) == (50051, 9051, "127.0.0.1")
        assert (settings.model_file, settings.customers_file) == (Path("kiki-data/value-model.json"), None)
        assert (settings.unknown, settings.batch_max, settings.reload_seconds) == ("prior", 10_000, 1.0)

    def test_the_tables_fill_every_field(self):
        own = {variable.field for variable in VALUE_VARIABLES} - {"http_port"} | {"listen", "log_level"}
        assert own == {field.name for field in fields(ValueSettings)}

    @pytest.mark.parametrize(
        ("environ", "ports"),
        [
            ({"PORT": "1"}, (1, 9051)),
            ({"PORT": "1", "KIKI_VALUE_PORT": "2"}, (2, 9051)),
            ({"KIKI_VALUE_HTTP_PORT": "3"}, (50051, 3)),
            ({"PORT": "1", "KIKI_PUBLIC_PORT": "8443"}, (1, 9051)),
        ],
    )
    def test_port_is_the_grpc_port_and_the_own_name_goes_first(self, environ, ports):
        settings = ValueSettings.parse(environ)
        assert (settings.port, settings.listen.port) == ports
        assert settings.listen.public_port is None

    def test_beyond_this_machine_it_wants_callers_it_can_tell_apart(self):
        assert "KIKI_VALUE_ANONYMOUS=true" in self.problem(KIKI_HOST="0.0.0.0")
        files = {"KIKI_VALUE_TLS_CERT_FILE": "c", "KIKI_VALUE_TLS_KEY_FILE": "k"}
        assert "anybody" in self.problem(KIKI_HOST="10.0.0.5", **files)
        for proof in (
            {"KIKI_TOKENS_FILE": "t"},
            {"KIKI_VALUE_TLS_CLIENT_CA_FILE": "a", **files},
            {"KIKI_VALUE_ANONYMOUS": "true"},
        ):
            assert ValueSettings.parse({"KIKI_HOST": "0.0.0.0"} | proof).listen.host == "0.0.0.0"

    @pytest.mark.parametrize(
        ("environ", "said"),
        [
            ({"KIKI_VALUE_TLS_CERT_FILE": "c"}, "needs both"),
            ({"KIKI_VALUE_TLS_KEY_FILE": "k"}, "needs both"),
            ({"KIKI_VALUE_TLS_CLIENT_CA_FILE": "a"}, "KIKI_VALUE_TLS_CERT_FILE"),
            ({"KIKI_VALUE_PORT": "9051"}, "another port"),
            ({"KIKI_VALUE_UNKNOWN": "guess"}, "expected prior or not-found"),
            ({"KIKI_VALUE_BATCH_MAX": "0"}, "expected a whole number from 1"),
            ({"KIKI_VALUE_MODLE": "m"}, "did you mean KIKI_VALUE_MODEL?"),
        ],
    )
    def test_contradictions_and_typing_mistakes_are_told(self, environ, said):
        assert said in self.problem(**environ)

    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({}, "localhost:50051"),
            ({"LTV_GRPC_ADDR": ""}, "localhost:50051"),
            ({"LTV_GRPC_ADDR": "syncvalue:50051"}, "syncvalue:50051"),
            ({"LTV_GRPC_ADDR": "[::1]:1"}, "[::1]:1"),
        ],
    )
    def test_clients_find_it(self, environ, expected):
        assert ltv_address(environ) == expected

    @pytest.mark.parametrize("text", ["syncvalue", ":50051", "a:0", "a:65536", "http://a:1", "::1:5", "a b:1", "a:1:2"])
    def test_anything_else_is_no_address(self, text):
        with pytest.raises(SettingsError, match=r"expected host:port, for example localhost:50051"):
            ltv_address({"LTV_GRPC_ADDR": text})
