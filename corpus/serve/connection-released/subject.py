"""redis: a scorer that reads features through a pool of connections."""

import fakeredis
import redis

pool = redis.ConnectionPool(
    connection_class=fakeredis.FakeConnection, max_connections=1, server=fakeredis.FakeServer()
)


def features_of(connection, user):
    connection.send_command("ECHO", user * 2)
    return int(connection.read_response())


def handle(user):
    connection = pool.get_connection()
    try:
        return features_of(connection, user) / 10
    finally:
        pool.release(connection)
