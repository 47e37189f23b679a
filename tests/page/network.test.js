import assert from 'node:assert/strict';
import {test} from 'node:test';
import {deflateSync} from 'node:zlib';

import {
  OLDER, evidence, forward, parse, parseResult, parseSamples, prepare, probabilities,
} from '../../mnist_tb/board/static/network.js';

/** A line of JSON, then bytes, as the training writes them. */
function encode(header, bytes) {
  const buffer = Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), bytes]);
  return buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.length);
}

const float32 = numbers => Buffer.from(Float32Array.from(numbers).buffer);
const float16 = halves => Buffer.from(Uint16Array.from(halves).buffer);

test('weights are read layer by layer', () => {
  const shapes = {a: [2, 2], b: [1]};
  const header = {shapes, type: 'float32', classes: ['0', '1'], mean: 0.13, std: 0.3};
  const {layers, classes, mean} = parse(encode(header, float32([1, 2, 3, 4, 5])));
  assert.deepEqual([...layers.a.values], [1, 2, 3, 4]);
  assert.deepEqual(layers.a.shape, [2, 2]);
  assert.deepEqual([...layers.b.values], [5]);
  assert.deepEqual([classes, mean], [['0', '1'], 0.13]);
});

test('weights of another size than is said are refused', () => {
  assert.throws(() => parse(encode({shapes: {a: [3]}, type: 'float32'}, float32([1, 2]))), /do not fit/);
  assert.throws(() => parse(encode({shapes: {a: [1]}, type: 'float32'}, float32([1, 2]))), /do not fit/);
});

test('numbers of 16 bits are read as IEEE 754 says', () => {
  const halves = [0x3c00, 0xc000, 0x3555, 0x0001, 0x03ff, 0x7bff, 0x0000, 0x7c00, 0xfc00, 0x7e00];
  const {layers} = parse(encode({shapes: {a: [halves.length]}, type: 'float16'}, float16(halves)));
  assert.deepEqual([...layers.a.values],
    [1, -2, 0.333251953125, 2 ** -24, 1023 * 2 ** -24, 65504, 0, Infinity, -Infinity, NaN]);
});

test('a network says what of it is not known here', () => {
  const shapes = {'linear.weight': [2, 784], 'linear.bias': [2]};
  const linear = {name: 'linear', kind: 'Linear'}, relu = {name: 'relu', kind: 'ReLU'};
  const unknown = modules => parse(encode({modules, shapes, type: 'float32', classes: ['0', '1']},
    float32(Array(2 * 784 + 2).fill(0)))).unknown;
  assert.equal(unknown([relu, linear]), '');
  assert.equal(unknown([relu]), 'no linear layer at the end');
  assert.equal(unknown([{name: 'norm', kind: 'LayerNorm'}, linear]), 'LayerNorm norm');
  assert.equal(unknown([{name: 'odd', kind: 'constructor'}, linear]), 'constructor odd');
  assert.equal(unknown([linear, relu]), 'Linear linear, 2×784');
});

test('watched images have their labels', () => {
  const pixels = Buffer.alloc(2 * 784);
  pixels[784] = 9;
  const [first, second] = parseSamples(encode({labels: [3, 5]}, pixels));
  assert.deepEqual([first.label, first.pixels.length, first.pixels[0]], [3, 784, 0]);
  assert.deepEqual([second.label, second.pixels[0]], [5, 9]);
});

test('a result has its matrix, and its images unpacked', async () => {
  const header = {classes: ['a', 'b'], counts: [[1, 1], [0, 2]], images: [[7, 0, 1, 0.9], [8, 1, 1, 0.6]]};
  const pixels = Buffer.alloc(2 * 784, 1);
  pixels[784] = 255;
  const {classes, counts, images} = await parseResult(encode(header, deflateSync(pixels)));
  assert.deepEqual([classes, counts], [header.classes, header.counts]);
  const {pixels: second, ...said} = images[1];
  assert.deepEqual(said, {index: 8, label: 1, prediction: 1, confidence: 0.6});
  assert.deepEqual([second.length, second[0], second[1]], [784, 255, 1]);
});

