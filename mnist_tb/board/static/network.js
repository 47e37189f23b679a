// The network in the browser: weights that the training exported, and what they make of 28×28 pixels. Pure functions only.

/**
 * Weights as the training exports them: a line of JSON that says what is where, then float32 or float16, little-endian.
 * layers: name → {shape, values}; mean, std: of the training pixels, 0 to 1; classes: the ten names.
 */
export function parse(buffer) {
  const [header, rest] = split(buffer);
  const values = header.type === 'float16' ? fromHalf(new Uint16Array(rest)) : new Float32Array(rest);
  const layers = {};
  let at = 0;
  for (const [name, shape] of Object.entries(header.shapes)) {
    const size = shape.reduce((a, b) => a * b);
    layers[name] = {shape, values: values.subarray(at, at + size)};
    at += size;
  }
  if (at !== values.length) throw new Error('the weights do not fit what is said of them');
  return {...header, layers};
}

/** The watched images: [{label, pixels}], label: the index of a class, pixels: 784 grey levels, 0 to 255. */
export function parseSamples(buffer) {
  const [{labels}, rest] = split(buffer);
  return labels.map((label, i) => ({label, pixels: new Uint8Array(rest, 784 * i, 784)}));
}

/**
 * A test result: classes; counts, a row for each true class; images: [{index, label, prediction, confidence, pixels}],
 * mistakes first, the most confident one at the beginning, then the others, the least confident first.
 */
export async function parseResult(buffer) {
  const [header, rest] = split(buffer);
  const unpacked = new Blob([rest]).stream().pipeThrough(new DecompressionStream('deflate'));
  const bytes = await new Response(unpacked).arrayBuffer();
  return {...header, images: header.images.map(([index, label, prediction, confidence], i) =>
    ({index, label, prediction, confidence, pixels: new Uint8Array(bytes, 784 * i, 784)}))};
}

function split(buffer) {
  const bytes = new Uint8Array(buffer), end = bytes.indexOf(10);
  return [JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))), buffer.slice(end + 1)];
}

/** IEEE 754 half precision: a sign, five bits of exponent, ten of fraction. */
function fromHalf(halves) {
  return Float32Array.from(halves, half => {
    const sign = half & 0x8000 ? -1 : 1, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * fraction / 1024);
  });
}

export const CONVOLUTIONS = [['conv1', true], ['conv2', true], ['conv3', false]];  // name, and whether it is pooled

/**
 * pixels: 784 grey levels, 0 to 255, row by row, light on dark.
 * layers: [{name, side, maps}], what each convolution gives after its pooling and ReLU, the input before them;
 * logits, probabilities: ten, in the order of the classes.
 */
export function forward(network, pixels) {
  const {layers, mean, std} = network;
  let maps = [Float32Array.from(pixels, value => (value / 255 - mean) / std)], side = 28;
  const seen = [{name: 'input', side, maps}];
  for (const [name, pooled] of CONVOLUTIONS) {
    maps = convolve(maps, side, layers[`${name}.weight`], layers[`${name}.bias`].values);
    if (pooled) {
      maps = maps.map(map => largest(map, side));
      side /= 2;
    }
    for (const map of maps) for (let i = 0; i < map.length; i++) if (map[i] < 0) map[i] = 0;
    seen.push({name, side, maps});
  }
  const logits = linear(maps, layers['linear.weight'], layers['linear.bias'].values);
  return {layers: seen, logits, probabilities: softmax(logits)};
}

/** Ten probabilities, in the order of the classes. */
export function probabilities(network, pixels) {
  return forward(network, pixels).probabilities;
}

/** How much each place speaks for a class: the parts of its logit, but for the bias. maps: of the last convolution. */
export function evidence(network, maps, k) {
  const {shape: [, inputs], values} = network.layers['linear.weight'], size = maps[0].length;
  const made = new Float64Array(size);
  maps.forEach((map, channel) => {
    for (let i = 0; i < size; i++) made[i] += values[k * inputs + channel * size + i] * map[i];
  });
  return made;
}

