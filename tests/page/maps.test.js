import assert from 'node:assert/strict';
import {test} from 'node:test';

import {canvas, grey, paint, parts, signed} from '../../mnist_tb/board/static/maps.js';
import {open} from './browser.js';

open();

/** The red values of a picture, row by row. */
function reds({pen: {shown: {data, width, height}}}) {
  return Array.from({length: height}, (_, y) => Array.from({length: width}, (_, x) => data[4 * (y * width + x)]));
}

test('numbers are cut into parts of one size', () => {
  const all = new Float32Array([1, 2, 3, 4, 5, 6]);
  assert.deepEqual(parts(all, 3).map(part => [...part]), [[1, 2, 3], [4, 5, 6]]);
});

test('grey goes from black to white, and stays there', () => {
  assert.deepEqual([-1, 0, 0.5, 1, 7].map(share => grey(share)[0]), [0, 0, 128, 255, 255]);
});

test('blue is above zero, red below, pale in between', () => {
  for (const values of [[1, -2], new Float32Array([1, -2])]) {
    const colours = signed(values);
    assert.deepEqual(colours(2), [0, 115, 245]);
    assert.deepEqual(colours(-2), [245, 0, 0]);
    assert.deepEqual(colours(1), [123, 180, 245]);
    assert.deepEqual(colours(0), [245, 245, 245]);
  }
  assert.deepEqual(signed([0, 0])(0), [245, 245, 245], 'nothing is no division by zero');
});

test('maps stand side by side, with a pixel between them', () => {
  const picture = canvas('maps', 'seen');
  paint(picture, 2, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], 2, value => [value, 0, 0], 3);
  assert.deepEqual(reds(picture), [
    [1, 2, 0, 5, 6],
    [3, 4, 0, 7, 8],
    [0, 0, 0, 0, 0],
    [9, 10, 0, 0, 0],
    [11, 12, 0, 0, 0],
  ]);
  assert.deepEqual([picture.width, picture.height, picture.style.width], [5, 5, '15px']);
  assert.equal(picture.pen.shown.data[3], 255, 'what is painted is opaque');
  assert.equal(picture.pen.shown.data[4 * 2 + 3], 0, 'what is between is not');
});

test('one map has no pixel beside it', () => {
  const picture = canvas('', 'sample');
  paint(picture, 2, [[1, 2, 3, 4]], 1, value => [value, 0, 0]);
  assert.deepEqual(reds(picture), [[1, 2], [3, 4]]);
  assert.equal(picture.style.width, undefined);
});

test('a picture without a label is hidden from those who listen', () => {
  assert.equal(canvas('', 'sample').ariaHidden, 'true');
  assert.equal(canvas('what it sees', 'seen').attributes.get('role'), 'img');
});
