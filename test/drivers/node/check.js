// What node-postgres gets. The connection is in the environment (PGHOST ...).
const pg = require('pg')
const Cursor = require('pg-cursor')

const show = (name, value) => console.log(name + ': ' + JSON.stringify(value))

async function attempt (name, f) {
  try {
    show(name, await f())
  } catch (e) {
    show(name + ' failed', { code: e.code, message: e.message })
  }
}

async function main () {
  const c = new pg.Client()
  await c.connect()
  const rows = async (...a) => (await c.query(...a)).rows
  await attempt('types', () => rows("select $1::int i, $2::text t, $3::bytea b, $4::timestamptz w, $5::int[] a, $6::jsonb j, $7::text n",
    [42, 'ä€', Buffer.from([0, 255]), new Date(0), [1, 2], { a: [1] }, null]))
  await attempt('table', () => rows('create table d(i int primary key, s text)'))
  await attempt('named', async () => {
    let n = 0
    for (let i = 0; i < 20; i++) n += (await rows({ name: 'plus', text: 'select $1::int + 1 as n', values: [i] }))[0].n
    return n
  })
  await attempt('error', () => rows('select 1/0'))
  await attempt('after it', () => rows('select 1 as one'))
  await attempt('transaction', async () => {
    await c.query('begin')
    await c.query("insert into d values (1, 'x')")
    await c.query('savepoint a')
    await c.query("insert into d values (1, 'again')").catch(e => show('duplicate', e.code))
    await c.query('rollback to a')
    await c.query("insert into d values (2, 'y')")
    await c.query('commit')
    return rows('select * from d order by i')
  })
  await attempt('rolled back', async () => {
    await c.query('begin')
    await c.query('delete from d')
    await c.query('rollback')
    return rows('select count(*) from d')
  })
  await attempt('after a change', async () => {
    const q = { name: 'all', text: 'select * from d order by i' }
    await rows(q)
    await c.query('alter table d add column n int')
    return rows(q)
  })
  await attempt('new name', () => rows({ name: 'all2', text: 'select * from d order by i' }))
  await attempt('cursor', async () => {
    const k = c.query(new Cursor('select g from generate_series(1, 100) g'))
    const first = await k.read(3)
    await k.close()
    return first
  })
  await attempt('cursors in turns', async () => {
    await c.query('begin')
    const a = c.query(new Cursor('select g from generate_series(1, $1::int) g', [50]))
    const got = []
    for (let rows = await a.read(20); rows.length > 0; rows = await a.read(20)) got.push(rows.length)
    await a.close()
    got.push((await rows({ name: 'plus', text: 'select $1::int + 1 as n', values: [6] }))[0].n)
    const b = c.query(new Cursor('select g / (g - 3) from generate_series(1, 9) g'))
    await b.read(2)
    await b.read(2).catch(e => got.push(e.code))
    await c.query('rollback')
    return got
  })
  await attempt('large', async () => (await rows('select length($1::text) l, $1::text as back', ['z'.repeat(3000000)])).map(r => [r.l, r.back.length]))
  await attempt('time-out', async () => {
    const t = new pg.Client({ statement_timeout: 50 })
    await t.connect()
    try { return await t.query('select pg_sleep(20)') } finally { await t.end() }
  })
  await attempt('pool', async () => {
    const pool = new pg.Pool({ max: 10 })
    const all = await Promise.all(Array.from({ length: 200 }, (_, i) => pool.query({ name: 'n' + i % 7, text: 'select ' + i % 7 + ' + $1::int as n', values: [i] })))
    await pool.end()
    return all.reduce((s, r) => s + r.rows[0].n, 0)
  })
  await attempt('many at once', async () => (await Promise.all(Array.from({ length: 50 }, (_, i) => rows('select $1::int as n', [i])))).flat().map(r => r.n))
  if (!process.env.STATELESS) {
    await attempt('temporary table', async () => { await c.query('create temp table e as select 7 as i'); return rows('select * from e') })
    await attempt('settings', async () => {
      await c.query("set timezone = 'Asia/Tokyo'")
      await c.query("set app.tenant = 'seven'")
      return rows("select current_setting('TimeZone') z, current_setting('app.tenant') t")
    })
    await attempt('notification', async () => {
      const got = new Promise(resolve => c.once('notification', n => resolve([n.channel, n.payload])))
      await c.query('listen news')
      const other = new pg.Client()
      await other.connect()
      await other.query("notify news, 'hello'")
      await other.end()
      return got
    })
  }
  await c.end()
}

main().catch(e => { console.log('FAILED: ' + e.stack); process.exit(1) })
