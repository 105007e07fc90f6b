// kafkajs: what a Node.js program does with a broker.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
const [bootstrap, modules, kills] = process.argv.slice(2)
const require = createRequire(pathToFileURL(modules + '/'))
const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = require('kafkajs')
const { version } = require('kafkajs/package.json')

const name = 'kafkajs'
const tag = `${name}-${Date.now()}`
const kafka = new Kafka({ clientId: 'weir', brokers: bootstrap.split(','), logLevel: logLevel.NOTHING })
const admin = kafka.admin()
const must = (condition, what) => { if (!condition) { console.error(`FAILED ${what}`); process.exit(1) } }
const create = async (topic, numPartitions, config = {}) => must(
  await admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: -1, configEntries: Object.entries(config).map(([name, value]) => ({ name, value })) }] }),
  `${topic} is made`)

async function produce(topic, messages, { acks = -1, compression = CompressionTypes.None, idempotent = false } = {}) {
  const producer = kafka.producer({ idempotent, allowAutoTopicCreation: false })
  await producer.connect()
  await producer.send({ topic, messages, acks, compression })
  await producer.disconnect()
}

// Reads `count` records as a member of `groupId`, then commits and leaves.
async function read(topic, count, groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, rebalanceTimeout: 6000, maxWaitTimeInMs: 200 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const got = []
  await new Promise((done, fail) => {
    setTimeout(() => fail(new Error(`${got.length} of ${count} records came`)), 30000).unref()
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (got.length >= count) return
        got.push({ partition, ...message })
        if (got.length === count) done()
      },
    }).catch(fail)
  })
  const next = new Map()
  for (const r of got) next.set(r.partition, Math.max(next.get(r.partition) ?? 0, Number(r.offset) + 1))
  await consumer.commitOffsets([...next].map(([partition, offset]) => ({ topic, partition, offset: `${offset}`, metadata: 'noted' })))
  await consumer.disconnect()
  return got
}

