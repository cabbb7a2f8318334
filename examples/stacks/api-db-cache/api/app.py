"""Counts visits. Every request writes to PostgreSQL and to Redis, and reads both back.

The other services are found by their names in compose.yaml, `db` and `cache`.
"""

import asyncio
import os
from contextlib import asynccontextmanager

import asyncpg
import redis.asyncio as redis
from fastapi import FastAPI

# Change this while `stack watch` runs, and ask again.
GREETING = "Hello from the stack"

SCHEMA = """
CREATE TABLE IF NOT EXISTS visit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS probe (
    id int PRIMARY KEY,
    count bigint NOT NULL
);
"""
# Replicas that start together must not create the tables at the same moment.
SCHEMA_LOCK = 7_317


async def open_database() -> asyncpg.Pool:
    """A pool replaces connections that the database closed, so a restart of `db` needs none of `api`."""
    pool = await asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=1, max_size=10, command_timeout=10
    )
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
        await connection.execute(SCHEMA)
    return pool


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.database = await open_database()
    app.state.cache = redis.from_url(os.environ["CACHE_URL"], decode_responses=True)
    yield
    await app.state.cache.aclose()
    await app.state.database.close()


app = FastAPI(title="api-db-cache", lifespan=lifespan)


async def database_visit() -> int:
    async with app.state.database.acquire() as connection:
        await connection.execute("INSERT INTO visit DEFAULT VALUES")
        return await connection.fetchval("SELECT count(*) FROM visit")


async def cache_visit() -> int:
    await app.state.cache.incr("visits")
    return int(await app.state.cache.get("visits"))


@app.get("/")
async def visit():
    in_database, in_cache = await asyncio.gather(database_visit(), cache_visit())
    return {"greeting": GREETING, "visits": {"database": in_database, "cache": in_cache}}


@app.get("/health")
async def health():
    """Healthy means: both can be written and read."""
    count = await app.state.database.fetchval(
        "INSERT INTO probe VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = probe.count + 1 RETURNING count"
    )
    await app.state.cache.set("probe", count)
    return {"database": count, "cache": int(await app.state.cache.get("probe"))}
