// A key's value from an HTTP origin, by Fastify with under-pressure, which refuses (503) while the
// event loop is late or busy, and undici, which keeps its connections.
//
// Arguments: the port to listen at, the port of the origin.

import Fastify from 'fastify'
import underPressure from '@fastify/under-pressure'
import { Pool } from 'undici'

const [port, originPort] = process.argv.slice(2).map(Number)
const origin = new Pool(`http://127.0.0.1:${originPort}`)
const app = Fastify({ logger: false })

await app.register(underPressure, {
  maxEventLoopDelay: 40,
  maxEventLoopUtilization: 0.98,
  sampleInterval: 100,
  retryAfter: 1
})

app.get('/healthz', async () => ({ ok: true }))

app.get('/lookup/:key', async (request, reply) => {
  const { statusCode, body } = await origin.request({ method: 'GET', path: request.url })
  const value = Buffer.from(await body.arrayBuffer())
  return reply.code(statusCode).type('application/json').send(value)
})

await app.listen({ host: '127.0.0.1', port })
