import assert from 'node:assert/strict';
import {test} from 'node:test';

import {colour, count, curveLine, isShare, short, smooth} from '../../mnist_tb/board/static/charts.js';

test('numbers are written short', () => {
  assert.deepEqual([0, 0.123456, 12.3456, -0.5, 1234, 1234567, 2e7, 0.00012].map(short),
    ['0', '0.1235', '12.35', '-0.5', '1,234', '1,234,567', '2.0e+7', '1.2e-4']);
  assert.equal(count(12345.6), '12,346');
});

test('each line has a colour of its own', () => {
  const colours = Array.from({length: 30}, (_, i) => colour(i));
  assert.equal(new Set(colours).size, 30);
  assert.match(colours[0], /^#[0-9a-f]{6}$/);
  assert.match(colours[29], /^hsl\(\d+ 60% 52%\)$/);
});

test('a moving average begins without a bias, and a gap stays', () => {
  const [first, gap, second] = smooth([1, null, 4], 0.5);
  assert.equal(first, 1);
  assert.equal(gap, null);
  assert.equal(second, (0.5 * 0.5 * 1 + 0.5 * 4) / (1 - 0.5 * 0.5));
  assert.ok(smooth([2, 2, 2], 0.9).every(value => Math.abs(value - 2) < 1e-12));
  const values = [1, 2];
  assert.equal(smooth(values, 0), values);
});

test('a training is thin, the others are thick with dots where they are few', () => {
  const steps = [1, 2], values = [0.5, 0.25];
  const [train, val, test] = ['train', 'val', 'test'].map(split => curveLine({split, steps, values, name: split}));
  assert.ok(train.width < val.width && train.alpha < 1);
  assert.deepEqual([train.dots, val.dots, test.dots], [0, 1, 1.7]);
  assert.deepEqual([val.name, val.steps, val.values], ['val', steps, values]);
  assert.equal('low' in val, false);
  const many = Array(100).fill(0.5);
  assert.equal(curveLine({split: 'val', steps: many, values: many}).dots, 0);
});

test('what is not finite is a gap', () => {
  const {values} = curveLine({split: 'val', steps: [1, 2, 3, 4], values: [1, NaN, null, Infinity]});
  assert.deepEqual(values, [1, null, null, null]);
});

test('a band is as wide as the deviation to either side', () => {
  const {low, high} = curveLine({split: 'val', steps: [1, 2, 3], values: [1, null, 2], deviation: [0.5, null, null]});
  assert.deepEqual(low, [0.5, null, 2]);
  assert.deepEqual(high, [1.5, null, 2]);
});

test('shares lie between 0 and 1', () => {
  assert.ok(isShare([{values: [0, null, 1]}, {values: []}]));
  assert.ok(!isShare([{values: [0.5]}, {values: [1.01]}]));
  assert.ok(!isShare([{values: [-0.1]}]));
});
