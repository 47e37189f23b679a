import assert from 'node:assert/strict';
import {mock, test} from 'node:test';

import {run} from './browser.js';

const PERIOD = 2 ** 32 + 2000;  // of settings.js

/**
 * A window in which the script has run, with a clock that stands still.
 * pass: so many seconds go by. news: what the server answers from now on.
 */
function visit(test) {
  mock.timers.enable({apis: ['setTimeout', 'setInterval', 'Date']});
  test.after(() => mock.timers.reset());
  const request = new EventTarget();
  request.send = function (...content) {
    this.sent = content;
  };
  const window = {
    setTimeout: (...given) => setTimeout(...given),
    setInterval: (...given) => setInterval(...given),
    clearInterval: timer => clearInterval(timer),
    performance: {now: () => Date.now()},
    document: {hidden: false},
    AbortSignal: {timeout: () => undefined},
    XMLHttpRequest: Object.assign(() => {}, {prototype: request}),
    fetch: mock.fn(async () => ({json: async () => answer})),
  };
  const asked = window.fetch;
  let answer = {server: 'a', number: 1};
  run('reload.js', window);
  const pass = async seconds => {
    for (let i = 0; i < 10 * seconds; i++) {
      mock.timers.tick(100);
      await new Promise(setImmediate);
    }
  };
  return {window, request, asked, pass, news: given => { answer = given; }};
}

test('it asks each second for what has changed since the last answer', async test => {
  const {asked, pass, window} = visit(test);
  await pass(2.5);
  assert.deepEqual(asked.mock.calls.map(call => call.arguments[0]),
    [0, 1, 1].map(number => `data/plugin/live/runs?since=${number}`));
  window.document.hidden = true;
  await pass(5);
  assert.equal(asked.mock.callCount(), 3, 'nobody looks');
});

test('it goes on where the server does not answer', async test => {
  const {asked, pass} = visit(test);
  asked.mock.mockImplementation(async () => { throw new Error('gone'); });
  await pass(3.5);
  assert.ok(asked.mock.callCount() >= 3);
});

test('timers of others are as they were', async test => {
  const {window, pass} = visit(test), due = mock.fn();
  window.setTimeout(due, 500, 'a');
  window.setTimeout(due);
  await pass(0.1);
  assert.equal(due.mock.callCount(), 1);
  await pass(0.5);
  assert.deepEqual(due.mock.calls.map(call => call.arguments), [[], ['a']]);
});

test('while there is news it reloads every two seconds', async test => {
  const {window, pass, news} = visit(test), reload = mock.fn(() => window.setTimeout(reload, PERIOD));
  window.setTimeout(reload, PERIOD);
  await pass(1.5);
  assert.equal(reload.mock.callCount(), 0);
  for (let number = 2; number < 14; number++) {
    news({server: 'a', number});
    await pass(1);
  }
  assert.ok(reload.mock.callCount() >= 5 && reload.mock.callCount() <= 7, String(reload.mock.callCount()));
});

test('a reload that is no longer wanted does not happen', async test => {
  const {window, pass} = visit(test), reload = mock.fn();
  window.clearInterval(window.setTimeout(reload, PERIOD));
  await pass(40);
  assert.equal(reload.mock.callCount(), 0);
});

test('without news it reloads every half a minute', async test => {
  const {window, pass} = visit(test), reload = mock.fn(() => window.setTimeout(reload, PERIOD));
  await pass(20);
  window.setTimeout(reload, PERIOD);
  await pass(9);
  assert.equal(reload.mock.callCount(), 0);
  await pass(2);
  assert.equal(reload.mock.callCount(), 1);
  await pass(25);
  assert.equal(reload.mock.callCount(), 1);
});

test('another server is news', async test => {
  const {window, pass, news} = visit(test), reload = mock.fn();
  await pass(20);
  window.setTimeout(reload, PERIOD);
  await pass(1);
  assert.equal(reload.mock.callCount(), 0);
  news({server: 'b', number: 1});
  await pass(1.5);
  assert.equal(reload.mock.callCount(), 1);
});

test('it does not reload what nobody sees', async test => {
  const {window, pass} = visit(test), reload = mock.fn();
  window.document.hidden = true;
  window.setTimeout(reload, PERIOD);
  await pass(40);
  assert.equal(reload.mock.callCount(), 0);
});

test('it waits while an answer is under way, and then twice as long as that took', async test => {
  const {window, asked, pass} = visit(test), reload = mock.fn();
  asked.mock.mockImplementationOnce(() => new Promise(resolve => setTimeout(resolve, 3000)));
  window.fetch('data/scalars');
  window.setTimeout(reload, PERIOD);
  await pass(8.5);
  assert.equal(reload.mock.callCount(), 0);
  await pass(1);
  assert.equal(reload.mock.callCount(), 1);
});

test('requests of the older kind count too', async test => {
  const {window, request, pass} = visit(test), reload = mock.fn();
  request.send('content');
  assert.deepEqual(request.sent, ['content']);
  window.setTimeout(reload, PERIOD);
  await pass(4);
  assert.equal(reload.mock.callCount(), 0);
  request.dispatchEvent(new Event('loadend'));
  await pass(7);
  assert.equal(reload.mock.callCount(), 0);
  await pass(1.5);
  assert.equal(reload.mock.callCount(), 1);
});
