import assert from 'node:assert/strict';
import {test} from 'node:test';

import {Console} from '../../mnist_tb/board/static/console.js';
import {open} from './browser.js';

open();

/** A console, and what it has asked for. */
function made(status, text) {
  const asked = [];
  const console = new Console('a/b c', async address => {
    asked.push(address);
    return {status, text: async () => text};
  });
  Object.assign(console.text, {scrollHeight: 500, clientHeight: 100, scrollTop: 0});
  return {console, asked};
}

test('it asks for nothing while it is folded', async () => {
  const {console, asked} = made(200, 'epoch 1');
  await console.update();
  assert.deepEqual(asked, []);
});

test('it asks when it is unfolded, and shows what is said', async () => {
  const {console, asked} = made(200, 'epoch 1');
  console.root.open = true;
  console.root.dispatchEvent(new Event('toggle'));
  await new Promise(setImmediate);
  assert.deepEqual(asked, ['console?run=a%2Fb%20c']);
  assert.equal(console.text.textContent, 'epoch 1');
});

test('it follows the end, unless somebody has scrolled up', async () => {
  const {console} = made(200, 'epoch 1');
  console.root.open = true;
  await console.update();
  assert.equal(console.text.scrollTop, 0);
  console.text.scrollTop = 390;
  await console.update();
  assert.equal(console.text.scrollTop, 500);
});

test('it says that nothing is kept', async () => {
  const {console} = made(204, '');
  console.root.open = true;
  await console.update();
  assert.match(console.text.textContent, /^Nothing is kept/);
});
