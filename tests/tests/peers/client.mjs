// All records by undici over one connection, HEAD and 304 for some, then pipelined.
//
// Arguments: host, port, file of keys and values. Prints how many requests it made.

import assert from 'node:assert'
import { readFileSync } from 'node:fs'
import { Client } from 'undici'

const [host, port, path] = process.argv.slice(2)
const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
const records = lines.map((line) => line.split('\t'))
const origin = `http://${host}:${port}`
let made = 0

async function ask (client, method, key, headers = {}) {
  made += 1
  const reply = await client.request({ method, path: `/lookup/${key}`, headers })
  return { status: reply.statusCode, headers: reply.headers, body: await reply.body.text() }
}

const one = new Client(origin, { pipelining: 1 })
for (const [number, [key, value]] of records.entries()) {
  const reply = await ask(one, 'GET', key)
  assert.deepStrictEqual([reply.status, reply.body], [200, value])
  if (number % 10 === 0) {
    const head = await ask(one, 'HEAD', key)
    assert.deepStrictEqual([head.status, head.body], [200, ''])
    assert.strictEqual(Number(head.headers['content-length']), Buffer.byteLength(value))
    const held = await ask(one, 'GET', key, { 'if-none-match': reply.headers.etag })
    assert.deepStrictEqual([held.status, held.body], [304, ''])
  }
}
await one.close()

const many = new Client(origin, { pipelining: 10 })
await Promise.all(records.map(async ([key, value]) => {
  const reply = await ask(many, 'GET', key)
  assert.deepStrictEqual([reply.status, reply.body], [200, value])
}))
await many.close()
console.log(made)
