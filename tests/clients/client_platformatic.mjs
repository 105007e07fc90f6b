// @platformatic/kafka: a client that uses the newest versions of requests, topic ids among them. It needs Node 22.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
const [bootstrap, modules, kills] = process.argv.slice(2)
const require = createRequire(pathToFileURL(modules + '/'))
const { Admin, Consumer, Producer, stringSerializers, stringDeserializers } = await import(
  pathToFileURL(require.resolve('@platformatic/kafka')).href)
const { version } = JSON.parse(readFileSync(`${modules}/@platformatic/kafka/package.json`))

const name = 'platformatic'
const tag = `${name}-${Date.now()}`
const base = { clientId: 'weir', bootstrapBrokers: bootstrap.split(','), retries: 20, retryDelay: 250 }
const admin = new Admin(base)
const must = (condition, message) => { if (!condition) { console.error(`FAILED ${message}`); process.exit(1) } }
const create = async (topic, partitions, configs = {}) => (await admin.createTopics({
  topics: [topic], partitions, replicas: -1, configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
}))[0]

async function produce(topic, messages, options = {}) {
  const producer = new Producer({ ...base, serializers: stringSerializers })
  try {
    return await producer.send({ messages: messages.map(message => ({ topic, ...message })), ...options })
  } finally { await producer.close() }
}

// Reads `count` records as a member of `groupId`, commits the position after each partition's last one, and leaves.
async function read(topic, count, groupId) {
  const consumer = new Consumer({ ...base, groupId, deserializers: stringDeserializers })
  const stream = await consumer.consume({
    topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false, maxWaitTime: 200,
    sessionTimeout: 10000, heartbeatInterval: 500,
  })
  const late = setTimeout(() => must(false, `${topic}: not all of ${count} records came`), 30000)
  const got = []
  for await (const message of stream) {
    got.push(message)
    if (got.length === count) break
  }
  clearTimeout(late)
  const next = new Map()
  for (const m of got) next.set(m.partition, m.offset + 1n)
  await consumer.commit({ offsets: [...next].map(([partition, offset]) => ({ topic, partition, offset, leaderEpoch: 0 })) })
  await stream.close()
  await consumer.close()
  return got
}

