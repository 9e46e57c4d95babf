// A node of another implementation: js-libp2p, and dunlin's protocols written by hand from docs/protocol*.md
// alone. The Go test drives it: a JSON request a line on stdin ({"id":1,"op":"dial",…}), a JSON line for each
// answer ({"id":1,"ok":…} or {"id":1,"error":…}) and event ({"event":"block",…}) on stdout. It ends with stdin.
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'

// Node 20 lacks it.
Promise.withResolvers ??= function () {
  const out = {}
  out.promise = new this((resolve, reject) => Object.assign(out, { resolve, reject }))
  return out
}

const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@libp2p/noise')
const { tls } = await import('@libp2p/tls')
const { yamux } = await import('@libp2p/yamux')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { kadDHT, passthroughMapper } = await import('@libp2p/kad-dht')
const { gossipsub } = await import('@libp2p/gossipsub')
const { byteStream } = await import('@libp2p/utils')
const { multiaddr } = await import('@multiformats/multiaddr')
const { CID } = await import('multiformats/cid')
const { sha256 } = await import('multiformats/hashes/sha2')

const hash = (b) => createHash('sha256').update(b).digest()
const blockHash = (header) => hash(hash(header)) // internal byte order
const hex = (b) => Buffer.from(b).toString('hex')
const reversed = (b) => hex(Buffer.from(b).reverse()) // as people print it
const tell = (o) => process.stdout.write(JSON.stringify(o) + '\n')

// Protocol Buffers, as much as is needed. Fields go in as [number, value]: a number or a BigInt is a
// varint, bytes and nested fields have a length before them, {fixed64} is one.
function varint (n) {
  const out = []
  for (n = BigInt(n); n >= 128n; n >>= 7n) out.push(Number(n & 127n) | 128)
  return Buffer.from([...out, Number(n)])
}
function encode (fields) {
  return Buffer.concat(fields.flatMap(([num, v]) => {
    if (typeof v === 'number' || typeof v === 'bigint') return [varint(num << 3), varint(v)]
    if (v.fixed64 !== undefined) {
      const b = Buffer.alloc(8)
      b.writeBigUInt64LE(v.fixed64)
      return [varint(num << 3 | 1), b]
    }
    const b = Array.isArray(v) ? encode(v) : Buffer.from(v)
    return [varint(num << 3 | 2), varint(b.length), b]
  }))
}
// decode returns the last value of each field: Number, or bytes for what has a length or is fixed64.
function decode (b) {
  const out = {}
  let at = 0
  const read = () => {
    let n = 0n
    for (let shift = 0n; ; shift += 7n) {
      const c = BigInt(b[at++])
      n |= (c & 127n) << shift
      if (c < 128n) return Number(n)
    }
  }
  while (at < b.length) {
    const key = read()
    const [num, type] = [key >> 3, key & 7]
    if (type === 0) { out[num] = read(); continue }
    const n = type === 1 ? 8 : read()
    out[num] = b.subarray(at, at += n)
  }
  return out
}

// A stream of messages, each with its length before it, and raw bytes.
function messages (stream) {
  const s = byteStream(stream)
  const raw = async (n) => n === 0 ? Buffer.alloc(0) : Buffer.from((await s.read({ bytes: n })).subarray())
  return {
    raw,
    read: async () => {
      let n = 0
      for (let shift = 0; ; shift += 7) {
        const [c] = await raw(1)
        n |= (c & 127) << shift
        if (c < 128) return decode(await raw(n))
      }
    },
    write: (fields) => { const b = encode(fields); return s.write(Buffer.concat([varint(b.length), b])) }
  }
}

let node, chain, genesis, tip, greets
const prefix = () => '/dunlin/' + chain
const nonce = 0x1122334455667788n

// hello/1: whoever dialled speaks first; then tips and pings until the end.
const ours = () => [[1, [[1, 1], [2, Buffer.from('js-libp2p/test')], [3, genesis], [4, tip], [5, 0], [6, { fixed64: nonce }]]]]
async function hello (stream, connection, dialled) {
  const peer = connection.remotePeer.toString()
  const m = messages(stream)
  try {
    if (dialled) await m.write(ours())
    for (let first = true; ; first = false) {
      const got = await m.read()
      if (first && got[1] === undefined) throw new Error('no hello')
      if (first && !dialled) await m.write(ours())
      const theirs = first ? decode(got[1]) : {}
      const t = got[2] ?? theirs[4]
      if (t !== undefined) {
        const f = decode(t)
        tell({ event: first ? 'hello' : 'tip', peer, agent: theirs[2]?.toString(), height: f[1] ?? 0, hash: reversed(f[2]) })
      }
      if (got[3] !== undefined) tell({ event: 'bye', peer, text: decode(got[3])[2]?.toString() })
      if (got[4] !== undefined) await m.write([[5, { fixed64: got[4].readBigUInt64LE() }]])
    }
  } catch (err) {
    tell({ event: 'hello ended', peer, error: String(err) })
  }
}

