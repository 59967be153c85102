"""The real servers behave as the tests that use them assume."""

from __future__ import annotations

import psycopg
import pytest
from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.servers import PostgresServer, RedisServer


def client_of(server: RedisServer, seconds: float = 60.0) -> Redis:
    return Redis.from_url(server.url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=None)


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_shared_server_is_empty_at_the_start_of_each_test(redis: RedisServer, attempt: int):
    with client_of(redis) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_a_stopped_server_refuses_and_comes_back_empty_on_its_port(own_redis: RedisServer):
    port = own_redis.port
    with client_of(own_redis) as client:
        client.set("a", "1")
        own_redis.stop()
        with pytest.raises(RedisConnectionError):
            client.ping()
        own_redis.start()
        assert own_redis.port == port
        assert client.get("a") is None


def test_a_paused_server_is_silent_until_it_resumes(own_redis: RedisServer):
    with client_of(own_redis) as client, client_of(own_redis, 0.5) as hurried:
        client.set("a", "1")
        own_redis.pause()
        with pytest.raises(RedisTimeoutError):
            hurried.get("a")
        own_redis.resume()
        assert client.get("a") == b"1"


def test_a_saved_server_comes_back_older_and_restart_empty_forgets_that_too(own_redis: RedisServer):
    with client_of(own_redis) as client:
        client.set("a", "old")
        client.save()
        client.set("a", "new")
        own_redis.kill()
        own_redis.start()
        assert client.get("a") == b"old"
        own_redis.restart_empty()
        assert client.dbsize() == 0


def test_the_cluster_serves_every_slot(redis_cluster: RedisServer):
    with RedisCluster(host=redis_cluster.host, port=redis_cluster.port) as client:
        for number in range(20):
            client.set(f"key{number}", number)
        assert client.get("key7") == b"7"


@pytest.mark.parametrize("attempt", [1, 2])
def test_each_test_gets_an_empty_database_of_its_own(postgres: str, attempt: int):
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT current_user, current_setting('fsync')").fetchone() == ("kiki", "on")
        connection.execute("CREATE TABLE left_behind ()")


def test_a_crashed_database_server_comes_back_with_what_was_committed(own_postgres: PostgresServer):
    url, port = own_postgres.new_database(), own_postgres.port
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")
        own_postgres.crash()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not own_postgres.is_running
    own_postgres.start()
    assert own_postgres.port == port
    with psycopg.connect(url) as connection:
        assert connection.execute("TABLE kept").fetchall() == [(1,)]


def test_a_paused_database_server_is_silent_until_it_resumes(own_postgres: PostgresServer):
    own_postgres.pause()
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(own_postgres.url("postgres"), connect_timeout=2)
    own_postgres.resume()
    psycopg.connect(own_postgres.url("postgres")).close()