const checks = {
  async create() {
    const created = await create(`${tag}-t`, 3, { 'retention.ms': '-1' })
    must(created.partitions === 3 && /^[0-9a-f-]{36}$/.test(created.id), `the topic has three partitions and an id: ${JSON.stringify(created)}`)
    const { topics } = await admin.metadata({ topics: [`${tag}-t`], forceUpdate: true })
    must(topics.get(`${tag}-t`).id === created.id, 'the metadata has the same id')
  },
  async compression_and_acks() {
    for (const compression of ['none', 'gzip', 'zstd']) {
      for (const acks of [1, -1]) {
        const topic = `${tag}-${compression}-${acks === 1 ? 'one' : 'all'}`
        await create(topic, 1)
        const sent = Array.from({ length: 200 }, (_, i) => ({ value: `${compression} ${i} `.repeat(20) }))
        const { offsets } = await produce(topic, sent, { acks, compression, idempotent: acks === -1 })
        must(offsets[0].offset === 0n, `the first offset is told: ${offsets[0].offset}`)
        const got = await read(topic, 200, `${topic}-g`)
        must(got.every((r, i) => r.value === sent[i].value), `${compression}, acks ${acks}: all in order`)
      }
    }
  },
  async keyed_order() {
    const topic = `${tag}-t`
    await produce(topic, Array.from({ length: 2000 }, (_, i) => ({ key: `key${i % 17}`, value: `${i}` })))
    const last = new Map(), where = new Map()
    for (const r of await read(topic, 2000, `${topic}-g`)) {
      must((where.get(r.key) ?? r.partition) === r.partition, 'a key stays on its partition')
      must((last.get(r.key) ?? -1) < Number(r.value), 'records of a key stay in order')
      where.set(r.key, r.partition)
      last.set(r.key, Number(r.value))
    }
  },
  async commit_and_resume() {
    const topic = `${tag}-resume`, group = `${tag}-g`
    await create(topic, 1)
    await produce(topic, Array.from({ length: 100 }, (_, i) => ({ value: `${i}` })))
    const got = [...await read(topic, 40, group), ...await read(topic, 60, group)]
    must(got.every((r, i) => r.value === `${i}`), 'a group goes on at its committed offset')
    const [{ topics: [{ partitions: [p] }] }] = await admin.listConsumerGroupOffsets({ groups: [{ groupId: group, topics: [{ name: topic, partitionIndexes: [0] }] }] })
    must(p.committedOffset === 100n, `the committed offset is kept: ${p.committedOffset}`)
  },
  async admin() {
    const topic = `${tag}-admin`
    await create(topic, 1, { 'retention.ms': '60000' })
    const config = async () => {
      const [{ configs }] = await admin.describeConfigs({ resources: [{ resourceType: 2, resourceName: topic, configurationKeys: null }] })
      return configs.find(c => c.name === 'retention.ms').value
    }
    must(await config() === '60000', 'the setting is there')
    await admin.incrementalAlterConfigs({ resources: [{ resourceType: 2, resourceName: topic, configs: [{ name: 'retention.ms', configOperation: 0, value: '120000' }] }] })
    must(await config() === '120000', 'the setting changed')
    await admin.createPartitions({ topics: [{ name: topic, count: 3, assignments: [] }] })
    await produce(topic, [{ partition: 0, value: 'a' }, { partition: 0, value: 'b' }])
    await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 1n }] }] })
    const [{ partitions: [{ offset }] }] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp: -2n }] }] })
    must(offset === 1n, `the log starts behind the deleted records: ${offset}`)
    must((await admin.listGroups()).has(`${tag}-g`), 'the group is listed')
    const described = (await admin.describeGroups({ groups: [`${tag}-g`] })).get(`${tag}-g`)
    must(described.state.toUpperCase() === 'EMPTY', `the group is empty: ${described.state}`)
    await admin.deleteGroups({ groups: [`${tag}-g`] })
    await admin.deleteTopics({ topics: [topic] })
    must(!(await admin.listTopics()).includes(topic), 'the topic is gone')
  },
  async errors() {
    const fails = async call => {
      try { await call() } catch (error) {
        const ids = []
        const walk = e => { if (e?.apiId) ids.push(e.apiId); for (const inner of [e?.cause, ...(e?.errors ?? [])]) if (inner) walk(inner) }
        walk(error)
        return ids.join() || error.message
      }
      return 'nothing'
    }
    const again = await fails(() => create(`${tag}-t`, 1))
    must(again.includes('TOPIC_ALREADY_EXISTS'), `a topic is made once: ${again}`)
    const bad = await fails(() => create('no/slash', 1))
    must(bad.includes('INVALID_TOPIC_EXCEPTION'), `a bad name is refused: ${bad}`)
  },
}

// The test that runs this program kills the leading node when it reads KILL.
if (kills) {
  checks.leader_killed = async () => {
    const topic = `${tag}-killed`
    await create(topic, 1)
    console.log('KILL')
    const acknowledged = []
    for (const until = Date.now() + 8000; Date.now() < until || acknowledged.length === 0;) {
      must(Date.now() < until + 60000, 'records are taken again after a leader was killed')
      const values = Array.from({ length: 20 }, (_, i) => `${acknowledged.length} ${Date.now()} ${i}`)
      try {
        await produce(topic, values.map(value => ({ value })), { acks: -1 })
        acknowledged.push(...values)
      } catch (error) { console.log(`     ${error.name}: records of unknown fate`) }
    }
    const [{ partitions: [{ offset }] }] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp: -1n }] }] })
    const got = new Set((await read(topic, Number(offset), `${tag}-killed`)).map(r => r.value))
    const missing = acknowledged.filter(value => !got.has(value))
    must(missing.length === 0, `${missing.length} of ${acknowledged.length} acknowledged records are missing`)
  }
}

for (const [check, run] of Object.entries(checks)) {
  await run()
  console.log(`  ok ${name}: ${check}`)
}
await admin.close()
console.log(`PASSED ${name} ${version}`)
process.exit(0)
