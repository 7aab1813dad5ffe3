"""What psycopg 3 gets. The connection is in the environment (PGHOST ...)."""
import os
import threading

import psycopg


def show(name, value):
    print(f"{name}: {value!r}")


def attempt(name, f):
    try:
        show(name, f())
    except psycopg.Error as e:
        show(name + " failed", (e.sqlstate, str(e).strip()))


def main():
    c = psycopg.connect("", autocommit=True)

    def rows(sql, args=None, **more):
        k = c.execute(sql, args, **more)
        return k.fetchall() if k.description else k.statusmessage

    attempt("types", lambda: rows("select %s::int, %s, %s::bytea, %s::int[], %s::text", (42, "ä€", b"\0\xff", [1, 2], None)))
    attempt("binary", lambda: c.cursor(binary=True).execute("select %b::int8, %b::float8, now() > '2000-01-01'", (7, 1.5)).fetchall())
    attempt("table", lambda: rows("create table d(i int primary key, s text)"))
    attempt("prepared", lambda: sum(rows("select %s::int + 1", (i,))[0][0] for i in range(20)))
    attempt("prepared at once", lambda: rows("select %s::text", ("x",), prepare=True))
    attempt("error", lambda: rows("select 1/0"))

    def transaction():
        with c.transaction():
            rows("insert into d values (1, 'x')")
            try:
                with c.transaction():
                    rows("insert into d values (1, 'again')")
            except psycopg.errors.UniqueViolation as e:
                show("duplicate", e.sqlstate)
            rows("insert into d values (2, 'y')")
        return rows("select * from d order by i")

    attempt("transaction", transaction)

    def changed():
        q = "select * from d order by i"
        for _ in range(8):
            rows(q)
        rows("alter table d add column n int")
        return rows(q)

    attempt("after a change", changed)
    attempt("and again", lambda: rows("select * from d order by i"))

    def pipeline():
        with c.pipeline() as p:
            ks = [c.execute("select %s::int", (i,)) for i in range(50)]
            p.sync()
            return sum(k.fetchone()[0] for k in ks)

    attempt("pipeline", pipeline)

    def prepared_pipeline():
        with c.pipeline() as p:
            ks = [c.execute("select %s::int + %s", (i, i % 3), prepare=True) for i in range(40)]
            p.sync()
            ks += [c.execute("select %s::int + %s, 'another'", (i, i % 3), prepare=True) for i in range(40)]
            return sum(k.fetchone()[0] for k in ks)

    attempt("prepared pipeline", prepared_pipeline)

    def always_prepared():
        with psycopg.connect("", autocommit=True, prepare_threshold=0) as o:
            o.prepared_max = 5
            got = sum(o.execute(f"select %s::int + {n % 9}", (n,)).fetchone()[0] for n in range(60))
            with o.transaction():
                o.cursor().executemany("insert into d values (%s, %s)", [(i, "many") for i in range(5000, 5050)])
            return got, o.execute("select count(*) from d where s = 'many'").fetchone(), o.execute("delete from d where s = 'many'").rowcount

    attempt("always prepared", always_prepared)

    def failing():
        with c.pipeline() as p:
            c.execute("insert into d values (7, 'p')")
            c.execute("select 1/0")
            c.execute("insert into d values (8, 'p')")
            p.sync()

    attempt("failing pipeline", failing)
    attempt("after it", lambda: rows("select count(*) from d"))

    def copy():
        with c.cursor() as k:
            with k.copy("copy d(i, s) from stdin") as w:
                for i in range(100, 3000):
                    w.write_row((i, "row"))
            with k.copy("copy (select i from d where i > 2995 order by i) to stdout") as r:
                return [x for x in r.rows()]

    attempt("copy", copy)

    def server_side():
        with c.transaction():
            with c.cursor("held") as k:
                k.execute("select i from d order by i")
                return k.fetchmany(3)

    attempt("server-side cursor", server_side)
    attempt("large", lambda: [(n, len(t)) for n, t in rows("select length(%s), %s", ("q" * 2000000, "q" * 2000000))])
    attempt("settings", lambda: (rows("set timezone = 'Asia/Tokyo'"), c.info.parameter_status("TimeZone"), rows("show timezone")))

    def cancel():
        t = threading.Timer(0.3, c.cancel)
        t.start()
        try:
            return rows("select pg_sleep(20)")
        finally:
            t.join()

    attempt("cancel", cancel)

    def notification():
        rows("listen news")
        with psycopg.connect("", autocommit=True) as o:
            o.execute("notify news, 'hello'")
        for n in c.notifies():
            return n.channel, n.payload

    if "STATELESS" not in os.environ:
        attempt("temporary table", lambda: (rows("create temp table e as select 7 as i"), rows("select * from e")))
        attempt("notification", notification)
    c.close()


main()
