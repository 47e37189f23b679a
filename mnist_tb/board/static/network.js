// The network in the browser: weights that the training exported, and what they make of 28×28 pixels. Pure functions only.

/**
 * A network as the training exports it: a line of JSON that says what is where, then float32 or float16, little-endian.
 * modules: what an image goes through, [{name, kind, …}]; layers: name → {shape, values}; mean, std: of the training
 * pixels, 0 to 1; classes: the ten names; unknown: what of it cannot be computed here, empty where all can.
 */
export function parse(buffer) {
  const [header, rest] = split(buffer);
  const values = header.type === 'float16' ? fromHalf(new Uint16Array(rest)) : new Float32Array(rest);
  const layers = {};
  let at = 0;
  for (const [name, shape] of Object.entries(header.shapes)) {
    const size = shape.reduce((a, b) => a * b, 1);
    layers[name] = {shape, values: values.subarray(at, at + size)};
    at += size;
  }
  if (at !== values.length) throw new Error('the weights do not fit what is said of them');
  const network = {modules: OLDER, ...header, layers};
  return {...network, unknown: unknown(network)};
}

/** Version 1.0.0 did not say what network it is: it had this one. */
export const OLDER = ['conv1', 'pool1', 'relu1', 'conv2', 'pool2', 'relu2', 'conv3', 'relu3', 'linear'].map(name => ({name,
  ...name.startsWith('conv') ? {kind: 'Conv2d', stride: 1, padding: 1, dilation: 1, groups: 1, padding_mode: 'zeros'}
    : name.startsWith('pool') ? {kind: 'MaxPool2d', kernel_size: 2, stride: 2, padding: 0, dilation: 1}
      : {kind: name === 'linear' ? 'Linear' : 'ReLU'}}));

/** The first module that is another one than is computed here, in words; empty for none. */
function unknown({modules, layers, classes}) {
  const all = (setting, value) => [setting].flat().every(one => one === value);
  let [maps, side] = [1, 28];
  const known = {
    Conv2d: ({stride, padding, dilation, groups, padding_mode}, [outputs, inputs, height, width], bias) => {
      const fits = inputs === maps && height === width && width % 2 === 1 && all(stride, 1) && all(dilation, 1)
        && all(padding, (width - 1) / 2) && groups === 1 && padding_mode === 'zeros' && bias?.length === outputs;
      maps = outputs;
      return fits;
    },
    MaxPool2d: ({kernel_size, stride, padding, dilation, ceil_mode}) => {
      const fits = all([kernel_size, stride].flat(), 2) && all(padding, 0) && all(dilation, 1) && !ceil_mode
        && side % 2 === 0;
      side /= 2;
      return fits;
    },
    ReLU: () => true,
    Linear: (module, [outputs, inputs], bias) => module === modules.at(-1) && inputs === maps * side * side
      && outputs === classes.length && bias?.length === outputs,
  };
  const shape = ({name}) => layers[`${name}.weight`]?.shape ?? [];
  const odd = modules.find(module => !Object.hasOwn(known, module.kind)
    || !known[module.kind](module, shape(module), layers[`${module.name}.bias`]?.values));
  if (odd) return [`${odd.kind} ${odd.name}`, shape(odd).join('×')].filter(Boolean).join(', ');
  return modules.at(-1)?.kind === 'Linear' ? '' : 'no linear layer at the end';
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

/**
 * pixels: 784 grey levels, 0 to 255, row by row, light on dark. Of a network of which nothing is unknown.
 * layers: [{name, side, maps}], what each convolution gives after its pooling and ReLU, the input before them;
 * logits, probabilities: ten, in the order of the classes.
 */
export function forward({modules, layers, mean, std, unknown}, pixels) {
  if (unknown) throw new Error(unknown);
  let maps = [Float32Array.from(pixels, value => (value / 255 - mean) / std)], side = 28, name = 'input';
  const seen = [], see = () => seen.push({name, side, maps});
  for (const module of modules) {
    const weights = layers[`${module.name}.weight`], bias = layers[`${module.name}.bias`]?.values;
    if (module.kind === 'Conv2d') {
      see();
      ({name} = module);
      maps = convolve(maps, side, weights, bias);
    } else if (module.kind === 'MaxPool2d') {
      maps = maps.map(map => largest(map, side));
      side /= 2;
    } else if (module.kind === 'ReLU') {
      maps = maps.map(map => map.map(value => value < 0 ? 0 : value));
    } else {
      see();
      const logits = linear(maps, weights, bias);
      return {layers: seen, logits, probabilities: softmax(logits)};
    }
  }
}

/** Ten probabilities, in the order of the classes. */
export function probabilities(network, pixels) {
  return forward(network, pixels).probabilities;
}

/** How much each place speaks for a class: the parts of its logit, but for the bias. maps: of the last convolution. */
export function evidence(network, maps, k) {
  const {shape: [, inputs], values} = network.layers[`${network.modules.at(-1).name}.weight`], size = maps[0].length;
  const made = new Float64Array(size);
  maps.forEach((map, channel) => {
    for (let i = 0; i < size; i++) made[i] += values[k * inputs + channel * size + i] * map[i];
  });
  return made;
}

/** As many rows as columns, an odd number, with a border of zeros. */
function convolve(maps, side, {shape: [outputs, inputs, size], values}, bias) {
  const made = [], taps = size * size, border = (size - 1) / 2;
  for (let o = 0; o < outputs; o++) {
    const out = new Float32Array(side * side).fill(bias[o]);
    for (let i = 0; i < inputs; i++) {
      const map = maps[i];
      for (let tap = 0; tap < taps; tap++) {
        const weight = values[(o * inputs + i) * taps + tap];
        const down = Math.floor(tap / size) - border, right = tap % size - border;
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
