import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGProperty;

/** What pgjdbc gets. The connection is in the environment (PGHOST ...). */
public class Check {
    interface Step { Object run() throws Exception; }

    static void attempt(String name, Step s) {
        try {
            System.out.println(name + ": " + s.run());
        } catch (SQLException e) {
            System.out.println(name + " failed: " + e.getSQLState() + " " + e.getMessage());
        } catch (Exception e) {
            System.out.println(name + " FAILED: " + e);
        }
    }

    static String rows(ResultSet r) throws SQLException {
        StringBuilder b = new StringBuilder();
        while (r.next()) {
            for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) b.append(r.getString(i)).append(i < r.getMetaData().getColumnCount() ? "," : ";");
        }
        return b.toString();
    }

    static Connection open(String... more) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("sslmode", "disable");
        p.setProperty("options", System.getenv("PGOPTIONS"));
        for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }

    static String query(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            return s.execute(sql) ? rows(s.getResultSet()) : "done " + s.getUpdateCount();
        }
    }

    public static void main(String[] args) throws Exception {
        try (Connection c = open("prepareThreshold", "3")) {
            attempt("table", () -> query(c, "create table d(i int primary key, s text)"));
            attempt("prepared", () -> {
                int n = 0;
                try (PreparedStatement s = c.prepareStatement("select ?::int + 1")) {
                    for (int i = 0; i < 20; i++) {
                        s.setInt(1, i);
                        try (ResultSet r = s.executeQuery()) { r.next(); n += r.getInt(1); }
                    }
                }
                return n;
            });
            attempt("batch", () -> {
                int n = 0;
                try (PreparedStatement s = c.prepareStatement("insert into d values (?, ?)")) {
                    for (int i = 0; i < 2000; i++) { s.setInt(1, i); s.setString(2, "row " + i); s.addBatch(); }
                    for (int k : s.executeBatch()) n += k;
                }
                return n;
            });
            attempt("error", () -> query(c, "select 1/0"));
            attempt("transaction", () -> {
                c.setAutoCommit(false);
                query(c, "delete from d where i > 5");
                Savepoint p = c.setSavepoint();
                attempt("duplicate", () -> query(c, "insert into d values (1, 'x')"));
                c.rollback(p);
                c.commit();
                query(c, "delete from d");
                c.rollback();
                c.setAutoCommit(true);
                return query(c, "select * from d order by i");
            });
            attempt("after a change", () -> {
                try (PreparedStatement s = c.prepareStatement("select * from d order by i")) {
                    for (int i = 0; i < 6; i++) s.executeQuery().close();
                    query(c, "alter table d add column n int");
                    return rows(s.executeQuery());
                }
            });
            attempt("fetch size", () -> {
                c.setAutoCommit(false);
                int n = 0;
                try (PreparedStatement s = c.prepareStatement("select g from generate_series(1, 1000) g")) {
                    s.setFetchSize(7);
                    try (ResultSet r = s.executeQuery()) { while (r.next()) n += r.getInt(1); }
                }
                c.commit();
                c.setAutoCommit(true);
                return n;
            });
            attempt("generated keys", () -> {
                query(c, "create table k(i serial, s text)");
                try (PreparedStatement s = c.prepareStatement("insert into k(s) values ('x')", Statement.RETURN_GENERATED_KEYS)) {
                    s.executeUpdate();
                    return rows(s.getGeneratedKeys());
                }
            });
            attempt("copy", () -> {
                long n = c.unwrap(PGConnection.class).getCopyAPI().copyIn("copy d(i, s) from stdin", new StringReader("100\tone\n101\ttwo\n"));
                StringWriter w = new StringWriter();
                c.unwrap(PGConnection.class).getCopyAPI().copyOut("copy (select i, s from d where i >= 100 order by i) to stdout", w);
                return n + " " + w.toString().replace("\n", ";");
            });
            attempt("bad copy", () -> c.unwrap(PGConnection.class).getCopyAPI().copyIn("copy d(i, s) from stdin", new StringReader("no number\tx\n")));
            attempt("query time-out", () -> {
                try (Statement s = c.createStatement()) { s.setQueryTimeout(1); return s.execute("select pg_sleep(20)"); }
            });
            attempt("after it", () -> query(c, "select 1"));
            attempt("read only", () -> {
                c.setReadOnly(true);
                c.setAutoCommit(false);
                try { return query(c, "create table never(i int)"); } finally { c.rollback(); c.setAutoCommit(true); c.setReadOnly(false); }
            });
            attempt("metadata", () -> rows(c.getMetaData().getSchemas()).contains("pg_catalog"));
            attempt("large", () -> {
                try (PreparedStatement s = c.prepareStatement("select length(?)")) { s.setString(1, "v".repeat(3000000)); return rows(s.executeQuery()); }
            });
            if (System.getenv("STATELESS") == null) {
                attempt("temporary table", () -> { query(c, "create temp table e as select 7 as i"); return query(c, "select * from e"); });
                attempt("schema", () -> { c.setSchema("pg_catalog"); return c.getSchema(); });
                attempt("serializable", () -> { c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE); return query(c, "show default_transaction_isolation"); });
                attempt("notification", () -> {
                    query(c, "listen news");
                    try (Connection o = open()) { query(o, "notify news, 'hello'"); }
                    var got = c.unwrap(PGConnection.class).getNotifications(10000);
                    return got[0].getName() + " " + got[0].getParameter();
                });
            }
        }
        // A savepoint before each statement: a plan that became useless, and an error, end no transaction.
        try (Connection c = open("prepareThreshold", "1", "autosave", "always")) {
            attempt("autosave", () -> {
                query(c, "create table a(i int primary key)");
                c.setAutoCommit(false);
                int n = 0;
                try (PreparedStatement s = c.prepareStatement("select * from a order by 1"); PreparedStatement p = c.prepareStatement("insert into a(i) values (?)")) {
                    for (int i = 0; i < 5; i++) {
                        p.setInt(1, i % 3); // two of them are there already
                        try { n += p.executeUpdate(); } catch (SQLException e) { n += 100; }
                        s.executeQuery().close();
                    }
                    query(c, "alter table a add column t text default 'x'");
                    String got = n + " " + rows(s.executeQuery());
                    c.commit();
                    return got;
                } finally {
                    c.setAutoCommit(true);
                }
            });
        }
        try (Connection c = open("reWriteBatchedInserts", "true", "prepareThreshold", "2")) {
            attempt("rewritten batch", () -> {
                query(c, "create table w(i int primary key, s text)");
                for (int round = 0; round < 4; round++) {
                    try (PreparedStatement s = c.prepareStatement("insert into w values (?, ?)")) {
                        for (int i = 0; i < 517; i++) { s.setInt(1, round * 1000 + i); s.setString(2, "row " + i); s.addBatch(); }
                        s.executeBatch();
                    }
                }
                try (PreparedStatement s = c.prepareStatement("insert into w values (?, ?)")) {
                    for (int i = 5000; i < 5003; i++) { s.setInt(1, i == 5001 ? 1 : i); s.setString(2, "x"); s.addBatch(); }
                    s.executeBatch();
                } catch (BatchUpdateException e) {
                    return e.getSQLState() + " " + query(c, "select count(*), sum(i) from w");
                }
                return "no error";
            });
            // Two cursors of one transaction, read in turns and again with the same statement.
            attempt("cursors in turns", () -> {
                c.setAutoCommit(false);
                long n = 0;
                try (PreparedStatement a = c.prepareStatement("select i from w order by i"); PreparedStatement b = c.prepareStatement("select i from w order by i desc")) {
                    a.setFetchSize(10);
                    b.setFetchSize(25);
                    for (int round = 0; round < 4; round++) {
                        try (ResultSet x = a.executeQuery(); ResultSet y = b.executeQuery()) {
                            for (int i = 0; i < 200 && x.next() && y.next(); i++) n = n * 31 + x.getInt(1) - y.getInt(1);
                        }
                    }
                }
                c.commit();
                c.setAutoCommit(true);
                return n;
            });
        }
        attempt("simple protocol", () -> { try (Connection c = open("preferQueryMode", "simple")) { return query(c, "select 1; select 2"); } });
        attempt("primary", () -> { try (Connection c = open("targetServerType", "primary")) { return query(c, "select pg_is_in_recovery()"); } });
        attempt("binary", () -> {
            try (Connection c = open("prepareThreshold", "-1"); PreparedStatement s = c.prepareStatement("select ?::int8, ?::timestamptz = now()")) {
                s.setLong(1, 5);
                s.setTimestamp(2, new Timestamp(0));
                return rows(s.executeQuery());
            }
        });
    }
}
