import assert from 'node:assert/strict';
import {test} from 'node:test';

import {Pad} from '../../mnist_tb/board/static/draw.js';
import {open} from './browser.js';

const {frame} = open();

/** A pad, and all that it has said was drawn. */
function made() {
  const drawn = [];
  const pad = new Pad('a run', pixels => drawn.push(pixels));
  pad.pen.calls.length = 0;
  return {pad, drawn};
}

/** A pointer at a place of the window; the pad is half as large there as it has pixels. */
function point(pad, type, clientX = 0, clientY = 0) {
  const event = Object.assign(new Event(type, {cancelable: true}), {clientX, clientY, pointerId: 7});
  pad.paper.dispatchEvent(event);
  return event;
}

test('a new pad is empty, and says nothing of it', () => {
  const drawn = [], pad = new Pad('a run', pixels => drawn.push(pixels));
  assert.deepEqual(pad.pen.calls, [['fillRect', 0, 0, 224, 224]]);
  assert.deepEqual(drawn, []);
});

test('a stroke goes from place to place, in pixels of the pad', () => {
  const {pad} = made();
  const {defaultPrevented} = point(pad, 'pointerdown', 20, 40);
  point(pad, 'pointermove', 30, 60);
  point(pad, 'pointermove', 40, 60);
  assert.ok(defaultPrevented);
  assert.equal(pad.paper.captured, 7);
  assert.deepEqual(pad.pen.calls.filter(([name]) => name.endsWith('To')), [
    ['moveTo', 20, 40], ['lineTo', 20, 40],
    ['moveTo', 20, 40], ['lineTo', 40, 80],
    ['moveTo', 40, 80], ['lineTo', 60, 80],
  ]);
});

for (const end of ['pointerup', 'pointercancel']) {
  test(`after ${end}, a pointer that moves draws nothing`, () => {
    const {pad} = made();
    point(pad, 'pointermove', 30, 60);
    assert.deepEqual(pad.pen.calls, [], 'nor before it is down');
    point(pad, 'pointerdown', 20, 40);
    point(pad, end);
    const before = pad.pen.calls.length;
    point(pad, 'pointermove', 30, 60);
    assert.equal(pad.pen.calls.length, before);
  });
}

test('what was drawn is said once a frame, as the network sees it', () => {
  const {pad, drawn} = made();
  pad.pen.ink = (x, y) => x < 100 && y < 50 ? 255 : 0;
  point(pad, 'pointerdown', 20, 40);
  point(pad, 'pointermove', 30, 60);
  assert.deepEqual(drawn, []);
  frame();
  assert.equal(drawn.length, 1);
  const [pixels] = drawn;
  assert.equal(pixels.length, 784);
  const rows = new Set(), columns = new Set();
  pixels.forEach((value, i) => {
    if (value) rows.add(Math.floor(i / 28));
    if (value) columns.add(i % 28);
  });
  assert.deepEqual([Math.min(...rows), Math.max(...rows)], [9, 18]);
  assert.deepEqual([Math.min(...columns), Math.max(...columns)], [4, 23]);
  point(pad, 'pointermove', 40, 60);
  frame();
  assert.equal(drawn.length, 2);
});

test('the button clears the pad, and says so', () => {
  const {pad, drawn} = made();
  pad.clear.dispatchEvent(new Event('click'));
  assert.deepEqual(drawn, [null]);
  assert.deepEqual(pad.pen.calls, [['fillRect', 0, 0, 224, 224]]);
});

test('an image is shown, and a new drawing takes its place', () => {
  const {pad, drawn} = made();
  const pixels = new Uint8Array(784);
  pixels[1] = 200;
  pad.show(pixels);
  const [[name, small, ...where]] = pad.pen.calls;
  assert.deepEqual([name, ...where], ['drawImage', 0, 0, 224, 224]);
  assert.deepEqual([...small.pen.shown.data.slice(0, 8)], [0, 0, 0, 255, 200, 200, 200, 255]);
  pad.pen.calls.length = 0;
  point(pad, 'pointerdown', 20, 40);
  point(pad, 'pointerdown', 30, 40);
  assert.equal(pad.pen.calls.filter(([name]) => name === 'fillRect').length, 1, 'a second stroke belongs to the first');
  assert.deepEqual(drawn, []);
});