const checks = {
  async create() {
    await create(`${tag}-t`, 3)
    const { topics: [topic] } = await admin.fetchTopicMetadata({ topics: [`${tag}-t`] })
    must(topic.partitions.length === 3, 'the topic has three partitions')
  },
  async compression_and_acks() {
    for (const [codec, compression] of [['none', CompressionTypes.None], ['gzip', CompressionTypes.GZIP]]) {
      for (const acks of [0, 1, -1]) {
        const topic = `${tag}-${codec}-${acks}`
        await create(topic, 1)
        const sent = Array.from({ length: 200 }, (_, i) => ({ value: `${codec} ${i} `.repeat(20) }))
        await produce(topic, sent, { acks, compression, idempotent: acks === -1 })
        const got = await read(topic, 200, `${topic}-g`)
        must(got.every((r, i) => r.value.toString() === sent[i].value), `${codec}, acks ${acks}: all in order`)
      }
    }
  },
  async headers_and_nulls() {
    const topic = `${tag}-headers`
    await create(topic, 1)
    await produce(topic, [{ key: 'k', value: null, headers: { a: ['1', '2'], b: Buffer.from([0, 255]) } }, { value: 'v' }, { key: '', value: '' }])
    const got = await read(topic, 3, `${topic}-g`)
    must(got[0].value === null && got[0].key.toString() === 'k', 'a null value stays null')
    must(got[0].headers.a.map(String).join() === '1,2' && got[0].headers.b.equals(Buffer.from([0, 255])), 'headers come back')
    must(got[1].key === null && got[2].key.length === 0 && got[2].value.length === 0, 'empty is not null')
  },
  async large_messages() {
    const topic = `${tag}-large`
    await create(topic, 1)
    const value = Buffer.alloc(900_000, 'weir')
    await produce(topic, [{ value }])
    must((await read(topic, 1, `${topic}-g`))[0].value.equals(value), 'a 900 kB record comes back')
  },
  async keyed_order() {
    const topic = `${tag}-t`
    await produce(topic, Array.from({ length: 2000 }, (_, i) => ({ key: `key${i % 17}`, value: `${i}` })))
    const last = new Map(), where = new Map()
    for (const r of await read(topic, 2000, `${topic}-g`)) {
      const key = r.key.toString()
      must((where.get(key) ?? r.partition) === r.partition, 'a key stays on its partition')
      must((last.get(key) ?? -1) < Number(r.value), 'records of a key stay in order')
      where.set(key, r.partition)
      last.set(key, Number(r.value))
    }
  },
  async seek_by_time() {
    const topic = `${tag}-time`
    await create(topic, 1, { 'retention.ms': '-1' })
    const base = Date.now() - 100_000
    for (let i = 0; i < 10; i++) await produce(topic, [{ value: `${i}`, timestamp: `${base + i * 1000}` }])
    const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, base + 4500)
    must(offset === '5', `the first record at or after a time: ${offset}`)
  },
  async commit_and_resume() {
    const topic = `${tag}-resume`, group = `${tag}-g`
    await create(topic, 1)
    await produce(topic, Array.from({ length: 100 }, (_, i) => ({ value: `${i}` })))
    const got = [...await read(topic, 40, group), ...await read(topic, 60, group)]
    must(got.every((r, i) => r.value.toString() === `${i}`), 'a group goes on where it was')
    const [{ partitions: [p] }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    must(p.offset === '100' && p.metadata === 'noted', 'offset and metadata are kept')
  },
  async rebalance() {
    const topic = `${tag}-shared`
    await create(topic, 4)
    const shares = [[], []]
    const members = [0, 1].map(() => kafka.consumer({ groupId: `${tag}-two`, sessionTimeout: 6000, rebalanceTimeout: 6000, maxWaitTimeInMs: 200, heartbeatInterval: 300 }))
    for (const [i, member] of members.entries()) {
      member.on(member.events.GROUP_JOIN, e => { shares[i] = e.payload.memberAssignment[topic] ?? [] })
      await member.connect()
      await member.subscribe({ topics: [topic] })
      await member.run({ eachMessage: async () => {} })
    }
    const deadline = Date.now() + 60000
    while (Date.now() < deadline && !shares.every(s => s.length === 2)) await new Promise(r => setTimeout(r, 100))
    must(shares.every(s => s.length === 2) && new Set(shares.flat()).size === 4, `two members share: ${JSON.stringify(shares)}`)
    await Promise.all(members.map(m => m.disconnect()))
  },
  async admin() {
    const topic = `${tag}-admin`
    await create(topic, 1, { 'retention.ms': '60000' })
    const config = async () => {
      const { resources: [r] } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
      return Object.fromEntries(r.configEntries.map(c => [c.configName, c.configValue]))
    }
    must((await config())['retention.ms'] === '60000', 'the setting is there')
    await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '120000' }] }] })
    must((await config())['retention.ms'] === '120000', 'the setting changed')
    await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
    await produce(topic, [{ partition: 0, value: 'a' }, { partition: 0, value: 'b' }])
    // kafkajs looks for the leader in what it has cached.
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] })
    const offsets = await admin.fetchTopicOffsets(topic)
    must(offsets.length === 3 && offsets.find(o => o.partition === 0).low === '1', 'records were deleted')
    const { groups } = await admin.listGroups()
    must(groups.some(g => g.groupId === `${tag}-g`), 'the group is listed')
    const { groups: [described] } = await admin.describeGroups([`${tag}-g`])
    must(described.state === 'Empty', `the group is empty: ${described.state}`)
    await admin.deleteGroups([`${tag}-g`])
    await admin.deleteTopics({ topics: [topic] })
    must(!(await admin.listTopics()).includes(topic), 'the topic is gone')
  },
  async errors() {
    const fails = async call => { try { await call() } catch (e) { return (e.errors?.[0] ?? e.cause ?? e).type ?? e.message } return 'nothing' }
    must(await admin.createTopics({ topics: [{ topic: `${tag}-t` }] }) === false, 'a topic is made once')
    must((await fails(() => create('no/slash', 1))) === 'INVALID_TOPIC_EXCEPTION', 'a bad name is refused')
    must((await fails(() => produce(`${tag}-t`, [{ value: Buffer.alloc(6 << 20) }]))) === 'MESSAGE_TOO_LARGE', 'too large is refused')
  },
}

// Whoever runs this kills the node that leads when it is told to.
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
        await produce(topic, values.map(value => ({ value })))
        acknowledged.push(...values)
      } catch (e) { console.log(`     ${e.name}: records of unknown fate`) }
    }
    const [{ high }] = await admin.fetchTopicOffsets(topic)
    const got = new Set((await read(topic, Number(high), `${tag}-killed`)).map(r => `${r.value}`))
    const missing = acknowledged.filter(value => !got.has(value))
    must(missing.length === 0, `${missing.length} of ${acknowledged.length} acknowledged records are missing`)
  }
}

await admin.connect()
for (const [check, run] of Object.entries(checks)) {
  await run()
  console.log(`  ok ${name}: ${check}`)
}
await admin.disconnect()
console.log(`PASSED ${name} ${version}`)
process.exit(0)
