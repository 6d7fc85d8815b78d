"""One run of one peer: reads rows from a CSV file, writes them, and prints one line of JSON.

    run.py PEER --url URL --rows tasks.csv [--batch 1000] [--limit N]

`seconds` is the work alone: the interpreter's start, reading the file and connecting come before. The tables are the
caller's to make and to empty. Whoever writes in batches commits each, as Barge does; `once` in a name says that one
statement writes all.
"""

import argparse
import asyncio
import csv
import itertools
import json
import sqlite3
import time
from importlib.metadata import version

COLUMNS = ("id", "task_type", "status", "data", "account", "amount")
INSERT_SQLITE = f"INSERT INTO tasks ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

PEERS = {}


def peer(name, *packages):
    """Registers a function that does a peer's work and returns how long it took."""

    def register(run):
        PEERS[name] = (run, packages)
        return run

    return register


# PostgreSQL


@peer("asyncpg-copy", "asyncpg")
def asyncpg_copy(job):
    import asyncpg

    async def work():
        connection = await asyncpg.connect(job.url)
        with Stopwatch() as watch:
            for batch in job.batches(job.tuples()):
                await connection.copy_records_to_table("tasks", records=batch, columns=COLUMNS)
        await connection.close()
        return watch.seconds

    return asyncio.run(work())


@peer("psycopg-copy", "psycopg")
def psycopg_copy(job):
    import psycopg

    batches = job.batches(job.tuples())
    with psycopg.connect(job.url) as connection, connection.cursor() as cursor, Stopwatch() as watch:
        for batch in batches:
            with cursor.copy(f"COPY tasks ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                for row in batch:
                    copy.write_row(row)
            connection.commit()
    return watch.seconds


@peer("sqlalchemy-add", "sqlalchemy", "psycopg")
def sqlalchemy_add(job):
    """An object added and committed at a time."""
    session, task = sqlalchemy_session(job)
    rows = job.mappings()
    with Stopwatch() as watch:
        for row in rows:
            session.add(task(**row))
            session.commit()
    session.close()
    return watch.seconds


@peer("sqlalchemy-insert", "sqlalchemy", "psycopg")
def sqlalchemy_insert(job):
    session, task = sqlalchemy_session(job)
    batches = job.batches(job.mappings())
    with Stopwatch() as watch:
        for batch in batches:
            session.bulk_insert_mappings(task, batch)
            session.commit()
    session.close()
    return watch.seconds


@peer("sqlalchemy-update", "sqlalchemy", "psycopg")
def sqlalchemy_update(job):
    session, task = sqlalchemy_session(job)
    batches = job.batches(job.mappings())
    with Stopwatch() as watch:
        for batch in batches:
            session.bulk_update_mappings(task, batch)
            session.commit()
    session.close()
    return watch.seconds


@peer("adbc-once", "adbc-driver-postgresql", "pyarrow")
def adbc_once(job):
    from adbc_driver_postgresql import dbapi

    return adbc_ingest(dbapi.connect(job.url), job)


# DuckDB, whose url is the file's path.


@peer("duckdb-executemany", "duckdb")
def duckdb_executemany(job):
    import duckdb

    batches = job.batches(job.tuples())
    insert = f"INSERT INTO tasks ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    with duckdb.connect(job.url) as connection, Stopwatch() as watch:
        for batch in batches:
            connection.begin()
            connection.executemany(insert, batch)
            connection.commit()
    return watch.seconds


# SQLite, whose url is the file's path. With `:memory:`, sqlalchemy-* make the table themselves.


@peer("sqlite3-executemany")
def sqlite3_executemany(job):
    connection = sqlite3.connect(job.url)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    batches = job.batches(job.tuples())
    with Stopwatch() as watch:
        for batch in batches:
            connection.executemany(INSERT_SQLITE, batch)
            connection.commit()
    connection.close()
    return watch.seconds


@peer("sqlite-utils", "sqlite-utils")
def sqlite_utils(job):
    import sqlite_utils as peer

    database = peer.Database(job.url)
    rows = job.mappings()
    with Stopwatch() as watch:
        database["tasks"].insert_all(rows, pk="id", batch_size=job.batch)
    return watch.seconds


@peer("sqlite-adbc-once", "adbc-driver-sqlite", "pyarrow")
def sqlite_adbc_once(job):
    from adbc_driver_sqlite import dbapi

    return adbc_ingest(dbapi.connect(job.url), job)


# What they share


def adbc_ingest(connection, job):
    table = job.arrow()
    with connection, connection.cursor() as cursor, Stopwatch() as watch:
        cursor.adbc_ingest("tasks", table, mode="append")
        connection.commit()
    return watch.seconds


def sqlalchemy_session(job):
    """A session with an open connection, and the mapped class, on either database."""
    from sqlalchemy import BigInteger, Double, Text, create_engine, text
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Task(Base):
        __tablename__ = "tasks"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        task_type: Mapped[str] = mapped_column(Text)
        status: Mapped[str] = mapped_column(Text)
        data: Mapped[str] = mapped_column(Text)
        account: Mapped[int] = mapped_column(BigInteger)
        amount: Mapped[float] = mapped_column(Double)

    if "://" in job.url:
        url = f"postgresql+{job.driver}://{job.url.split('://', 1)[1]}"
    else:
        url = f"sqlite:///{job.url}"
    session = Session(create_engine(url))
    if job.url == ":memory:":
        # Only this process can make it.
        Base.metadata.create_all(session.connection())
        session.commit()
    session.execute(text("SELECT 1"))
    session.rollback()
    return session, Task


class Stopwatch:
    def __enter__(self):
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.started


class Job:
    """What a run was asked for."""

    def __init__(self, arguments):
        self.url = arguments.url
        self.file = arguments.rows
        self.batch = arguments.batch
        self.limit = arguments.limit
        self.driver = arguments.driver
        self.rows = 0

    def tuples(self):
        with open(self.file, newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            assert tuple(next(lines)) == COLUMNS, f"{self.file}: the columns are not {COLUMNS}"
            rows = [
                (int(id), task_type, status, data, int(account), float(amount))
                for id, task_type, status, data, account, amount in itertools.islice(lines, self.limit)
            ]
        self.rows = len(rows)
        return rows

    def mappings(self):
        return [dict(zip(COLUMNS, row)) for row in self.tuples()]

    def arrow(self):
        from pyarrow import csv as arrow_csv

        table = arrow_csv.read_csv(self.file)
        table = table if self.limit is None else table.slice(0, self.limit)
        self.rows = table.num_rows
        return table

    def batches(self, rows):
        return [rows[first : first + self.batch] for first in range(0, len(rows), self.batch)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("--url", required=True, help="postgresql://… or the path of an SQLite file")
    parser.add_argument("--rows", required=True, help="a CSV file with a header")
    parser.add_argument("--batch", type=int, default=1_000, help="rows a batch, each committed [1000]")
    parser.add_argument("--limit", type=int, help="only so many rows of the file")
    parser.add_argument("--driver", default="psycopg", choices=["psycopg", "psycopg2"], help="SQLAlchemy's [psycopg]")
    arguments = parser.parse_args()
    run, packages = PEERS[arguments.peer]
    job = Job(arguments)
    seconds = run(job)
    versions = {package: version(package) for package in packages}
    print(json.dumps({"peer": arguments.peer, "rows": job.rows, "seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    main()