/** 3×3 with a border of zeros. */
function convolve(maps, side, {shape: [outputs, inputs], values}, bias) {
  const made = [];
  for (let o = 0; o < outputs; o++) {
    const out = new Float32Array(side * side).fill(bias[o]);
    for (let i = 0; i < inputs; i++) {
      const map = maps[i];
      for (let tap = 0; tap < 9; tap++) {
        const weight = values[(o * inputs + i) * 9 + tap];
        const down = Math.floor(tap / 3) - 1, right = tap % 3 - 1;
        for (let y = Math.max(0, -down); y < Math.min(side, side - down); y++) {
          const row = y * side, from = (y + down) * side + right;
          for (let x = Math.max(0, -right); x < Math.min(side, side - right); x++) out[row + x] += weight * map[from + x];
        }
      }
    }
    made.push(out);
  }
  return made;
}

/** The largest of each 2×2. */
function largest(map, side) {
  const half = side / 2, made = new Float32Array(half * half);
  for (let y = 0; y < half; y++) {
    for (let x = 0; x < half; x++) {
      const at = 2 * y * side + 2 * x;
      made[y * half + x] = Math.max(map[at], map[at + 1], map[at + side], map[at + side + 1]);
    }
  }
  return made;
}

function linear(maps, {shape: [outputs, inputs], values}, bias) {
  const size = maps[0].length, made = new Float64Array(outputs);
  for (let o = 0; o < outputs; o++) {
    let sum = bias[o];
    maps.forEach((map, channel) => {
      for (let i = 0; i < size; i++) sum += values[o * inputs + channel * size + i] * map[i];
    });
    made[o] = sum;
  }
  return made;
}

function softmax(logits) {
  const most = Math.max(...logits), powers = Array.from(logits, logit => Math.exp(logit - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map(power => power / total);
}

/**
 * What was drawn, as MNIST would hold it: in a box of 20×20, its centre of mass in the middle of 28×28.
 * http://yann.lecun.com/exdb/mnist/
 *
 * ink: grey levels, 0 (nothing) to 255, of a square with that many pixels a side. 784 grey levels; null for no ink.
 */
export function prepare(ink, side) {
  let [top, bottom, left, right] = [side, -1, side, -1];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (ink[y * side + x] > 127) {
        top = Math.min(top, y), bottom = Math.max(bottom, y), left = Math.min(left, x), right = Math.max(right, x);
      }
    }
  }
  if (bottom < 0) return null;
  const height = bottom - top + 1, width = right - left + 1, scale = 20 / Math.max(height, width);
  const rows = Math.max(1, Math.round(height * scale)), columns = Math.max(1, Math.round(width * scale));
  const small = new Float64Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      small[y * columns + x] = mean(ink, side, top + y * height / rows, top + (y + 1) * height / rows,
        left + x * width / columns, left + (x + 1) * width / columns);
    }
  }
  const most = Math.max(...small), total = small.reduce((a, b) => a + b);
  let down = 0, across = 0;
  small.forEach((value, i) => {
    down += value * (Math.floor(i / columns) + 0.5) / total;
    across += value * (i % columns + 0.5) / total;
  });
  const within = (middle, size) => Math.min(Math.max(Math.round(14 - middle), 0), 28 - size);
  const y0 = within(down, rows), x0 = within(across, columns), made = new Uint8Array(784);
  small.forEach((value, i) => {
    made[(y0 + Math.floor(i / columns)) * 28 + x0 + i % columns] = Math.round(value * 255 / most);
  });
  return made;
}

/** The mean over a rectangle whose edges may lie within pixels. */
function mean(ink, side, top, bottom, left, right) {
  let sum = 0;
  for (let y = Math.floor(top); y < bottom; y++) {
    const high = Math.min(y + 1, bottom) - Math.max(y, top);
    for (let x = Math.floor(left); x < right; x++) sum += ink[y * side + x] * high * (Math.min(x + 1, right) - Math.max(x, left));
  }
  return sum / ((bottom - top) * (right - left));
}
