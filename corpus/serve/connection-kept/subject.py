"""SQLAlchemy: a scorer that reads features through a pool of connections."""

import sqlalchemy
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

engine = sqlalchemy.create_engine(
    "sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=5
)


def features_of(connection, user):
    return connection.execute(text("select :user * 2"), {"user": user}).scalar()


def handle(user):
    connection = engine.connect()
    score = features_of(connection, user) / 10
    connection.close()
    return score
