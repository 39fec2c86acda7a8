// A key's value from Redis over HTTP, as many services do it: Fastify and ioredis, which sends what
// is asked for in one turn of the loop together.
//
// Arguments: the port to listen at, the port of Redis.

import Fastify from 'fastify'
import { Redis } from 'ioredis'

const [port, redisPort] = process.argv.slice(2).map(Number)
const redis = new Redis({ host: '127.0.0.1', port: redisPort, enableAutoPipelining: true })
const app = Fastify({ logger: false })

app.get('/lookup/:key', async (request, reply) => {
  const value = await redis.getBuffer(request.params.key)
  if (value === null) return reply.code(404).send()
  return reply.type('application/json').send(value)
})

await app.listen({ host: '127.0.0.1', port })
