import assert from 'node:assert/strict';
import {test} from 'node:test';

import {element, select, setText} from '../../mnist_tb/board/static/dom.js';
import {open} from './browser.js';

open();

test('an element has its properties and children, and its role as an attribute', () => {
  const child = element('i');
  const made = element('p', {className: 'about', role: 'status', textContent: '<b>'}, child, 'text');
  assert.equal(made.tag, 'p');
  assert.equal(made.className, 'about');
  assert.equal(made.textContent, '<b>');
  assert.equal(made.attributes.get('role'), 'status');
  assert.deepEqual(made.children, [child, 'text']);
  assert.equal(child.attributes.size, 0);
});

test('a text that is there already is not set anew', () => {
  let times = 0;
  const where = {get textContent() { return 'old'; }, set textContent(text) { times += 1; }};
  setText(where, 'old');
  assert.equal(times, 0);
  setText(where, 'new');
  assert.equal(times, 1);
});

test('a choice has its options, and one of them is chosen', () => {
  const made = select('axis', [['step', 'by step'], ['time', 'by time']], 'time');
  assert.equal(made.ariaLabel, 'axis');
  assert.deepEqual(made.children.map(({value, textContent}) => [value, textContent]),
    [['step', 'by step'], ['time', 'by time']]);
  assert.equal(made.value, 'time');
});
