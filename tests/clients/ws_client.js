// A client of fanfare.v1 on the npm package `ws`, as a user of Fanfare would write one.
//
//   node ws_client.js WS_URL API_URL json|msgpack
//
// It goes through a session's life step by step and ends with status 1 at the first step that
// does not do what the protocol says.
'use strict';

const assert = require('node:assert/strict');
const { WebSocket } = require('ws');
const { encode, decode } = require('@msgpack/msgpack');

const [wsUrl, apiUrl, wire] = process.argv.slice(2);
const PATIENCE_MS = 10_000;

class Session {
  static async open(user) {
    const session = new Session();
    session.waiting = [];
    session.readers = [];
    session.ids = 0;
    session.socket = new WebSocket(`${wsUrl}?user=${user}`, [`fanfare.v1.${wire}`]);
    session.closed = new Promise((resolve) => session.socket.once('close', resolve));
    session.socket.on('error', (error) => session.deliver({ type: 'broken', error }));
    session.socket.on('message', (bytes, isBinary) => {
      assert.equal(isBinary, wire === 'msgpack');
      session.deliver(isBinary ? decode(bytes) : JSON.parse(bytes.toString('utf8')));
    });
    session.welcome = await session.event((event) => event.type === 'welcome');
    assert.equal(session.socket.protocol, `fanfare.v1.${wire}`);
    assert.equal(session.welcome.user, user);
    return session;
  }

  deliver(event) {
    const at = this.readers.findIndex((reader) => reader.fits(event));
    if (at < 0) this.waiting.push(event);
    else this.readers.splice(at, 1)[0].resolve(event);
  }

  event(fits) {
    const at = this.waiting.findIndex(fits);
    if (at >= 0) return Promise.resolve(this.waiting.splice(at, 1)[0]);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`waited for ${fits}; there were ${JSON.stringify(this.waiting)}`)),
        PATIENCE_MS,
      );
      const done = (event) => {
        clearTimeout(timer);
        resolve(event);
      };
      this.readers.push({ fits, resolve: done });
    });
  }

  message(topic) {
    return this.event((event) => event.type === 'message' && event.topic === topic);
  }

  async ask(command) {
    const id = ++this.ids;
    const full = { ...command, id };
    this.socket.send(wire === 'msgpack' ? encode(full) : JSON.stringify(full));
    const answer = await this.event((event) => event.id === id);
    assert.equal(answer.type, 'ok', JSON.stringify(answer));
    return answer;
  }
}

async function publishByApi(body) {
  const response = await fetch(`${apiUrl}/v1/publish`, {
    method: 'POST',
    headers: { authorization: 'Bearer dev', 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, await response.clone().text());
  return (await response.json()).results[0].position;
}

async function main() {
  const user = `ws-${wire}`;
  const topic = `clients:${user}`;
  let session = await Session.open(user);

  const data = { text: 'grüß dich', list: [1, -2, 2.5, true, null], nested: { deep: [[]] } };
  await session.ask({ type: 'subscribe', topic });
  const published = await session.ask({ type: 'publish', topic, data, echo: true });
  const message = await session.message(topic);
  assert.deepEqual(message.data, data);
  assert.equal(message.position, published.position);
  assert.equal(message.user, user);

  const history = await session.ask({ type: 'history', topic });
  assert.deepEqual(history.publications.map((one) => one.data), [data]);
  assert.equal(history.more, false);

  const position = await publishByApi({ user, data: 'to you' });
  const inbox = await session.message(`@${user}`);
  assert.equal(inbox.data, 'to you');
  assert.equal((await session.ask({ type: 'ack', position: inbox.position })).position, position);

  session.socket.terminate();
  await session.closed;
  for (let number = 0; number < 50; number++) await publishByApi({ topic, data: number });
  session = await Session.open(user);
  assert.equal(session.welcome.inbox.pending, 0);
  assert.equal(session.welcome.inbox.position, position);
  const resumed = await session.ask({ type: 'subscribe', topic, since: message.position });
  assert.equal(resumed.recovered, true);
  for (let number = 0; number < 50; number++) {
    assert.equal((await session.message(topic)).data, number);
  }
  await publishByApi({ topic, data: 'live' });
  assert.equal((await session.message(topic)).data, 'live');

  await session.ask({ type: 'unsubscribe', topic });
  session.socket.close(1000);
  assert.equal(await session.closed, 1000);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