/** A network of one map a layer: the middle of each kernel is 1, its neighbour on the right `right`. */
function network(right, bias, weights) {
  const kernel = Float32Array.from([0, 0, 0, 0, 1, right, 0, 0, 0]);
  const layers = {};
  for (const name of ['conv1', 'conv2', 'conv3']) {
    layers[`${name}.weight`] = {shape: [1, 1, 3, 3], values: kernel};
    layers[`${name}.bias`] = {shape: [1], values: Float32Array.from([0])};
  }
  layers['linear.weight'] = {shape: [2, 49], values: Float32Array.from(weights)};
  layers['linear.bias'] = {shape: [2], values: Float32Array.from(bias)};
  return {modules: OLDER, layers, mean: 0, std: 1, classes: ['0', '1'], unknown: ''};
}

test('an image goes through the layers', () => {
  const pixels = new Uint8Array(784);
  pixels[5 * 28 + 9] = 255;  // pooled twice, this is row 1, column 2
  const weights = [...Array(49).fill(2), ...Array(49).fill(-1)];
  const found = forward(network(0, [0.5, 0], weights), pixels);
  assert.deepEqual(found.layers.map(({name, side}) => [name, side]),
    [['input', 28], ['conv1', 14], ['conv2', 7], ['conv3', 7]]);
  assert.deepEqual([...found.layers[3].maps[0]].flatMap((value, i) => value ? [[i, value]] : []), [[1 * 7 + 2, 1]]);
  assert.deepEqual([...found.logits], [2.5, -1]);
  const [first, second] = found.probabilities;
  assert.ok(Math.abs(first - 1 / (1 + Math.exp(-3.5))) < 1e-12 && Math.abs(first + second - 1) < 1e-12);
});

test('a kernel looks at the neighbours, and what is negative is cut off', () => {
  const pixels = new Uint8Array(784);
  pixels[5 * 28 + 9] = 255;
  const {layers} = forward(network(1, [0, 0], Array(98).fill(0)), pixels);
  const lit = [...layers[1].maps[0]].flatMap((value, i) => value ? [i] : []);
  assert.deepEqual(lit, [2 * 14 + 4], 'the pixel and the one left of it are pooled into one');
  const dark = forward(network(-3, [0, 0], Array(98).fill(0)), pixels);
  assert.ok(dark.layers.slice(1).every(({maps}) => maps[0].every(value => value >= 0)));
});

test('pixels are normalised, and without weights all classes are alike', () => {
  const made = {...network(0, [0, 0], Array(98).fill(0)), mean: 0.5, std: 0.25};
  assert.deepEqual([...forward(made, new Uint8Array(784).fill(255)).layers[0].maps[0]].slice(0, 2), [2, 2]);
  assert.deepEqual([...probabilities(made, new Uint8Array(784))], [0.5, 0.5]);
});

test('the evidence for a class adds up to its logit, but for the bias', () => {
  const pixels = Uint8Array.from({length: 784}, (_, i) => i * 37 % 256);
  const weights = Array.from({length: 98}, (_, i) => (i * 13 % 7 - 3) / 4);
  const made = network(0.5, [0.25, -1], weights), {layers, logits} = forward(made, pixels);
  for (const k of [0, 1]) {
    const sum = evidence(made, layers.at(-1).maps, k).reduce((a, b) => a + b);
    assert.ok(Math.abs(sum + made.layers['linear.bias'].values[k] - logits[k]) < 1e-9);
  }
});

test('a drawing is scaled to 20 pixels, its centre of mass in the middle', () => {
  const side = 56, ink = new Uint8Array(side * side);
  for (let y = 0; y < 40; y++) for (let x = 30; x < 50; x++) ink[y * side + x] = 200;
  const pixels = prepare(ink, side);
  const lit = [...pixels.entries()].filter(([, value]) => value);
  assert.ok(lit.every(([, value]) => value === 255));
  assert.equal(lit.length, 20 * 10);
  assert.deepEqual([lit[0][0], lit.at(-1)[0]], [4 * 28 + 9, 23 * 28 + 18]);
});

test('nothing drawn is nothing', () => {
  assert.equal(prepare(new Uint8Array(56 * 56), 56), null);
});