// to opens a stream of one of dunlin's protocols to a peer that is connected.
const to = (peer, protocol) => node.getConnections().find((c) => c.remotePeer.toString() === peer)
  .newStream(prefix() + protocol, { signal: AbortSignal.timeout(10_000) })

const rendezvous = async () => CID.createV1(0x55, await sha256.digest(Buffer.from(prefix() + '/full')))

const ops = {
  async start ({ chainId, genesisHash, security, speaksHello }) {
    chain = chainId
    genesis = Buffer.from(genesisHash, 'hex').reverse()
    tip = [[2, genesis], [3, Buffer.from([2])]] // at height 0, the work of one block
    greets = speaksHello
    node = await createLibp2p({
      addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
      transports: [tcp()],
      connectionEncrypters: [security === 'tls' ? tls() : noise()],
      streamMuxers: [yamux()],
      connectionGater: { denyDialMultiaddr: () => false }, // loopback is where this network is
      services: {
        identify: identify(),
        ping: ping(),
        dht: kadDHT({ protocol: prefix() + '/kad/1.0.0', clientMode: false, peerInfoMapper: passthroughMapper }),
        pubsub: gossipsub({
          globalSignaturePolicy: 'StrictNoSign',
          msgIdFn: (m) => hash(m.data),
          fallbackToFloodsub: false,
          allowPublishToZeroTopicPeers: true,
          maxInboundDataLength: 8 << 20
        })
      }
    })
    if (greets) {
      await node.handle(prefix() + '/hello/1', (stream, connection) => hello(stream, connection, false))
      node.addEventListener('connection:open', ({ detail: c }) => {
        if (c.direction !== 'outbound') return
        c.newStream(prefix() + '/hello/1').then((s) => hello(s, c, true), (err) => tell({ event: 'hello ended', peer: c.remotePeer.toString(), error: String(err) }))
      })
    }
    for (const event of ['connection:open', 'connection:close']) {
      node.addEventListener(event, ({ detail: c }) => tell({ event, peer: c.remotePeer.toString(), direction: c.direction }))
    }
    const pubsub = node.services.pubsub
    pubsub.addEventListener('message', ({ detail: m }) => {
      if (m.topic !== prefix() + '/block/1') return
      tell({ event: 'block', encoding: m.data[0], bytes: m.data.length, hash: reversed(blockHash(m.data.subarray(1, 81))) })
    })
    for (const topic of ['/block/1', '/tx/1']) pubsub.subscribe(prefix() + topic)
    return { peer: node.peerId.toString(), addrs: node.getMultiaddrs().map(String) }
  },
  async dial ({ addr }) { await node.dial(multiaddr(addr), { signal: AbortSignal.timeout(10_000) }) },
  async peers () { return node.getPeers().map(String) },
  async neighbours () { return node.services.pubsub.getMeshPeers(prefix() + '/block/1') },
  // find asks the DHT who provides the rendezvous.
  async find () {
    const found = []
    for await (const p of node.contentRouting.findProviders(await rendezvous(), { signal: AbortSignal.timeout(20_000) })) {
      found.push({ peer: p.id.toString(), addrs: p.multiaddrs.map(String) })
    }
    return found
  },
  async provide () { await node.contentRouting.provide(await rendezvous(), { signal: AbortSignal.timeout(20_000) }) },
  // headers asks a peer for what follows genesis, checks that they are a chain and says where it ends.
  async headers ({ peer }) {
    const stream = await to(peer, '/headers/1')
    const m = messages(stream)
    await m.write([[2, genesis], [3, 2000]])
    const reply = await m.read()
    const raw = await m.raw(reply[3] ?? 0)
    let last = genesis
    for (let at = 0; at < raw.length; at += 80) {
      const header = raw.subarray(at, at + 80)
      if (!header.subarray(4, 36).equals(last)) throw new Error(`header ${at / 80} does not follow the one before`)
      last = blockHash(header)
    }
    await stream.close()
    return { start: reply[1], count: reply[2], hash: reversed(last) }
  },
  // blocks asks a peer for a range of blocks and says what their hashes are.
  async blocks ({ peer, start, count, last }) {
    const stream = await to(peer, '/blocks/1')
    const m = messages(stream)
    await m.write([[1, 7], [2, start], [3, count], [4, Buffer.from(last, 'hex').reverse()], [5, 1 << 20]])
    const hashes = []
    for (;;) {
      const frame = await m.read()
      if (frame[1] !== 7) throw new Error('a frame of another request')
      if (frame[3] === 1) {
        await stream.close()
        return { hashes, status: frame[4] ?? 0 }
      }
      hashes.push(reversed(blockHash((await m.raw(frame[2])).subarray(0, 80))))
    }
  },
  async publish ({ topic, data }) { await node.services.pubsub.publish(prefix() + topic, Buffer.from(data, 'hex')) }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...args } = JSON.parse(line)
  ops[op](args).then((ok) => tell({ id, ok: ok ?? null }), (err) => tell({ id, error: err.stack }))
}
await node?.stop()
process.exit(0)
