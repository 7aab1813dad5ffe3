"""What psycopg 2 gets. The connection is in the environment (PGHOST ...)."""
import io
import os
import select
import threading

import psycopg2
import psycopg2.extras


def show(name, value):
    print(f"{name}: {value!r}")


def attempt(name, f):
    try:
        show(name, f())
    except psycopg2.Error as e:
        show(name + " failed", (e.pgcode, str(e).strip()))


def main():
    c = psycopg2.connect("")
    c.autocommit = True
    k = c.cursor()

    def rows(sql, args=None):
        k.execute(sql, args)
        return k.fetchall() if k.description else k.statusmessage

    attempt("types", lambda: rows("select %s, %s, %s::bytea, %s::int[], %s::jsonb::text, %s", (42, "ä€", psycopg2.Binary(b"\0\xff"), [1, 2], psycopg2.extras.Json({"a": 1}), None))[0][:2])
    attempt("table", lambda: rows("create table d(i int primary key, s text)"))
    attempt("error", lambda: rows("select 1/0"))
    attempt("several", lambda: rows("insert into d values (1, 'x'); select * from d"))
    c.autocommit = False

    def transaction():
        rows("insert into d values (2, 'y')")
        rows("savepoint a")
        attempt("duplicate", lambda: rows("insert into d values (2, 'z')"))
        rows("rollback to a")
        c.commit()
        rows("delete from d")
        c.rollback()
        return rows("select * from d order by i")

    attempt("transaction", transaction)
    c.rollback()

    def copy():
        k.copy_expert("copy d from stdin", io.StringIO("".join(f"{i}\trow\n" for i in range(10, 5000))))
        out = io.StringIO()
        k.copy_expert("copy (select * from d where i > 4990 order by i) to stdout", out)
        c.commit()
        return out.getvalue()

    attempt("copy", copy)

    def bad_copy():
        k.copy_expert("copy d from stdin", io.StringIO("no number\trow\n"))

    attempt("bad copy", bad_copy)
    c.rollback()

    def named():
        s = c.cursor("held")
        s.itersize = 7
        s.execute("select i from d order by i")
        got = s.fetchmany(10)
        s.close()
        return got

    attempt("named cursor", named)
    c.rollback()
    c.autocommit = True
    attempt("large", lambda: [(n, len(t)) for n, t in rows("select length(%s), %s", ("q" * 2000000, "q" * 2000000))])
    attempt("settings", lambda: (rows("set datestyle to german"), rows("select '2024-02-01'::date::text"), c.get_parameter_status("DateStyle")))
    def cancel():
        t = threading.Timer(0.3, c.cancel)
        t.start()
        try:
            return rows("select pg_sleep(20)")
        finally:
            t.join()

    attempt("cancel", cancel)
    attempt("after it", lambda: rows("select 1"))

    def notification():
        rows("listen news")
        o = psycopg2.connect("")
        o.autocommit = True
        o.cursor().execute("notify news, 'hello'")
        o.close()
        while not c.notifies:
            select.select([c], [], [], 10)
            c.poll()
        n = c.notifies.pop()
        return n.channel, n.payload

    if "STATELESS" not in os.environ:
        attempt("temporary table", lambda: (rows("create temp table e as select 7 as i"), rows("select * from e")))
        attempt("isolation", lambda: (c.set_session(isolation_level="SERIALIZABLE"), rows("show transaction_isolation")))
        attempt("notification", notification)
    c.close()


main()
